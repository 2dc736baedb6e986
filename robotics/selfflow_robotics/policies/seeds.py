"""Seeds made of other numbers."""

from __future__ import annotations

import zlib

import numpy as np

__all__ = ["derived_seed"]


def derived_seed(purpose: str, *numbers: int) -> int:
    """A seed, 0 <= seed < 2**63, that depends on all of ``numbers`` (each >= 0), their order and what it is for.

    numpy's ``SeedSequence`` hashes them; ``purpose`` comes last, because sequences that differ in zeros at the end
    alone give the same numbers there.
    """
    sequence = np.random.SeedSequence([*numbers, zlib.crc32(purpose.encode()) + 1])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
