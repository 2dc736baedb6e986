"""Moments of latents: whether channels are standard, bell-shaped, alive and smooth along the medium."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: A channel is dead where its deviation is less than this share of the median channel's.
DEAD = 0.01
#: Share of the variance that the directions counted hold.
HELD = 0.8


@dataclass(frozen=True)
class Moments:
    """Per channel, over all tokens seen.

    Attributes:
        tokens: how many.
        mean, deviation: deviation with n in the denominator.
        skewness: third standardised moment; 0 for anything symmetric.
        kurtosis: fourth standardised moment minus 3; 0 for a Gaussian, -1.2 for a uniform distribution.
        neighbour: correlation with the next token of the same sample (in time for sound, along a row in pictures);
            NaN where there were no neighbours.
        dead: channels that hardly vary.
        directions: principal directions of a token that hold 80 % of the variance of all. Few say that something is
            coarse, which noise hides last; 80 % of the channels, that all counts as much and is hidden at once.
    """

    tokens: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    skewness: tuple[float, ...]
    kurtosis: tuple[float, ...]
    neighbour: tuple[float, ...]
    dead: tuple[int, ...]
    directions: int


class MomentsOf:
    """Accumulates moments token batch by token batch, in float64, by the pairwise formulas of Pébay (2008)."""

    def __init__(self) -> None:
        self._n = 0
        self._mean = self._m2 = self._m3 = self._m4 = self._products = torch.zeros(())
        self._pairs: list[tuple[int, Tensor, Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, values: Tensor, positions: Tensor) -> None:
        """One sample: ``values (N, C)`` and ``positions (N, 4)``; neighbours are one column, or one time, apart."""
        x = values.detach().to("cpu", torch.float64)
        n, mean = len(x), x.mean(0)
        away = x - mean
        m2, m3, m4 = (away.pow(k).sum(0) for k in (2, 3, 4))
        products = away.T @ away
        if not self._n:
            self._n, self._mean, self._m2, self._m3, self._m4, self._products = n, mean, m2, m3, m4, products
        else:
            delta = mean - self._mean
            self._products = self._products + products + torch.outer(delta, delta) * self._n * n / (self._n + n)
            self._merge(n, mean, m2, m3, m4)
        self._neighbours(x, positions.cpu())

    def result(self) -> Moments:
        """The moments of everything added.

        Raises:
            ValueError: nothing was added.
        """
        if not self._n:
            raise ValueError("there are no latents to take moments of")
        n, variance = self._n, self._m2 / self._n
        deviation = variance.sqrt()
        safe = variance.clamp_min(1e-300)
        limit = DEAD * float(deviation.median())
        return Moments(
            tokens=n,
            mean=tuple(self._mean.tolist()),
            deviation=tuple(deviation.tolist()),
            skewness=tuple((self._m3 / n / safe**1.5).tolist()),
            kurtosis=tuple((self._m4 / n / safe**2 - 3).tolist()),
            neighbour=self._correlation(),
            dead=tuple(i for i, d in enumerate(deviation.tolist()) if d <= limit),
            directions=self._directions(),
        )

    def _directions(self) -> int:
        energy = torch.linalg.eigvalsh(self._products).flip(0).clamp_min(0)
        # Where nothing varies, one direction holds all there is.
        return 1 + int((energy.cumsum(0) < HELD * energy.sum()).sum())

    def _merge(self, n: int, mean: Tensor, m2: Tensor, m3: Tensor, m4: Tensor) -> None:
        """Pébay 2008, eq. 2.1 with p = 2, 3, 4, for the sets seen so far (a) and new (b)."""
        a, b = self._n, n
        total = a + b
        delta = mean - self._mean
        self._m4 = (
            self._m4 + m4 + delta**4 * a * b * (a * a - a * b + b * b) / total**3
            + 6 * delta**2 * (a * a * m2 + b * b * self._m2) / total**2
            + 4 * delta * (a * m3 - b * self._m3) / total
        )  # fmt: skip
        self._m3 = self._m3 + m3 + delta**3 * a * b * (a - b) / total**2 + 3 * delta * (a * m2 - b * self._m2) / total
        self._m2 = self._m2 + m2 + delta**2 * a * b / total
        self._mean = self._mean + delta * b / total
        self._n = total

    def _neighbours(self, x: Tensor, positions: Tensor) -> None:
        """Sums over pairs of adjacent tokens, for their correlation."""
        step = positions[1:] - positions[:-1]
        row = (step[:, 2] == 1) & (step[:, 1] == 0) & (step[:, 0] == 0)
        time = (step[:, 0] > 0) & (positions[:, 1:3] == 0).all()  # tokens without a place: sound
        adjacent = row | time
        a, b = x[:-1][adjacent], x[1:][adjacent]
        if len(a):
            self._pairs.append((len(a), a.sum(0), b.sum(0), (a * a).sum(0), (b * b).sum(0), (a * b).sum(0)))

    def _correlation(self) -> tuple[float, ...]:
        if not self._pairs:
            return (float("nan"),) * len(self._mean)
        n = sum(pair[0] for pair in self._pairs)
        a, b, aa, bb, ab = (torch.stack([pair[i] for pair in self._pairs]).sum(0) / n for i in range(1, 6))  # type: ignore[misc]
        return tuple(((ab - a * b) / ((aa - a * a) * (bb - b * b)).clamp_min(1e-300).sqrt()).tolist())
