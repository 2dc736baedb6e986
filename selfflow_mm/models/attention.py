"""Attention: which tokens see which, as data, and three backends that compute the same.

``sdpa`` is PyTorch's fused attention with a dense mask where one is needed; ``flex`` compiles the pattern into a
block-sparse kernel, which skips what no token sees; ``varlen`` lays samples end to end and needs no mask at all.
With one sample per row and nothing isolated there is no pattern, and all three are plain attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from ..errors import UserError

#: Queries, keys and values ``(B, heads, N, d)`` of one dtype -> ``(B, N, heads * d)``.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pattern:
    """Which tokens see which.

    Attributes:
        sample: ``(B, N)``: tokens see those of their own sample; padding (-1) sees padding, so that no row of the mask
            is empty. None: every row is one sample without padding.
        condition: ``(B, N)`` bool: these tokens see only each other, and the rest sees everything. None: all are
            equal.
    """

    sample: Tensor | None = None
    condition: Tensor | None = None

    @property
    def dense(self) -> bool:
        """Does every token see the whole row?"""
        return self.sample is None and self.condition is None

    def mask(self) -> Tensor:
        """``(B, N, N)`` bool, queries by keys: the definition that the backends must agree with."""
        allowed = None
        if self.sample is not None:
            allowed = self.sample.unsqueeze(2) == self.sample.unsqueeze(1)
        if self.condition is not None:
            isolated = ~self.condition.unsqueeze(2) | self.condition.unsqueeze(1)
            allowed = isolated if allowed is None else allowed & isolated
        assert allowed is not None, "a dense pattern has no mask"
        return allowed


def attention(backend: str | Callable[[Pattern], Attend], pattern: Pattern) -> Attend:
    """The attention of one forward pass, prepared once for all its blocks.

    Args:
        backend: one of ``BACKENDS``, or a function like those, which is asked about dense patterns, too.

    Raises:
        UserError: an unknown backend.
    """
    if not isinstance(backend, str):
        return backend(pattern)
    if backend not in BACKENDS:
        raise UserError(f"there is no attention backend '{backend}'; one of {', '.join(BACKENDS)}")
    return plain if pattern.dense else BACKENDS[backend](pattern)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every query sees every key."""
    return _merge(F.scaled_dot_product_attention(q, k, v))


def _sdpa(pattern: Pattern) -> Attend:
    mask = pattern.mask().unsqueeze(1)
    return lambda q, k, v: _merge(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


def _flex(pattern: Pattern) -> Attend:
    sample, condition = pattern.sample, pattern.condition
    one = sample if sample is not None else condition
    assert one is not None

    def visible(b: Tensor, _: Tensor, q: Tensor, k: Tensor) -> Tensor:
        allowed = q == q
        if sample is not None:
            allowed = sample[b, q] == sample[b, k]
        if condition is not None:
            allowed = allowed & (~condition[b, q] | condition[b, k])
        return allowed

    batch, tokens = one.shape
    blocks = create_block_mask(visible, batch, None, tokens, tokens, device=str(one.device))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.device.type == "cpu" and torch.is_grad_enabled() and q.requires_grad:
            raise UserError("flex attention cannot train on a CPU (PyTorch has no backward pass for it); take sdpa")
        # Alone it must be compiled on an accelerator, or it would write out all scores.
        compiled = q.is_cuda and not torch.compiler.is_compiling()
        out = (_compiled_flex() if compiled else flex_attention)(q, k, v, block_mask=blocks)
        assert isinstance(out, Tensor)
        return _merge(out)

    return attend


@cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention)


def _varlen(pattern: Pattern) -> Attend:
    """Samples end to end, conditions first in each. Finding the borders waits for the accelerator once per pass."""
    runs = _Runs.of(pattern)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, tokens, width = q.shape
        flat = [rearrange(x, "b h n d -> (b n) h d")[runs.order] for x in (q, k, v)]
        out = torch.empty_like(flat[0])
        for who, sees in runs.parts:
            rows, keys = runs.places(who), runs.places(sees)
            out[rows] = _varlen_attention(
                flat[0][rows], flat[1][keys], flat[2][keys], runs.lengths[who], runs.lengths[sees]
            )
        back = torch.empty_like(out)
        back[runs.order] = out
        return rearrange(back, "(b n) h d -> b n (h d)", b=batch, n=tokens)

    return attend


@dataclass(frozen=True)
class _Runs:
    """Tokens of all rows sorted by (row, sample, conditions first).

    Attributes:
        order: ``(B N,)``: place in the flat batch of the i-th sorted token.
        lengths: run lengths by name: ``all``, and ``condition`` and ``rest`` where conditions are isolated.
        parts: (queries, keys) by those names.
        condition: ``(B N,)`` bool in sorted order.
    """

    order: Tensor
    lengths: dict[str, list[int]]
    parts: tuple[tuple[str, str], ...]
    condition: Tensor

    @classmethod
    def of(cls, pattern: Pattern) -> _Runs:
        one = pattern.sample if pattern.sample is not None else pattern.condition
        assert one is not None
        batch, tokens = one.shape
        sample = pattern.sample if pattern.sample is not None else torch.zeros_like(one, dtype=torch.int64)
        row = torch.arange(batch, device=one.device).unsqueeze(1)
        run = (row * (sample.max() + 2) + sample + 1).flatten()
        condition = torch.zeros_like(run, dtype=torch.bool)
        if pattern.condition is not None:
            condition = pattern.condition.flatten()
        order = torch.argsort(2 * run + (~condition).long(), stable=True)
        run, condition = run[order], condition[order]
        _, place, counts = torch.unique_consecutive(run, return_inverse=True, return_counts=True)
        given = torch.zeros_like(counts).index_add_(0, place, condition.long())
        lengths = {"all": counts.tolist(), "condition": given.tolist(), "rest": (counts - given).tolist()}
        isolated = pattern.condition is not None
        parts = (("condition", "condition"), ("rest", "all")) if isolated else (("all", "all"),)
        return cls(order, lengths, parts, condition)

    def places(self, name: str) -> Tensor | slice:
        return slice(None) if name == "all" else self.condition if name == "condition" else ~self.condition


def _varlen_attention(q: Tensor, k: Tensor, v: Tensor, q_lengths: list[int], k_lengths: list[int]) -> Tensor:
    """Runs of queries ``(T, heads, d)`` against the runs of keys of the same place."""
    if q.is_cuda and q.dtype in (torch.float16, torch.bfloat16):
        from torch.nn.attention.varlen import varlen_attn

        kept = [(a, b) for a, b in zip(q_lengths, k_lengths, strict=True) if b]
        starts = [
            torch.tensor([0, *lengths], device=q.device).cumsum(0).to(torch.int32)
            for lengths in zip(*kept, strict=True)
        ]
        out = varlen_attn(q, k, v, starts[0], starts[1], max(a for a, _ in kept), max(b for _, b in kept))
        assert isinstance(out, Tensor)
        return out
    pieces = []
    for one_q, one_k, one_v in zip(q.split(q_lengths), k.split(k_lengths), v.split(k_lengths), strict=True):
        if len(one_q):
            out = F.scaled_dot_product_attention(*(x.transpose(0, 1).unsqueeze(0) for x in (one_q, one_k, one_v)))
            pieces.append(out[0].transpose(0, 1))
    return torch.cat(pieces) if pieces else q


def _merge(x: Tensor) -> Tensor:
    return rearrange(x, "b h n d -> b n (h d)")


BACKENDS: dict[str, Callable[[Pattern], Attend]] = {"sdpa": _sdpa, "flex": _flex, "varlen": _varlen}
