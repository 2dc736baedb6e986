"""Buckets of ``prepare``: the sizes and lengths that samples are cut to, where one would waste or distort too much."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Pixels: 8 x 8 autoencoder, 2 x 2 patches.
STEP = 16
#: How much longer than the other a side of :func:`aspect_buckets` may be.
LONGEST = 2.0


def aspect_buckets(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Sizes (height, width) of other aspect ratios and at most as many pixels, up to 2:1 both ways.

    Sides are multiples of 16: for each height the widest that fits, and the same on its side. ``height`` x ``width`` is
    one of them.
    """
    area = height * width
    found = {(height, width)}
    for side in range(STEP, math.isqrt(area * round(LONGEST)) + 1, STEP):
        other = area // side // STEP * STEP
        if other and max(side / other, other / side) <= LONGEST:
            found |= {(side, other), (other, side)}
    return tuple(sorted(found))


def nearest_bucket(buckets: Sequence[tuple[int, int]], height: float, width: float) -> tuple[int, int]:
    """The (height, width) of ``buckets`` nearest in aspect ratio, twice as wide being as far as twice as high."""
    return min(buckets, key=lambda bucket: abs(math.log(bucket[0] / bucket[1]) - math.log(height / width)))
