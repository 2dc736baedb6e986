"""Where a video that is made piece by piece is cut."""

from __future__ import annotations

import math

from torch import Tensor


def borders(seconds: Tensor, wanted: Tensor, piece: float) -> list[float]:
    """The times at which pieces end: multiples of ``piece``, those alone that have tokens to make before them.

    Args:
        seconds: ``(B, N)`` times of tokens.
        wanted: ``(B, N)`` bool: tokens to make; the last border lies behind all of them.
        piece: seconds, above 0.
    """
    counts = sorted({math.floor(t / piece) + 1 for t in seconds[wanted].unique().tolist()})
    return [count * piece for count in counts]
