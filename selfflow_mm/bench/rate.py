"""The rate at which this machine multiplies matrices: what model FLOPs are held against."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch

from .timing import once

#: Edges of the square matrices tried; the best rate counts.
SIZES = {"cpu": (1024, 2048), "cuda": (8192, 16384)}
ROUNDS = 5


@dataclass(frozen=True)
class Rate:
    """Floating-point operations per second (a multiply-add is two) of an ``edge`` x ``edge`` product."""

    flops: float
    edge: int
    dtype: str


def product_flops(edge: int) -> int:
    """Operations of a product of two square matrices."""
    return 2 * edge**3


def matrix_rate(device: torch.device, dtype: torch.dtype, sizes: tuple[int, ...] = ()) -> Rate:
    """The best rate over ``sizes`` (the device's own unless given), each the median of a few products.

    Matrices are random: a product of zeros draws less power and runs faster than real work does.
    """
    best: Rate | None = None
    for edge in sizes or SIZES.get(device.type, SIZES["cpu"]):
        a, b = (torch.randn(edge, edge, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)

        def multiply(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = out) -> None:
            torch.mm(a, b, out=out)

        once(multiply, device)
        seconds = statistics.median(once(multiply, device, 0.1) for _ in range(ROUNDS))
        rate = Rate(product_flops(edge) / seconds, edge, str(dtype).removeprefix("torch."))
        best = rate if best is None or rate.flops > best.flops else best
    assert best is not None
    return best


def better(one: Rate, other: Rate) -> Rate:
    """The faster of two measurements: a share of the machine's limit must not profit from a slow moment."""
    return one if one.flops >= other.flops else other
