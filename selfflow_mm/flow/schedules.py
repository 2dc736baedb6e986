"""Which noise level every token gets: the student's, and the cleaner one that a teacher may see.

Each schedule draws from p(t) alone, so the level distribution of a single token is p(t) in all of them but full
masking; they differ in how the levels of one sample's tokens go together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..randomness import Randomness
from ..tokens import NoiseLevels, TokenStream
from .timesteps import Timesteps


@dataclass(frozen=True)
class Chance:
    """The random numbers of one stream at one training step; every purpose has its own, whoever asks first.

    Attributes:
        random, step, ids: what the numbers are a function of; ids ``(B,)`` are global sample ids.
        modality: streams draw apart from each other,
        shared: or, for timesteps, together: one t and s for all modalities of a sample.
    """

    random: Randomness
    step: int
    ids: Tensor
    modality: str
    shared: bool = False

    def timestep(self, p: Timesteps, name: str) -> Tensor:
        """``(B,)`` draws from p(t)."""
        who = name if self.shared else f"{name}/{self.modality}"
        return p.quantile(self.random.uniform(who, self.step, self.ids)[:, 0])

    def uniform(self, name: str, n: int) -> Tensor:
        """``(B, n)`` in (0, 1)."""
        return self.random.uniform(f"{name}/{self.modality}", self.step, self.ids, n)

    def noise(self, like: Tensor) -> Tensor:
        """x1 ~ N(0, I) for values ``(B, N, C)``."""
        batch, tokens, channels = like.shape
        flat = self.random.normal(f"noise/{self.modality}", self.step, self.ids, tokens * channels)
        return flat.view(batch, tokens, channels)


#: (chance, stream, p(t), mask ratio R, exact count?) -> (levels of the student, the teacher's level ``(B,)``).
Schedule = Callable[[Chance, TokenStream, Timesteps, float, bool], tuple[NoiseLevels, Tensor]]

#: SRA's teacher is cleaner by a step drawn from U(0, this).
SRA_INTERVAL = 0.2


def one_timestep(
    chance: Chance, stream: TokenStream, p: Timesteps, ratio: float, exact: bool
) -> tuple[NoiseLevels, Tensor]:
    """Plain flow matching: one t ~ p(t) for all tokens of a sample (sec. 3.1)."""
    t = chance.timestep(p, "t")
    return NoiseLevels.uniform(t, stream.sample), t


def dual_timesteps(
    chance: Chance, stream: TokenStream, p: Timesteps, ratio: float, exact: bool
) -> tuple[NoiseLevels, Tensor]:
    """Self-Flow's: t, s ~ p(t) i.i.d. and unsorted, s on the mask M, t elsewhere; the teacher at min(t, s) (eq. 4)."""
    t, s = chance.timestep(p, "t"), chance.timestep(p, "s")
    return NoiseLevels.dual(t, s, masked(chance, stream, ratio, exact), stream.sample), torch.minimum(t, s)


def diffusion_forcing(
    chance: Chance, stream: TokenStream, p: Timesteps, ratio: float, exact: bool
) -> tuple[NoiseLevels, Tensor]:
    """A t ~ p(t) for every token (Chen et al. 2024); sec. 3.2's first negative control."""
    t = p.quantile(chance.uniform("t-token", stream.values.shape[1]))
    return NoiseLevels.each_token(t), t.amin(dim=1)


def full_masking(
    chance: Chance, stream: TokenStream, p: Timesteps, ratio: float, exact: bool
) -> tuple[NoiseLevels, Tensor]:
    """Pure noise (t = 1) on the mask M, one t elsewhere; sec. 3.2's second negative control."""
    t = chance.timestep(p, "t")
    return NoiseLevels.dual(t, torch.ones_like(t), masked(chance, stream, ratio, exact), stream.sample), t


def trailing_teacher(
    chance: Chance, stream: TokenStream, p: Timesteps, ratio: float, exact: bool
) -> tuple[NoiseLevels, Tensor]:
    """One t for all tokens, the teacher at max(0, t - U(0, 0.2)): SRA's (Jiang et al. 2025, sec. 3.2)."""
    t = chance.timestep(p, "t")
    behind = SRA_INTERVAL * chance.random.uniform("interval", chance.step, chance.ids)[:, 0]
    return NoiseLevels.uniform(t, stream.sample), (t - behind).clamp(min=0)


def masked(chance: Chance, stream: TokenStream, ratio: float, exact: bool) -> Tensor:
    """M ``(B, N)`` bool: {i : u_i < R} (sec. 3.3), or the round(R n) tokens with the smallest u_i of a row's n.

    Padding is in no exact count.
    """
    u = chance.uniform("mask", stream.values.shape[1])
    if not exact:
        return u < ratio
    rank = u.masked_fill(~stream.valid, torch.inf).argsort(dim=1).argsort(dim=1)
    return rank < (ratio * stream.valid.sum(dim=1, keepdim=True)).round()
