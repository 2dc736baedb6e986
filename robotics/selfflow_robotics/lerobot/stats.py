"""Statistics as LeRobot v3.0 stores them, per episode and over the data set.

They are what LeRobot's own training reads. (lerobot 0.4.4 squares 8-bit pictures in 8 bits, so that its deviation of
pictures is wrong; ours is right.) A data set's quantiles are means of its episodes' quantiles there, weighted
by steps; ``selfflow-mm robot-data stats`` computes them over all steps instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

__all__ = ["QUANTILES", "PictureStatistics", "aggregate", "array_statistics", "sampled_steps"]

#: Name -> probability.
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
#: Pictures of this size and more are thinned out to about the second number of pixels a side.
_LARGE, _THINNED = 300, 150

Statistics = dict[str, np.ndarray]


def array_statistics(values: np.ndarray) -> Statistics:
    """Of one episode's ``(T, ...)``: each entry of the last axis, over all others.

    Returns:
        ``min``, ``max`` (in the column's own kind of number), ``mean``, ``std``, the quantiles of ``QUANTILES`` (the
        smallest value that so many steps do not exceed), all ``(last axis,)`` or ``(1,)``, and ``count (1,)`` = T.
        NaN is left out unless there is nothing else.
    """
    flat = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
    with warnings.catch_warnings(), np.errstate(invalid="ignore", over="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # columns of nothing but NaN
        wide = flat.astype(np.float64)
        exact = wide if flat.dtype.kind == "f" else flat
        result = {
            "min": np.nanmin(exact, axis=0),
            "max": np.nanmax(exact, axis=0),
            "mean": np.nanmean(wide, axis=0),
            "std": np.nanstd(wide, axis=0),
            "count": np.array([len(values)], np.int64),
        }
        # numpy's nanquantile goes through the columns one by one in Python, which a column of sound has 16,000 of.
        quantile = np.nanquantile if np.isnan(wide).any() else np.quantile
        quantiles = quantile(wide, list(QUANTILES.values()), axis=0, method="inverted_cdf")
    return result | dict(zip(QUANTILES, quantiles, strict=True))


def sampled_steps(length: int) -> np.ndarray:
    """The steps whose pictures LeRobot looks at: ``T ** 0.75`` of them, but at least 100 and at most 10,000, evenly."""
    count = max(min(100, length), min(int(length**0.75), 10_000))
    return np.round(np.linspace(0, length - 1, count)).astype(np.int64)


class PictureStatistics:
    """Of one camera over one episode, from a histogram per channel; values as fractions of white, ``(C, 1, 1)``."""

    def __init__(self, channels: int, dtype: np.dtype | type = np.uint8) -> None:
        self._white = int(np.iinfo(dtype).max)
        self._histogram = np.zeros((channels, self._white + 1), np.int64)
        self._count = 0

    def add(self, frames: np.ndarray) -> None:
        """``(n, H, W, C)``."""
        height, width = frames.shape[1:3]
        if max(height, width) >= _LARGE:
            factor = max(1, (width if width > height else height) // _THINNED)
            frames = frames[:, ::factor, ::factor]
        for channel, histogram in enumerate(self._histogram):
            histogram += np.bincount(frames[..., channel].reshape(-1), minlength=self._white + 1)
        self._count += len(frames)

    def result(self) -> Statistics:
        levels = np.arange(self._white + 1)
        total = self._histogram.sum(axis=1)
        below = np.cumsum(self._histogram, axis=1)
        mean = self._histogram @ levels / total
        square = self._histogram @ levels.astype(np.float64) ** 2 / total
        result = {
            "min": np.argmax(self._histogram > 0, axis=1).astype(np.float64),
            "max": self._white - np.argmax(self._histogram[:, ::-1] > 0, axis=1).astype(np.float64),
            "mean": mean,
            "std": np.sqrt(np.maximum(square - mean**2, 0)),
        }
        for name, probability in QUANTILES.items():
            result[name] = np.argmax(below >= probability * total[:, None], axis=1).astype(np.float64)
        scaled = {name: (values / self._white).reshape(-1, 1, 1) for name, values in result.items()}
        return scaled | {"count": np.array([self._count], np.int64)}


def aggregate(first: Mapping[str, Statistics], second: Mapping[str, Statistics]) -> dict[str, Statistics]:
    """Two stretches' statistics as one, the way LeRobot puts episodes together (parallel mean and variance)."""
    if not first:
        return {name: dict(values) for name, values in second.items()}
    result = {}
    for name, one in first.items():
        other = second[name]
        total = one["count"] + other["count"]
        part = float(other["count"][0] / total[0])
        mean = one["mean"] + (other["mean"] - one["mean"]) * part
        between = (other["mean"] - one["mean"]) ** 2 * part * (1 - part)
        joined = {
            "min": np.minimum(one["min"], other["min"]),
            "max": np.maximum(one["max"], other["max"]),
            "mean": mean,
            "std": np.sqrt(one["std"] ** 2 * (1 - part) + other["std"] ** 2 * part + between),
            "count": total,
        }
        joined |= {name: one[name] * (1 - part) + other[name] * part for name in QUANTILES}
        result[name] = joined
    return result
