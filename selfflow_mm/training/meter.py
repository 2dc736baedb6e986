"""Means of what is logged, from one line to the next."""

from __future__ import annotations

from torch import Tensor


class Meter:
    """Means since the last log line; a modality that was absent from a batch does not count in its mean.

    Attributes:
        skipped: bad steps since the last line, which are in no mean.
    """

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}
        self.skipped = 0

    def add(self, report: dict[str, Tensor]) -> None:
        for name, value in report.items():
            total = self._sums.setdefault(name, [0.0, 0])
            total[0] += float(value)
            total[1] += 1

    def skip(self) -> None:
        """A step was bad."""
        self.skipped += 1

    def means(self) -> dict[str, float]:
        """As they stand."""
        return {name: total / count for name, (total, count) in self._sums.items()}

    def take(self) -> dict[str, float]:
        """The means, and a new start; ``skipped`` is among them where there were some."""
        means = self.means()
        if self.skipped:
            means["skipped"] = self.skipped
        self._sums, self.skipped = {}, 0
        return means
