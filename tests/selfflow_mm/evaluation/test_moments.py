"""Moments accumulated in parts are those of scipy over everything."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from selfflow_mm.evaluation.moments import MomentsOf


def in_time(count: int) -> torch.Tensor:
    where = torch.zeros(count, 4)
    where[:, 0] = torch.arange(count) * 0.04
    return where


def grid(frames: int, rows: int, columns: int) -> torch.Tensor:
    axes = (torch.arange(float(frames)), torch.arange(float(rows)), torch.arange(float(columns)), torch.zeros(1))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 4)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 1000))
def test_moments_of_parts_are_those_of_the_whole(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(sizes) + 3, 4, generator=generator).exp() + 100  # skewed, far from zero
    moments = MomentsOf()
    for part in x.split([*sizes, 3]):
        moments.add(part, in_time(len(part)))
    found, truth = moments.result(), x.double().numpy()
    assert found.tokens == len(x)
    assert found.mean == pytest.approx(truth.mean(0))
    assert found.deviation == pytest.approx(truth.std(0), rel=1e-6)
    assert found.skewness == pytest.approx(stats.skew(truth), rel=1e-5, abs=1e-6)
    assert found.kurtosis == pytest.approx(stats.kurtosis(truth), rel=1e-5, abs=1e-6)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 1000), st.floats(0, 3))
def test_directions_are_those_of_the_svd(sizes: list[int], seed: int, steep: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    mixture = torch.randn(6, 6, generator=generator) * torch.arange(1, 7).float() ** -steep
    x = torch.randn(sum(sizes) + 9, 6, generator=generator) @ mixture + 5
    moments = MomentsOf()
    for part in x.split([*sizes, 9]):
        moments.add(part, in_time(len(part)))
    singular = np.linalg.svd((x - x.mean(0)).double().numpy(), compute_uv=False)
    shares = np.cumsum(singular**2) / np.sum(singular**2)
    found = moments.result().directions
    assert shares[found - 1] > 0.8 - 1e-6
    assert found == 1 or shares[found - 2] < 0.8 + 1e-6


def test_one_direction_where_nothing_varies() -> None:
    moments = MomentsOf()
    moments.add(torch.ones(5, 3), in_time(5))
    assert moments.result().directions == 1


def test_neighbours_in_time() -> None:
    a, b = torch.randn(200, 3), torch.randn(50, 3)
    moments = MomentsOf()
    for part in (a, b):
        moments.add(part, in_time(len(part)))
    before = np.concatenate([a[:-1], b[:-1]])
    after = np.concatenate([a[1:], b[1:]])  # the pair across the two samples does not count
    expected = [stats.pearsonr(before[:, c], after[:, c]).statistic for c in range(3)]
    assert moments.result().neighbour == pytest.approx(expected, rel=1e-5)


def test_neighbours_in_a_picture_lie_in_a_row() -> None:
    x = torch.randn(3, 4, 5, 2)
    moments = MomentsOf()
    moments.add(x.reshape(-1, 2), grid(3, 4, 5))
    before, after = x[:, :, :-1].reshape(-1, 2).numpy(), x[:, :, 1:].reshape(-1, 2).numpy()
    expected = [stats.pearsonr(before[:, c], after[:, c]).statistic for c in range(2)]
    assert moments.result().neighbour == pytest.approx(expected, rel=1e-5)


def test_dead_channels_and_single_tokens() -> None:
    x = torch.randn(100, 4)
    x[:, 2] = 0.7
    moments = MomentsOf()
    moments.add(x, in_time(100))
    assert moments.result().dead == (2,)
    single = MomentsOf()
    single.add(torch.ones(1, 2), grid(1, 1, 1))
    assert all(math.isnan(v) for v in single.result().neighbour)
    with pytest.raises(ValueError, match="no latents"):
        MomentsOf().result()
