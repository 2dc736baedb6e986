"""Matching against all ways to match, the offset against known shifts, silence against known levels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.evaluation.world import sync
from selfflow_tokenizers.media import Audio

TIMES = st.lists(st.integers(0, 60).map(lambda k: k / 2), max_size=4, unique=True)


@given(TIMES, TIMES)
def test_no_pair_is_used_twice_and_few_are_lost(seen: list[float], heard: list[float]) -> None:
    found = sync.match(seen, heard)
    small, large = sorted((seen, heard), key=len)
    best = max(
        sum(abs(a - b) <= sync.WITHIN for a, b in zip(small, order, strict=True))
        for order in itertools.permutations(large, len(small))
    )
    assert best / 2 <= found <= best  # nearest first finds at least half of the best matching, and no more than it


@pytest.mark.parametrize("shift", [-6, -2, 0, 1, 3, 8])
def test_a_shifted_sound_moves_the_offset_by_the_shift(shift: int) -> None:
    contacts = [5.3, 14.1, 20.8]
    assert sync.offset_of(contacts, [time + shift for time in contacts]) == pytest.approx(shift, abs=0.05)
    assert math.isnan(sync.offset_of(contacts, []))


def test_an_onset_serves_one_contact_and_an_entrance_only_explains() -> None:
    found = sync.compare([10.0, 10.5], [3.0], [3.2, 10.2])
    assert (found.contacts, found.onsets, found.matched, found.explained) == (2, 2, 1, 2)


def test_the_level_before_the_first_contact() -> None:
    wave = torch.zeros(2, 16_000)
    wave[:, 8000:] = 0.5
    wave[:, :4000] = 0.01 * math.sqrt(2) * torch.sin(torch.arange(4000) * 0.3)
    quiet = sync.level_before(Audio(wave, 16_000), 5.0, 16)  # up to frame 4: the first 4,000 samples, at -40 dB
    assert quiet == pytest.approx(-40, abs=0.1)
    assert sync.level_before(Audio(torch.zeros(2, 16_000), 16_000), 8.0, 16) == -120
    assert math.isnan(sync.level_before(Audio(wave, 16_000), 1.2, 16))
    assert math.isnan(sync.level_before(Audio(wave, 16_000), math.nan, 16))


def test_shuffled_rows_keep_the_picture_and_take_the_next_sound() -> None:
    from selfflow_mm.evaluation.world.run import shuffled

    rows = [{"contacts": [5.0 * k], "entrances": [], "onsets": [5.0 * k]} for k in range(1, 5)]
    mixed = shuffled(rows)
    assert [row["matched"] for row in mixed] == [0, 0, 0, 0]
    assert [row["onsets"] for row in mixed] == [[10.0], [15.0], [20.0], [5.0]]
    assert np.all([row["contacts"] == other["contacts"] for row, other in zip(mixed, rows, strict=True)])
