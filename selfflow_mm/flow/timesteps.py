"""Distributions p(t) of the noise level, each as a quantile function of one uniform number, with its density.

A quantile function turns counter-based uniforms into timesteps, so a timestep needs no generator of its own.
t = 0 is data, t = 1 is noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import UserError

#: p(t) as the paper has it for each kind of latents (app. A.2), as fields of :class:`Timesteps`. It does not publish
#: mean and std; 0 and 1 are ours. The 5 % of levels near noise are optional for Wan2.2 video, so they have a row.
PAPER_TIMESTEPS: dict[str, dict[str, Any]] = {
    "image-sd-vae": {"kind": "uniform", "shift": 1.0},
    "image-flux2": {"kind": "logit-normal", "shift": 4.63},
    "video-wan22": {"kind": "logit-normal", "shift": 2.95},
    "video-wan22-low-snr": {"kind": "logit-normal", "shift": 2.95, "low_snr": 0.05},
    "audio-songbloom": {"kind": "logit-normal", "shift": 1.0},
    "rae": {"kind": "plateau-logit-normal", "shift": 10.0},
}


def shift(t: Tensor, a: float) -> Tensor:
    """``s(a, t) = a t / (1 + (a - 1) t)``: a > 1 moves levels towards noise (SD3, eq. 23)."""
    return a * t / (1 + (a - 1) * t)


@dataclass(frozen=True)
class Timesteps:
    """p(t).

    Attributes:
        kind: ``uniform``; ``logit-normal``; ``plateau-logit-normal``, whose density stays constant after its mode.
        shift: the a of :func:`shift`, applied to the draw. 0 takes the tokenizer's ``train_shift``.
        mean, std: of the logit-normal's logit before the shift. The paper does not publish them; 0 and 1 are ours.
        low_snr: share of draws that come from U[``low_snr_from``, 1] instead, unshifted, in [0, 1).
        low_snr_from: where those begin, in [0, 1).
        paper: a row of :data:`PAPER_TIMESTEPS`, which sets all of the above; none of them may say otherwise.
    """

    kind: Literal["uniform", "logit-normal", "plateau-logit-normal"] = "logit-normal"
    shift: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    low_snr: float = 0.0
    low_snr_from: float = 0.95
    paper: str = ""

    def __post_init__(self) -> None:
        if self.paper:
            self._take_paper()
        if self.shift < 0 or not math.isfinite(self.shift):
            raise UserError(f"a timestep shift is positive (or 0 for the tokenizer's), got {self.shift}")
        if not 0 < self.std <= 10 or not abs(self.mean) <= 20:
            raise UserError(
                "a logit-normal needs a positive std of at most 10 and a mean within 20 of 0, "
                f"got std {self.std} and mean {self.mean}"
            )
        if not 0 <= self.low_snr < 1 or not 0 <= self.low_snr_from < 1:
            raise UserError(f"low_snr and low_snr_from lie in [0, 1), got {self.low_snr} and {self.low_snr_from}")

    def _take_paper(self) -> None:
        if self.paper not in PAPER_TIMESTEPS:
            raise UserError(f"paper names '{self.paper}'; the paper's distributions are {', '.join(PAPER_TIMESTEPS)}")
        for name, field in self.__dataclass_fields__.items():
            if name == "paper":
                continue
            stated, published = getattr(self, name), PAPER_TIMESTEPS[self.paper].get(name, field.default)
            if stated not in (field.default, published):
                raise UserError(f"paper: {self.paper} has {name} {published}, so {name} cannot be {stated} beside it")
            object.__setattr__(self, name, published)

    def quantile(self, u: Tensor) -> Tensor:
        """Timesteps of uniform numbers ``u`` in (0, 1); same shape and type.

        It rises with ``u``, except that the share ``low_snr`` at the upper end of the unit interval begins anew, at
        ``low_snr_from``: the mixture, too, is a function of one number.
        """
        if not self.low_snr:
            return self._base_quantile(u)
        share = 1 - self.low_snr
        low = self.low_snr_from + (1 - self.low_snr_from) * ((u - share) / self.low_snr)
        # Where the other branch is taken, u / share may leave the unit interval: a half keeps it finite.
        base = self._base_quantile(torch.where(u < share, u / share, 0.5))
        return torch.where(u < share, base, low)

    def density(self, t: Tensor) -> Tensor:
        """p(t), shift and mixture included; 0 outside (0, 1). Same shape and type as ``t``; computed in float64."""
        inside = (t > 0) & (t < 1)
        x = torch.where(inside, t, 0.5).double()
        density = self._base_density(x)
        if self.low_snr:
            low = (x >= self.low_snr_from) / (1 - self.low_snr_from)
            density = (1 - self.low_snr) * density + self.low_snr * low
        return (density * inside).to(t.dtype)

    @property
    def _logit_mean(self) -> float:
        """A logit-normal shifted by a is the logit-normal with mean + log a."""
        return self.mean + math.log(self.shift or 1.0)

    def _base_quantile(self, u: Tensor) -> Tensor:
        if self.kind == "uniform":
            return shift(u, self.shift or 1.0)
        mean = self._logit_mean
        if self.kind == "logit-normal":
            return torch.sigmoid(mean + self.std * torch.special.ndtri(u))
        mode, height, below, whole = _plateau(mean, self.std)
        mass = u.double() * whole
        rising = torch.sigmoid(mean + self.std * torch.special.ndtri(mass.clamp(max=below)))
        return torch.where(mass < below, rising, mode + (mass - below) / height).to(u.dtype)

    def _base_density(self, t: Tensor) -> Tensor:
        if self.kind == "uniform":
            a = self.shift or 1.0
            return a / (a - (a - 1) * t) ** 2  # dt/du of the shift's inverse
        mean = self._logit_mean
        density = _logit_normal_density(t, mean, self.std)
        if self.kind == "logit-normal":
            return density
        mode, height, _, whole = _plateau(mean, self.std)
        return torch.where(t < mode, density, height) / whole


def _logit_normal_density(t: Tensor, mean: float, std: float) -> Tensor:
    bell = torch.exp(-0.5 * ((torch.logit(t) - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    return bell / (t * (1 - t))


@lru_cache(maxsize=64)
def _plateau(mean: float, std: float) -> tuple[float, float, float, float]:
    """The logit-normal's mode, its density there, its mass below it, and that plus the plateau's.

    In x = logit(t) the log-density is -(x - mean)^2 / (2 std^2) - log t - log(1 - t), stationary where
    x = mean + std^2 tanh(x / 2). Above std^2 = 2 there may be two maxima, one on each side; the higher one counts.
    """

    def slope(x: float) -> float:
        return mean + std**2 * math.tanh(x / 2) - x

    def height(x: float) -> float:
        return bell(x) * (2 + 2 * math.cosh(x))  # 1 / (t (1 - t)) = 2 + 2 cosh x

    def bell(x: float) -> float:
        return math.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))

    lower, upper = mean - std**2, mean + std**2  # slope >= 0 at the lower end and <= 0 at the upper one
    if std**2 <= 2:  # the slope falls everywhere
        brackets = [(lower, upper)]
    else:  # it falls outside of +-turn
        turn = 2 * math.acosh(std / math.sqrt(2))
        brackets = [(lower, -turn), (turn, upper)]
    x = max((_root(slope, a, b) for a, b in brackets if a <= b and slope(a) >= 0 >= slope(b)), key=height)
    below = 0.5 * math.erfc(-(x - mean) / (std * math.sqrt(2)))
    after = bell(x) * (1 + math.exp(-x))  # height (1 - mode), also where the mode rounds to 1
    return 1 / (1 + math.exp(-x)), height(x), below, below + after


def _root(falling: Callable[[float], float], a: float, b: float) -> float:
    """Bisection to the last bit."""
    for _ in range(200):
        middle = (a + b) / 2
        a, b = (middle, b) if falling(middle) > 0 else (a, middle)
    return (a + b) / 2
