"""The transformers' elementwise steps, keeping for the backward pass only what cannot be computed again cheaply.

Left to itself, autograd keeps a tensor of (tokens x width) for every modulation it looked up, every normed and every
activated value. These functions keep their inputs and the modulation's table, and compute the rest again. A compiler
finds such savings by itself and gets the plain form, and so does a pass without gradient: the same operations, the
same bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .layers import per_token

EPS = 1e-6


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, choice: Tensor | None) -> Tensor:
    """``norm(x) * (1 + scale) + shift`` with the tokens' own shift and scale; all in float32.

    Args:
        x: ``(B, N, D)``.
        shift, scale: ``(B, G, D)`` float32, a row per noise level.
        choice: see :func:`layers.choice_of`.
    """
    if _plain():
        return _modulated_norm(F.layer_norm(x.float(), x.shape[-1:], eps=EPS), shift, scale, choice)
    return _ModulatedNorm.apply(x, shift, scale, choice)


def gated_sum(x: Tensor, gate: Tensor, y: Tensor, choice: Tensor | None) -> Tensor:
    """``x + gate * y`` with the tokens' own gate, in float32: a residual branch joins the stream.

    Args:
        x: ``(B, N, D)`` float32.
        gate: ``(B, G, D)`` float32.
        y: ``(B, N, D)``, of the matrices' dtype.
    """
    if _plain():
        return torch.addcmul(x, per_token(gate, choice), y.float())
    return _GatedSum.apply(x, gate, y, choice)


def swiglu(x: Tensor) -> Tensor:
    """``silu(a) * b`` of the two halves a, b of the last dimension (Shazeer 2020)."""
    if _plain():
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value
    return _SwiGLU.apply(x)


def _plain() -> bool:
    return torch.compiler.is_compiling() or not torch.is_grad_enabled()


def _modulated_norm(normed: Tensor, shift: Tensor, scale: Tensor, choice: Tensor | None) -> Tensor:
    return torch.addcmul(per_token(shift, choice), normed, per_token(1 + scale, choice))


def _to_table(gradient: Tensor, table: Tensor, choice: Tensor | None) -> Tensor:
    """The gradient ``(B, N, D)`` of looked-up rows, summed into the table's ``(B, G, D)``."""
    if choice is None:
        return gradient if gradient.shape == table.shape else gradient.sum(dim=1, keepdim=True)
    if choice.ndim == 2:
        places = choice.unsqueeze(-1).expand_as(gradient)
        return torch.zeros_like(table).scatter_add_(1, places, gradient)
    return choice.transpose(1, 2) @ gradient


class _ModulatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, choice: Tensor | None) -> Tensor:
        normed, mean, rstd = torch.native_layer_norm(x.float(), x.shape[-1:], None, None, EPS)
        ctx.save_for_backward(x, mean, rstd, shift, scale, choice)
        return _modulated_norm(normed, shift, scale, choice)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, mean, rstd, shift, scale, choice = ctx.saved_tensors
        normed = (x.float() - mean) * rstd
        to_shift = _to_table(gradient, shift, choice)
        to_scale = _to_table(normed * gradient, scale, choice)
        # d norm: what is left of the gradient beside its mean and its share along the normed value.
        inner = gradient * per_token(1 + scale, choice)
        along = (inner * normed).mean(dim=-1, keepdim=True)
        to_x = (inner - inner.mean(dim=-1, keepdim=True)).addcmul_(normed, along, value=-1).mul_(rstd)
        return to_x.to(x.dtype), to_shift, to_scale, None


class _GatedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, y: Tensor, choice: Tensor | None) -> Tensor:
        ctx.save_for_backward(gate, y, choice)
        return torch.addcmul(x, per_token(gate, choice), y.float())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        gate, y, choice = ctx.saved_tensors
        to_y = (gradient * per_token(gate, choice)).to(y.dtype)
        return gradient, _to_table(gradient * y.float(), gate, choice), to_y, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gate, value = x.chunk(2, dim=-1)
        out = torch.empty_like(x)
        to_gate, to_value = out.chunk(2, dim=-1)
        sigmoid = torch.sigmoid(gate)
        silu = gate * sigmoid
        torch.mul(gradient, silu, out=to_value)
        # silu' = s (1 + a (1 - s)) = s + silu (1 - s)
        slope = sigmoid.addcmul(silu, 1 - sigmoid)
        torch.mul(gradient * value, slope, out=to_gate)
        return out
