"""The sound of a clip: what is hit rings by its material, at its time, from its place, by the impact; what rolls or
slides hisses or rumbles by its material and speed."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from .constants import RATE, SAMPLES, STEP, WIDTH
from .materials import MATERIALS, Material
from .physics import Contact, Motion, Roll
from .scene import SIZES, Scene, Thing

#: Full impacts are rare; this exponent lifts weak ones so that a second bounce is still heard.
_LOUDNESS_EXPONENT = 0.8
#: Sounds never come from one side alone: the pan runs over this share of the way from left to right.
_PAN_WIDTH = 0.8
#: Harder blows are brighter: a partial's level falls by this many dB per kHz at impact 0, not at all at impact 1.
_DULLNESS = 5.0
#: Larger objects sound lower, but only a little: the pitch is a mark of the material.
_PITCH_EXPONENT = 0.5
#: Speeds (pixels per second) at which the rolling noise fills its lower and its upper band.
SLOW, FAST = 15.0, 60.0
#: Seconds in which rolling noise comes and goes, beside what the speed does to it.
_SWELL = 0.012


def render_sound(scene: Scene, motion: Motion) -> np.ndarray:
    """Float32 ``(2, SAMPLES)`` in [-1, 1], exactly zero before the first contact or roll."""
    out = np.zeros((2, SAMPLES))
    for roll in motion.rolls:
        start, noise = _rolling(scene.things[roll.thing], roll, motion.path[roll.thing])
        noise = noise[:, : SAMPLES - start]
        out[:, start : start + noise.shape[1]] += noise
    for contact in motion.contacts:
        start = round(contact.time * RATE)
        for number in sounding(contact):
            thing = scene.things[number]
            material = MATERIALS[thing.material]
            level = min(contact.impact, 1.0)
            tone = ring(material, _pitch(thing), level)[: SAMPLES - start]
            gain = material.loudness * level**_LOUDNESS_EXPONENT
            out[:, start : start + len(tone)] += gain * pan(np.array(contact.place[0]))[:, None] * tone
    peak = np.abs(out).max()
    if peak > 0.98:
        out *= 0.98 / peak
    return out.astype(np.float32)


def sounding(contact: Contact) -> tuple[int, ...]:
    """Numbers of the objects that ring: furniture is silent."""
    return (contact.thing, contact.other) if isinstance(contact.other, int) else (contact.thing,)


def pan(x: np.ndarray) -> np.ndarray:
    """Constant-power gains ``(2, ...)``, left and right, for sounds at ``x`` pixels; the squares sum to 1."""
    side = _PAN_WIDTH * (np.clip(x / WIDTH, 0.0, 1.0) - 0.5) + 0.5
    return np.stack([np.cos(side * math.pi / 2), np.sin(side * math.pi / 2)])


def _pitch(thing: Thing) -> float:
    return (sum(SIZES[thing.shape]) / 2 / thing.size) ** _PITCH_EXPONENT


def ring(material: Material, pitch: float, brightness: float) -> np.ndarray:
    """The sound of one blow, 1 at its peak: ``pitch`` multiplies frequencies, ``brightness`` is in [0, 1]."""
    length = int(RATE * max(p.t60 for p in material.partials))
    time = np.arange(length) / RATE
    warped = time
    if material.glide:
        # The phase of a pitch that falls from (1 + glide) to 1 with the time constant glide_time.
        warped = time + material.glide * material.glide_time * (1 - np.exp(-time / material.glide_time))
    wave = np.zeros(length)
    total = 0.0
    for partial in material.partials:
        n = int(RATE * partial.t60)
        frequency = partial.frequency * pitch
        amplitude = partial.amplitude * 10 ** (-(1 - brightness) * _DULLNESS * frequency / 1000 / 20)
        total += amplitude
        decay = np.exp(-math.log(1000) / partial.t60 * time[:n])
        wave[:n] += amplitude * decay * np.sin(2 * math.pi * frequency * warped[:n])
    wave /= total
    if material.click:
        click = _noise()[: int(RATE * material.click_t60)]
        decay = np.exp(-math.log(1000) / material.click_t60 * time[: len(click)])
        wave[: len(click)] += material.click * (0.3 + 0.7 * brightness) * decay * click
    rise = max(1, int(RATE * material.attack))
    wave[:rise] *= np.sin(np.linspace(0, math.pi / 2, rise))
    # Modes still sound when they have fallen by 60 dB; a short fade avoids a step there.
    wave[-160:] *= np.linspace(1, 0, 160)
    return wave / np.abs(wave).max()


def _rolling(thing: Thing, roll: Roll, path: np.ndarray) -> tuple[int, np.ndarray]:
    """First sample and waveform ``(2, n)`` of a roll: noise between two bands, the louder the faster, fading with the
    object as it enters or leaves the picture."""
    start, end = round(roll.time * RATE), round(roll.until * RATE)
    samples = np.arange(start, end)
    steps = np.arange(roll.first, roll.last + 1)
    speed = np.interp(samples / RATE, steps * STEP, roll.speeds)
    x = np.interp(samples / RATE, steps * STEP, path[np.minimum(steps, len(path) - 1), 0])
    share = np.clip((speed - SLOW) / (FAST - SLOW), 0, 1)
    slow, fast = (_band(edges)[start:end] for edges in MATERIALS[thing.material].rolling)
    noise = np.sqrt(1 - share) * slow + np.sqrt(share) * fast
    swell = np.minimum(np.minimum(np.arange(len(samples)), np.arange(len(samples))[::-1]) / (RATE * _SWELL), 1.0)
    inside = np.clip((np.minimum(x, WIDTH - x) + thing.half_width) / thing.half_width, 0.25, 1.0)
    loudness = MATERIALS[thing.material].rolling_loudness * np.clip(speed / FAST, 0, 1.2)
    return start, pan(x) * (noise * swell * inside * loudness)


@cache
def _noise() -> np.ndarray:
    """The noise of all clicks and rolls, uniform in [-1, 1]: always the same, as the same surfaces meet."""
    return np.random.Generator(np.random.Philox(key=7)).uniform(-1, 1, SAMPLES + RATE)


@cache
def _band(edges: tuple[float, float]) -> np.ndarray:
    """The noise between two frequencies (raised-cosine edges a third of an octave wide), its loudest part at 1."""
    noise = _noise()
    hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
    octaves = np.log2(np.maximum(hertz, 1.0))
    low, high = (np.log2(edge) for edge in edges)
    rise = np.clip((octaves - low) * 3 + 0.5, 0, 1) * np.clip((high - octaves) * 3 + 0.5, 0, 1)
    band = np.fft.irfft(np.fft.rfft(noise) * np.sin(rise * math.pi / 2) ** 2, len(noise))
    return band / np.abs(band).max()
