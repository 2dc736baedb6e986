"""Means of what is logged, from one line to the next."""

from __future__ import annotations

from torch import Tensor


class Meter:
    """Means since the last log line; a modality that was absent from a batch does not count in its mean."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, report: dict[str, Tensor]) -> None:
        for name, value in report.items():
            total = self._sums.setdefault(name, [0.0, 0])
            total[0] += float(value)
            total[1] += 1

    def take(self) -> dict[str, float]:
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means
