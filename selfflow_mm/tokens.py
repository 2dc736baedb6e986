"""The types everything speaks: token streams and noise levels.

Time runs as in the paper: level 0 is data, level 1 is noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from selfflow_tokenizers.stream import AXES, TokenStream

from .errors import UserError

__all__ = ["AXES", "NoiseLevels", "TokenStream"]


@dataclass(frozen=True)
class NoiseLevels:
    """The timestep of every token of one stream, stored as the few distinct ones and an index.

    Training with dual timesteps has two levels per sample, sampling has one; a modulation per level
    instead of one per token gives the same numbers for a fraction of the work.

    Attributes:
        levels: ``(B, G)`` float32 in [0, 1]; 0 is data, 1 is noise.
        group: ``(B, N)`` int64 in [0, G): the level of each token. Padding points anywhere.
        each: token i has level i (G = N), so that nothing need be looked up. A plain bool beside the tensors,
            because no model may look into them to find out.
    """

    levels: Tensor
    group: Tensor
    each: bool = False

    def __post_init__(self) -> None:
        if self.levels.ndim != 2 or self.group.ndim != 2 or len(self.levels) != len(self.group):
            raise UserError(
                "noise levels are (B, G) with a group index (B, N), got "
                f"{tuple(self.levels.shape)} and {tuple(self.group.shape)}"
            )

    @classmethod
    def uniform(cls, t: Tensor, sample: Tensor) -> NoiseLevels:
        """One level per sample.

        Args:
            t: ``(B,)``, or ``(B, S)`` where a row packs S samples.
            sample: ``(B, N)`` sample ids, as in :class:`TokenStream`.
        """
        levels = _per_sample(t)
        return cls(levels, sample.clamp(min=0))

    @classmethod
    def dual(cls, t: Tensor, s: Tensor, mask: Tensor, sample: Tensor) -> NoiseLevels:
        """Two levels per sample: ``s`` where ``mask`` (``(B, N)`` bool) is set, ``t`` elsewhere (sec. 3.3)."""
        t, s = _per_sample(t), _per_sample(s)
        return cls(torch.cat([t, s], dim=1), sample.clamp(min=0) + t.shape[1] * mask.long())

    @classmethod
    def each_token(cls, t: Tensor) -> NoiseLevels:
        """A level for every token, ``t`` ``(B, N)``: the expanded form, which costs a modulation per token."""
        return cls(t.float(), torch.arange(t.shape[1], device=t.device).expand(t.shape), each=True)

    @classmethod
    def grouped(cls, t: Tensor) -> NoiseLevels:
        """The few distinct levels of each row of ``t`` ``(B, N)``, found by looking: it waits for an accelerator and
        cannot be compiled. Where more than half of the tokens differ, the expanded form.
        """
        ordered, order = t.float().sort(dim=1)
        rank = (ordered.diff(dim=1) != 0).long().cumsum(dim=1)
        rank = torch.cat([rank.new_zeros(len(t), 1), rank], dim=1)
        count = int(rank.max()) + 1
        if 2 * count > t.shape[1] > 2:
            return cls.each_token(t)
        levels = ordered[:, :1].expand(-1, count).scatter(1, rank, ordered)
        return cls(levels, torch.empty_like(rank).scatter_(1, order, rank))

    def given(self, mask: Tensor, level: Tensor | float = 0.0, sample: Tensor | None = None) -> NoiseLevels:
        """These levels, but ``level`` for the tokens in ``mask``: conditions the model is handed.

        Args:
            mask: ``(B, N)`` bool.
            level: a number, ``(B,)``, or ``(B, S)`` where a row packs S samples.
            sample: ``(B, N)`` sample ids; needed for ``(B, S)``.
        """
        column = torch.as_tensor(level, dtype=self.levels.dtype, device=self.levels.device)
        if column.ndim == 2:
            assert sample is not None, "levels of packed samples go by the tokens' sample ids"
            of_sample = sample.clamp(min=0)
            if self.each:
                return NoiseLevels(torch.where(mask, column.gather(1, of_sample), self.levels), self.group, each=True)
            group = torch.where(mask, self.levels.shape[1] + of_sample, self.group)
            return NoiseLevels(torch.cat([self.levels, column], dim=1), group)
        column = column.expand(len(self.levels)).unsqueeze(1)
        if self.each:
            return NoiseLevels(torch.where(mask, column, self.levels), self.group, each=True)
        return NoiseLevels(torch.cat([self.levels, column], dim=1), self.group.masked_fill(mask, self.levels.shape[1]))

    def per_token(self) -> Tensor:
        """Expand to ``(B, N)``, one level per token."""
        return self.levels if self.each else self.levels.gather(1, self.group)

    @classmethod
    def concatenate(cls, parts: list[NoiseLevels]) -> NoiseLevels:
        """The levels of streams laid end to end along N (and G)."""
        offsets = [sum(p.levels.shape[1] for p in parts[:i]) for i in range(len(parts))]
        return cls(
            torch.cat([p.levels for p in parts], dim=1),
            torch.cat([p.group + o for p, o in zip(parts, offsets, strict=True)], dim=1),
            each=all(p.each for p in parts),
        )


def _per_sample(t: Tensor) -> Tensor:
    return (t.unsqueeze(1) if t.ndim == 1 else t).float()
