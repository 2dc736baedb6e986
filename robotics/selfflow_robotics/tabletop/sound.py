"""What the microphones at the camera hear: each contact rings by what met, when it met, from where it met.

Modal synthesis: a sound is a sum of decaying partials and a short click (K. van den Doel and D. Pai, "The sounds of
physical shapes", Presence 7(4), 1998).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from . import measures as m
from .contacts import Contact

RATE = 24_000
#: Samples of one control step.
SAMPLES = RATE // m.RATE
#: Weak blows are lifted, so that setting something down is still heard.
_EXPONENT = 0.7
_LEVELS = 8
#: y of the place that sounds from one side alone, and how far apart the sides are at most.
_WIDTH, _PAN = 0.7, 0.85


@dataclass(frozen=True)
class Ring:
    """How one material sounds.

    Attributes:
        partials: (frequency in Hz, relative amplitude, seconds to fall by 60 dB) each.
        click: loudness of the noise at the start relative to the partials; ``click_t60`` its decay in seconds.
        loudness: of the hardest blow, in [0, 1].
    """

    partials: tuple[tuple[float, float, float], ...]
    click: float
    click_t60: float
    loudness: float


MATERIALS: dict[str, Ring] = {
    "wood": Ring(((310, 1.0, 0.16), (640, 0.6, 0.11), (1150, 0.35, 0.07), (2100, 0.15, 0.04)), 0.4, 0.015, 0.40),
    "metal": Ring(((1420, 0.8, 0.40), (2650, 1.0, 0.34), (4310, 0.6, 0.24), (6900, 0.3, 0.15)), 0.4, 0.008, 0.35),
    "plastic": Ring(((520, 1.0, 0.10), (1240, 0.7, 0.07), (2350, 0.4, 0.05)), 0.5, 0.010, 0.32),
    "fruit": Ring(((170, 1.0, 0.07), (290, 0.4, 0.05)), 0.1, 0.020, 0.30),
    "paper": Ring(((410, 0.6, 0.05), (930, 0.4, 0.04)), 0.9, 0.030, 0.22),
    "foam": Ring(((120, 1.0, 0.04),), 0.1, 0.030, 0.08),
    "rubber": Ring(((210, 1.0, 0.05), (380, 0.3, 0.04)), 0.1, 0.020, 0.12),
}
_LONGEST = int(RATE * max(t60 for ring in MATERIALS.values() for _, _, t60 in ring.partials))


class Microphones:
    """Stereo at the robot's head, left and right; keeps what still rings from one control step to the next."""

    def __init__(self) -> None:
        self._waiting = np.zeros((2, SAMPLES + _LONGEST))

    def hear(self, contacts: Sequence[Contact], since: float) -> np.ndarray:
        """Float32 ``(2, SAMPLES)`` in [-1, 1]: the control step that began at ``since`` seconds, with its contacts.

        Before the first contact and after the last tail every sample is 0.
        """
        for contact in contacts:
            first = min(max(round((contact.time - since) * RATE), 0), SAMPLES - 1)
            level = contact.impact**_EXPONENT
            for material in contact.materials:
                wave = ring(material, min(int(contact.impact * _LEVELS), _LEVELS - 1))
                gain = level * MATERIALS[material].loudness * pan(contact.place[1])
                self._waiting[:, first : first + len(wave)] += gain[:, None] * wave
        out = self._waiting[:, :SAMPLES].copy()
        self._waiting[:, :-SAMPLES] = self._waiting[:, SAMPLES:]
        self._waiting[:, -SAMPLES:] = 0.0
        # Several blows at once may exceed full scale: tanh bends only what is near it.
        return np.where(np.abs(out) > 0.5, np.sign(out) * (0.5 + 0.5 * np.tanh(2 * np.abs(out) - 1)), out).astype(
            np.float32
        )


def pan(y: float) -> np.ndarray:
    """Constant-power gains (left, right) of a sound at ``y`` metres to the left; the squares sum to 1."""
    side = 0.5 - _PAN / 2 * min(max(y / _WIDTH, -1.0), 1.0)
    return np.array([math.cos(side * math.pi / 2), math.sin(side * math.pi / 2)])


@cache
def ring(material: str, level: int) -> np.ndarray:
    """One blow at 1 at its peak; ``level`` 0 (soft and dull) to 7 (hard and bright)."""
    made = MATERIALS[material]
    bright = (level + 1) / _LEVELS
    length = int(RATE * max(t60 for _, _, t60 in made.partials))
    time = np.arange(length) / RATE
    wave = np.zeros(length)
    for frequency, amplitude, t60 in made.partials:
        # 6 dB per kHz duller at the softest blow.
        amplitude *= 10 ** (-(1 - bright) * 6 * frequency / 1000 / 20)
        wave += amplitude * np.exp(-math.log(1000) / t60 * time) * np.cos(2 * math.pi * frequency * time)
    count = int(RATE * made.click_t60)
    noise = np.random.Generator(np.random.Philox(key=5)).uniform(-1, 1, count)
    wave[:count] += made.click * bright * np.exp(-math.log(1000) / made.click_t60 * time[:count]) * noise
    # A rise over 0.2 ms instead of a step, and no step at the end either.
    rise, fade = int(RATE * 0.0002) + 1, min(length, 120)
    wave[:rise] *= np.arange(1, rise + 1) / rise
    wave[-fade:] *= np.linspace(1, 0, fade)
    wave /= np.abs(wave).max()
    wave.flags.writeable = False
    return wave
