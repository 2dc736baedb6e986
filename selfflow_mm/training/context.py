"""Context parallelism: neighbouring processes share the tokens of each sample, for clips too long for one device.

All layers but attention work on single tokens, so each process runs the model on its part of every stream; in
attention, processes exchange tokens for heads and back (DeepSpeed-Ulysses, Jacobs et al. 2023, arXiv 2309.14509). The
outputs are put together again, so that an objective sees the whole, and computes the same in all of them.

The model is wrapped, not changed: it takes shorter streams and an attention backend of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..models.attention import Attend, Pattern, attention
from ..models.joint import JointTransformer, Output
from ..tokens import NoiseLevels, TokenStream
from .ranks import Ranks


def in_context(model: JointTransformer, ranks: Ranks) -> Any:
    """``model`` as a callable that shares tokens with the neighbours; its attributes are the model's own."""
    return ContextParallel(model, Neighbours.of(ranks))


class Neighbours:
    """The processes that share a sample's tokens: their group, how many, and which of them this is."""

    def __init__(self, group: Any, size: int, index: int) -> None:
        self.group, self.size, self.index = group, size, index

    @classmethod
    def of(cls, ranks: Ranks) -> Neighbours:
        """Every process must ask, and all in the same order."""
        groups = [list(range(first, first + ranks.context)) for first in range(0, ranks.world, ranks.context)]
        own, _ = dist.new_subgroups_by_enumeration(groups)
        return cls(own, ranks.context, ranks.rank % ranks.context)

    def gathered(self, part: Tensor, dim: int) -> Tensor:
        """The parts of all, end to end; without gradient."""
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.contiguous(), group=self.group)
        return torch.cat(parts, dim=dim)

    def part(self, x: Tensor, dim: int) -> Tensor:
        """This process's part of a tensor that all have."""
        return x.chunk(self.size, dim=dim)[self.index]


class ContextParallel:
    """See the module's docstring."""

    def __init__(self, model: JointTransformer, neighbours: Neighbours) -> None:
        self.model, self.neighbours = model, neighbours
        inner = model.attention_backend
        assert isinstance(inner, str), "the model shares its tokens already"
        self._backend = shared_attention(inner, neighbours)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(
        self,
        streams: Mapping[str, TokenStream],
        levels: Mapping[str, NoiseLevels],
        text: TokenStream,
        features_after: tuple[int, ...] = (),
        features_only: bool = False,
        given: Mapping[str, Tensor] | None = None,
    ) -> Output:
        """As the model's own forward pass, with whole streams in and whole outputs out."""
        lengths = {m: s.values.shape[1] for m, s in streams.items()}
        own = {m: self._stream(s) for m, s in streams.items()}
        own_levels = {name: self._levels(lv) for name, lv in levels.items()}
        masks = {m: self._part(mask, False) for m, mask in (given or {}).items()}
        backend, self.model.attention_backend = self.model.attention_backend, self._backend
        try:
            out = self.model(own, own_levels, self._stream(text), features_after, features_only, masks or None)
        finally:  # sampling calls the model itself
            self.model.attention_backend = backend
        velocity = {m: self._whole(v, lengths[m]) for m, v in out.velocity.items()}
        features = {b: {m: self._whole(f, lengths[m]) for m, f in of.items()} for b, of in out.features.items()}
        return Output(velocity, features)

    def _stream(self, stream: TokenStream) -> TokenStream:
        fits = stream.values.shape[1] % self.neighbours.size == 0
        return replace(
            stream,
            values=self._part(stream.values, 0.0),
            positions=self._part(stream.positions, 0.0),
            sample=self._part(stream.sample, -1),
            full=stream.full and fits,
            extents=(),
        )

    def _levels(self, levels: NoiseLevels) -> NoiseLevels:
        if not levels.each:
            return replace(levels, group=self._part(levels.group, 0))
        own = self._part(levels.levels, 0.0)
        return NoiseLevels.each_token(own)

    def _part(self, x: Tensor, fill: float) -> Tensor:
        """This process's tokens ``(B, N / n, ...)`` of ``(B, N, ...)``, filled up so that all have as many."""
        extra = -x.shape[1] % self.neighbours.size
        if extra:
            x = torch.cat([x, x.new_full((x.shape[0], extra, *x.shape[2:]), fill)], dim=1)
        return self.neighbours.part(x, 1)

    def _whole(self, x: Tensor, length: int) -> Tensor:
        found: Tensor = _Gather.apply(x, self.neighbours)
        return found[:, :length]


def shared_attention(backend: str, neighbours: Neighbours) -> Callable[[Pattern], Attend]:
    """A backend for processes that each hold a part of every row: tokens are exchanged for heads, a backend by name
    attends over whole rows with its share of the heads, and heads are exchanged for tokens.
    """

    def prepare(pattern: Pattern) -> Attend:
        sample, condition = (
            None if x is None else neighbours.gathered(x, 1) for x in (pattern.sample, pattern.condition)
        )
        attend = attention(backend, Pattern(sample, condition))

        def shared(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = _to_heads(torch.stack([q, k, v]), neighbours).unbind(0)
            return _to_tokens(attend(q, k, v), neighbours)

        return shared

    return prepare


def _to_heads(x: Tensor, neighbours: Neighbours) -> Tensor:
    """``(3, B, H, N / n, d)`` of this process's tokens -> ``(3, B, H / n, N, d)`` of its heads."""
    three, batch, heads, tokens, width = x.shape
    n = neighbours.size
    by_owner = x.view(three, batch, n, heads // n, tokens, width).permute(2, 0, 1, 3, 4, 5)
    received = _exchange(by_owner, neighbours)  # by whose tokens they are
    return received.permute(1, 2, 3, 0, 4, 5).reshape(three, batch, heads // n, n * tokens, width)


def _to_tokens(x: Tensor, neighbours: Neighbours) -> Tensor:
    """``(B, N, D / n)`` of this process's heads -> ``(B, N / n, D)`` of its tokens."""
    batch, tokens, width = x.shape
    n = neighbours.size
    by_owner = x.view(batch, n, tokens // n, width).permute(1, 0, 2, 3)
    received = _exchange(by_owner, neighbours)  # by whose heads they are
    return received.permute(1, 2, 0, 3).reshape(batch, tokens // n, n * width)


def _exchange(x: Tensor, neighbours: Neighbours) -> Tensor:
    """Part i of ``x`` ``(n, ...)`` goes to process i; what is received lies in the order of the senders."""
    found: Tensor = _Exchange.apply(x.contiguous(), neighbours)
    return found


class _Exchange(torch.autograd.Function):
    """All to all; its gradient goes back the same way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, neighbours: Neighbours) -> Tensor:
        ctx.neighbours = neighbours
        out = torch.empty_like(x)
        dist.all_to_all_single(out, x, group=neighbours.group)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x = gradients[0].contiguous()
        out = torch.empty_like(x)
        dist.all_to_all_single(out, x, group=ctx.neighbours.group)
        return out, None


class _Gather(torch.autograd.Function):
    """Parts ``(B, N / n, ...)`` to the whole.

    All neighbours compute the same from the whole and so have the same gradient of it, of which each takes its part.
    Times n: gradients of weights are averaged over processes afterwards, and the neighbours' parts want to be summed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, neighbours: Neighbours) -> Tensor:
        ctx.neighbours = neighbours
        return neighbours.gathered(x, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.neighbours.size * ctx.neighbours.part(gradients[0], 1), None
