"""Whether what is heard is seen: onsets of the sound against contacts in the picture, and silence before them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selfflow_tokenizers.media import Audio

#: Frames by which a sound and its contact may differ.
WITHIN = 1.0
#: What counts as silence, decibels under full scale (root mean square).
SILENT = -45.0


@dataclass(frozen=True)
class Sync:
    """How the onsets of a clip fit its picture.

    Attributes:
        contacts, onsets: how many were seen and heard.
        matched: contacts with an onset of their own within a frame.
        explained: onsets with a contact, or an object that rolls in, of their own within a frame.
        offset: frames by which the sound as a whole comes late, NaN where there is nothing to compare.
    """

    contacts: int
    onsets: int
    matched: int
    explained: int
    offset: float


def compare(contacts: Sequence[float], entrances: Sequence[float], onsets: Sequence[float]) -> Sync:
    """All times in frames."""
    return Sync(
        len(contacts),
        len(onsets),
        match(contacts, onsets),
        match([*contacts, *entrances], onsets),
        offset_of([*contacts, *entrances], onsets),
    )


def match(seen: Sequence[float], heard: Sequence[float], within: float = WITHIN) -> int:
    """How many pairs of a contact and an onset there are, nearest first, each used once."""
    pairs = sorted(
        (abs(a - b), i, j) for i, a in enumerate(seen) for j, b in enumerate(heard) if abs(a - b) <= within + 1e-9
    )
    taken: tuple[set[int], set[int]] = (set(), set())
    for _, i, j in pairs:
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
    return len(taken[0])


def offset_of(seen: Sequence[float], heard: Sequence[float], most: float = 12.0) -> float:
    """The shift in frames at which most onsets fall on contacts: the peak of the pairs' differences, smoothed by a
    Gaussian of half a frame; the nearest to zero of equal peaks, NaN where either is empty."""
    if not len(seen) or not len(heard):
        return math.nan
    differences = (np.asarray(heard)[None] - np.asarray(seen)[:, None]).ravel()
    lags = np.arange(-most, most + 1e-9, 0.05)
    score = np.exp(-0.5 * ((differences[:, None] - lags[None]) / 0.5) ** 2).sum(axis=0)
    if score.max() < 0.5:
        return math.nan
    best = np.flatnonzero(score >= score.max() - 1e-6)
    return float(lags[best[np.argmin(np.abs(lags[best]))]])


def level_before(audio: Audio, first: float, fps: float) -> float:
    """Decibels under full scale (root mean square) of what sounds up to one frame before the first event, at ``first``
    frames; -120 for digital silence, NaN where less than half a frame is left."""
    if not math.isfinite(first) or first - WITHIN < 0.5:
        return math.nan
    end = round((first - WITHIN) / fps * audio.rate)
    power = float(audio.waveform[:, :end].square().mean())
    return 10 * math.log10(max(power, 1e-12))
