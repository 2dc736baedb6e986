"""Classifier-free guidance (Ho & Salimans 2022), in the velocity."""

from __future__ import annotations

from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """``u + scale (c - u)``: 1 follows the caption as trained, more exaggerates it."""
    return unconditional + scale * (conditional - unconditional)
