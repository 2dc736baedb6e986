"""Layers shared by the transformers: normalisation, modulation and its look-up, embeddings."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..tokens import NoiseLevels

#: Up to so many levels a row, a one-hot product looks modulations up; above, it would cost more than it saves.
MANY_LEVELS = 64


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension in float32, with a learned scale (qk-norm)."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.scale.shape, self.scale.float(), self.eps)


class LevelEmbedding(nn.Module):
    """Noise level in [0, 1] -> vector: sinusoids of 1000 t (float32), then a two-layer MLP."""

    def __init__(self, width: int, frequencies: int = 128, bias: bool = True) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.up = nn.Linear(2 * frequencies, width, bias=bias)
        self.down = nn.Linear(width, width, bias=bias)

    def forward(self, t: Tensor) -> Tensor:
        steps = torch.arange(self.frequencies, dtype=torch.float32, device=t.device)
        angles = 1000.0 * t.float().unsqueeze(-1) * torch.exp(-math.log(10_000.0) * steps / self.frequencies)
        return self.down(F.silu(self.up(torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.up.weight.dtype))))


class Modulation(nn.Module):
    """Adaptive layer norm's vectors, computed once per noise level and shared by all blocks of a kind.

    Returns ``(B, G, count, D)``: a table with a row per level, which ``per_token`` looks up. Zero at
    initialisation, so that every residual branch starts closed (adaLN-zero, Peebles & Xie 2023).
    """

    def __init__(self, width: int, count: int, bias: bool = True) -> None:
        super().__init__()
        self.count = count
        self.linear = nn.Linear(width, count * width, bias=bias)
        nn.init.zeros_(self.linear.weight)
        if bias:
            nn.init.zeros_(self.linear.bias)

    def forward(self, embedding: Tensor) -> Tensor:
        return rearrange(self.linear(F.silu(embedding)).float(), "b g (c d) -> b g c d", c=self.count)


def choice_of(levels: NoiseLevels) -> Tensor | None:
    """By what :func:`per_token` looks a modulation table up: one-hot ``(B, N, G)`` for few levels, the index ``(B, N)``
    for many, None where there is nothing to look up (one level for all tokens, or a level for each).
    """
    groups = levels.levels.shape[1]
    if groups == 1 or levels.each:
        return None
    return levels.group if groups > MANY_LEVELS else F.one_hot(levels.group, groups).to(levels.levels.dtype)


def per_token(table: Tensor, choice: Tensor | None) -> Tensor:
    """Rows ``(B, G, D)`` of a modulation table for each token, ``(B, N, D)`` or broadcasting to it.

    A product with a one-hot matrix is an exact look-up whose gradient is another product; gathering would scatter-add
    in the backward pass, several times slower. A compiler fuses a selection into what uses it, but no product.
    """
    if choice is None:
        return table
    if choice.ndim == 2:
        return table.gather(1, choice.unsqueeze(-1).expand(-1, -1, table.shape[2]))
    if torch.compiler.is_compiling() and table.shape[1] <= 8:
        chosen = table[:, :1]
        for g in range(1, table.shape[1]):
            chosen = torch.where(choice[:, :, g : g + 1] > 0, table[:, g : g + 1], chosen)
        return chosen
    with torch.autocast(table.device.type, enabled=False):  # a look-up must not round
        return choice @ table.float()


class QKNorm(nn.Module):
    """RMS norm of queries and keys per head (Dehghani et al. 2023): keeps attention logits bounded."""

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.query = RMSNorm(head_width)
        self.key = RMSNorm(head_width)


def split_heads(qkv: Tensor, heads: int, norm: QKNorm) -> tuple[Tensor, Tensor, Tensor]:
    """``(B, N, 3 D)`` -> queries, keys, values ``(B, heads, N, D / heads)``, the first two normalised (float32)."""
    q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=heads)
    return norm.query(q), norm.key(k), v
