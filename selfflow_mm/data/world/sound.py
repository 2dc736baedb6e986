"""The sound of a clip: each contact rings by the room's material, at its time, from its place, by its impact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from .constants import RATE, SAMPLES, WIDTH
from .materials import MATERIALS, Material
from .physics import Contact
from .scene import SIZES, Scene

#: Full impacts are rare; this exponent lifts weak ones so that a second bounce is still heard.
_LOUDNESS_EXPONENT = 0.8
#: Sounds never come from one side alone: the pan runs over this share of the way from left to right.
_PAN_WIDTH = 0.8
#: Harder blows are brighter: a partial's level falls by this many dB per kHz at impact 0, not at all at impact 1.
_DULLNESS = 6.0
#: Larger objects sound lower, but only a little: the pitch is a mark of the material.
_PITCH_EXPONENT = 0.5


def render_sound(scene: Scene, contacts: Sequence[Contact]) -> np.ndarray:
    """Float32 ``(2, SAMPLES)`` in [-1, 1], exactly zero before the first contact."""
    material = MATERIALS[scene.material]
    out = np.zeros((2, SAMPLES))
    for contact in contacts:
        start = round(contact.time * RATE)
        if start >= SAMPLES:
            continue
        body = scene.bodies[contact.body]
        low, high = SIZES[body.shape]
        pitch = ((low + high) / 2 / body.size) ** _PITCH_EXPONENT
        level = min(contact.impact, 1.0)
        tone = ring(material, pitch, level)[: SAMPLES - start]
        gain = material.loudness * level**_LOUDNESS_EXPONENT
        out[:, start : start + len(tone)] += gain * pan(contact.place[0])[:, None] * tone
    peak = np.abs(out).max()
    if peak > 0.98:
        out *= 0.98 / peak
    return out.astype(np.float32)


def pan(x: float) -> np.ndarray:
    """Constant-power gains (left, right) for a sound at ``x`` pixels; the squares sum to 1."""
    side = _PAN_WIDTH * (min(max(x / WIDTH, 0.0), 1.0) - 0.5) + 0.5
    return np.array([math.cos(side * math.pi / 2), math.sin(side * math.pi / 2)])


def ring(material: Material, pitch: float, brightness: float) -> np.ndarray:
    """The sound of one blow, 1 at its peak: ``pitch`` multiplies frequencies, ``brightness`` is in [0, 1]."""
    length = min(SAMPLES, int(RATE * max(p.t60 for p in material.partials)))
    time = np.arange(length) / RATE
    warped = time
    if material.glide:
        # The phase of a pitch that falls from (1 + glide) to 1 with the time constant glide_time.
        warped = time + material.glide * material.glide_time * (1 - np.exp(-time / material.glide_time))
    wave = np.zeros(length)
    total = 0.0
    for partial in material.partials:
        n = min(length, int(RATE * partial.t60))
        frequency = partial.frequency * pitch
        amplitude = partial.amplitude * 10 ** (-(1 - brightness) * _DULLNESS * frequency / 1000 / 20)
        total += amplitude
        decay = np.exp(-math.log(1000) / partial.t60 * time[:n])
        wave[:n] += amplitude * decay * np.sin(2 * math.pi * frequency * warped[:n])
    wave /= total
    if material.click:
        noise = _noise(int(RATE * material.click_t60))
        n = len(noise)
        decay = np.exp(-math.log(1000) / material.click_t60 * time[:n])
        wave[:n] += material.click * (0.3 + 0.7 * brightness) * decay * noise
    rise = max(1, int(RATE * material.attack))
    wave[:rise] *= np.sin(np.linspace(0, math.pi / 2, rise))
    # Modes still sound when they have fallen by 60 dB; a short fade avoids a step there.
    fade = min(length, 160)
    wave[-fade:] *= np.linspace(1, 0, fade)
    return wave / np.abs(wave).max()


@cache
def _noise(length: int) -> np.ndarray:
    """The click's noise: always the same, as the same two surfaces meet."""
    return np.random.Generator(np.random.Philox(key=7)).uniform(-1, 1, length)
