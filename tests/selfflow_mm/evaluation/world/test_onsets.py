"""Onsets against sounds put together at known times."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selfflow_mm.data.world.materials import MATERIALS
from selfflow_mm.data.world.sound import ring
from selfflow_mm.evaluation.world.onsets import find_onsets
from selfflow_tokenizers.media import Audio

RATE = 16_000


def strike(times: list[float], material: str, gain: float = 0.5) -> np.ndarray:
    wave = np.zeros(2 * RATE)
    for time in times:
        tone = gain * ring(MATERIALS[material], 1.0, 0.6)
        start = round(time * RATE)
        wave[start : start + len(tone)] += tone[: len(wave) - start]
    return wave


def heard(wave: np.ndarray) -> list[float]:
    return find_onsets(Audio(torch.from_numpy(np.stack([wave, wave])).float(), RATE))


@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_blows_are_found_to_ten_milliseconds(material: str, noise: float) -> None:
    times = [0.31, 0.72, 1.213]
    wave = strike(times, material) + noise * np.random.default_rng(0).normal(size=2 * RATE)
    assert heard(wave) == pytest.approx(times, abs=0.01)


def test_silence_noise_and_a_steady_tone_have_no_onsets_but_their_beginning() -> None:
    assert heard(np.zeros(RATE)) == []
    assert heard(0.1 * np.random.default_rng(1).normal(size=RATE)) == []
    tone = 0.3 * np.sin(np.arange(RATE) * 0.4)
    tone[: RATE // 2] = 0
    assert heard(tone) == pytest.approx([0.5], abs=0.01)
