"""Depth pictures of float32, which tensorflow_datasets stores as the bit patterns of a four-channel PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..episode import EncodedPictures

__all__ = ["FloatPictures"]


@dataclass(frozen=True)
class FloatPictures:
    """``read`` gives ``(n, H, W, 1)`` float32 in the data set's own unit; a step without a picture is 0 everywhere."""

    data: Sequence[bytes]
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.data)

    def read(self, steps: Sequence[int] | None = None) -> np.ndarray:
        bits = np.ascontiguousarray(EncodedPictures(self.data, 4, self.size).read(steps))
        return bits.view("<f4").astype(np.float32, copy=False)
