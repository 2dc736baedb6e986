"""Statistics against numpy over the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from selfflow_robotics.lerobot.stats import (
    QUANTILES,
    PictureStatistics,
    aggregate,
    array_statistics,
    sampled_steps,
)

FINITE = st.floats(-1e6, 1e6, width=32)


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=FINITE))
def test_arrays(values: np.ndarray) -> None:
    result = array_statistics(values)
    flat = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1).astype(np.float64)
    np.testing.assert_array_equal(result["min"], flat.min(axis=0))
    np.testing.assert_array_equal(result["max"], flat.max(axis=0))
    np.testing.assert_allclose(result["mean"], flat.mean(axis=0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(result["std"], np.sqrt(((flat - flat.mean(axis=0)) ** 2).mean(axis=0)), atol=1e-6)
    assert result["count"].tolist() == [len(values)]
    for name, probability in QUANTILES.items():
        # The smallest value that so many do not exceed.
        share = (flat <= result[name]).mean(axis=0)
        less = (flat < result[name]).mean(axis=0)
        assert (share >= probability - 1e-9).all() and (less < probability + 1e-9).all()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_two_stretches_together(first: int, second: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(first + second, 3)).astype(np.float32)
    one, other = ({"a": array_statistics(part)} for part in (values[:first], values[first:]))
    joined, whole = aggregate(one, other)["a"], array_statistics(values)
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(joined[name], whole[name], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(joined["q50"], (one["a"]["q50"] * first + other["a"]["q50"] * second) / (first + second))


def test_nan_is_left_out() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]], np.float32)
    result = array_statistics(values)
    assert result["mean"][0] == 2 and result["max"][0] == 3 and np.isnan(result["mean"][1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures(dtype: type) -> None:
    white = np.iinfo(dtype).max
    frames = np.random.default_rng(0).integers(3, white - 5, (6, 20, 30, 3)).astype(dtype)
    statistics = PictureStatistics(3, dtype)
    for part in (frames[:2], frames[2:]):
        statistics.add(part)
    result = statistics.result()
    pixels = frames.reshape(-1, 3) / white
    assert result["mean"].shape == (3, 1, 1) and result["count"].tolist() == [6]
    for name, expected in (
        ("min", pixels.min(axis=0)),
        ("max", pixels.max(axis=0)),
        ("mean", pixels.mean(axis=0)),
        ("std", pixels.std(axis=0)),
        *((name, np.quantile(pixels, at, axis=0, method="inverted_cdf")) for name, at in QUANTILES.items()),
    ):
        np.testing.assert_allclose(result[name].reshape(3), expected, atol=1e-9)


def test_large_pictures_are_thinned_out() -> None:
    frames = np.zeros((1, 4, 600, 3), np.uint8)
    frames[:, :, 1::4] = 255  # between the pixels that are looked at: every fourth of every row
    statistics = PictureStatistics(3)
    statistics.add(frames)
    assert statistics.result()["max"].tolist() == [[[0.0]]] * 3


@pytest.mark.parametrize(("length", "count"), [(1, 1), (50, 50), (100, 100), (400, 100), (1000, 177), (10_000, 1000)])
def test_sampled_steps(length: int, count: int) -> None:
    steps = sampled_steps(length)
    assert len(steps) == count and steps[0] == 0 and steps[-1] == length - 1
    assert (np.diff(steps) > 0).all()
