"""Counter-based randomness: every number is a pure function of (seed, purpose, step, global sample id).

No generator has a state, so resuming, another number of processes or another split into batches sees
the same noise, timesteps, masks and drops. The generator is Philox4x32-10 (Salmon et al., "Parallel
Random Numbers: As Easy as 1, 2, 3", SC 2011), written in tensor operations so that it runs on any
device; its published test vectors are in the tests.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Hashable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

K = TypeVar("K", bound=Hashable)

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox: four words of 32 bits (in int64 tensors) per counter."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # A product of two 32-bit words may wrap int64; shift and mask still give its true halves.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32 & _MASK) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32 & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = k0 + _WEYL[0] & _MASK, k1 + _WEYL[1] & _MASK
    return c0, c1, c2, c3


class Randomness:
    """Random numbers addressed by what they are for.

    Args:
        seed: the run's seed, 0 <= seed < 2**64.

    Every method takes ``purpose`` (a name: "noise", "t", ...), ``step`` (0 <= step < 2**32) and
    ``samples``, ``(B,)`` int64 global sample ids below 2**32, and returns ``(B, n)`` on the ids' device.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def bits(self, purpose: str, step: int, samples: Tensor, n: int) -> Tensor:
        """``(B, n)`` int64 in [0, 2**32), uniform."""
        blocks = -(-n // 4)
        shape = (len(samples), blocks)
        block = torch.arange(blocks, device=samples.device).expand(shape)
        counter = (
            block,
            torch.full_like(block, step),
            (samples.long() & _MASK).unsqueeze(1).expand(shape),
            torch.full_like(block, zlib.crc32(purpose.encode())),
        )
        words = philox4x32(counter, (self.seed & _MASK, self.seed >> 32 & _MASK))
        return torch.stack(words, dim=-1).flatten(1)[:, :n]

    def uniform(self, purpose: str, step: int, samples: Tensor, n: int = 1) -> Tensor:
        """``(B, n)`` float32 in the open interval (0, 1)."""
        return _open_unit(self.bits(purpose, step, samples, n))

    def normal(self, purpose: str, step: int, samples: Tensor, n: int) -> Tensor:
        """``(B, n)`` float32, standard normal (Box-Muller on pairs of uniforms)."""
        half = -(-n // 2)
        u = _open_unit(self.bits(purpose, step, samples, 2 * half))
        radius, angle = torch.sqrt(-2 * torch.log(u[:, :half])), (2 * math.pi) * u[:, half:]
        return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :n]

    def integer(self, purpose: str, step: int, below: int) -> int:
        """One integer in [0, below), for choices made once per step."""
        return int(self.bits(purpose, step, torch.zeros(1, dtype=torch.int64), 1)) * below >> 32

    def permutation(self, purpose: str, epoch: int, n: int) -> Tensor:
        """A permutation of n items, another one for every epoch."""
        order = self.bits(purpose, epoch, torch.zeros(1, dtype=torch.int64), n)[0]
        return torch.argsort(order, stable=True)


def pick(u: float, shares: Mapping[K, float]) -> K:
    """The name in whose part of the shares ``u`` in (0, 1) falls."""
    edge, whole = 0.0, sum(shares.values())
    for name, share in shares.items():
        edge += share
        if u * whole < edge:
            return name
    return [name for name, share in shares.items() if share > 0][-1]


def _open_unit(bits: Tensor) -> Tensor:
    # 24 bits fill a float32's mantissa; the half step keeps 0 and 1 out, whose logarithm or quantile is infinite.
    return ((bits >> 8).to(torch.float32) + 0.5) * 2.0**-24
