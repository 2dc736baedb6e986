"""Functions that numba compiles: the renderer's loops over pixels.

numba's cache looks at the file of a function only, so the functions that one compiled function calls stand in its file;
what they share (``rows.py`` and this file) is looked at here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import extras

_numba = extras.require("numba", "drawing the tabletop")


def _forget_older_than_shared() -> None:
    """Take out of the cache beside the source what was compiled before ``rows.py`` or this file was last written."""
    here = Path(__file__).parent
    newest = max((here / name).stat().st_mtime for name in ("rows.py", Path(__file__).name))
    for index in (here / "__pycache__").glob("*.nbi"):
        with contextlib.suppress(OSError):  # another process has done it, or nobody may
            if index.stat().st_mtime < newest:
                index.unlink()


_forget_older_than_shared()


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, from the cache beside the source or in the user's folder where either can be written.

    Results are the same to the bit in every process: one thread, and no operation is reordered (no fastmath).
    """
    try:
        return _numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # neither folder can be written to: every process compiles for itself
        return _numba.njit(error_model="numpy")(function)


def step(function: Callable[..., Any]) -> Callable[..., Any]:
    """What kernels of the same file call, and nobody else."""
    return _numba.njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """What they call for every row or pixel; becomes a part of them."""
    options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return _numba.njit(forceinline=True, **options)(function)


@part
def wide(left, right, width):
    """A range around another, of whole blocks of vectors if the picture is wide enough: what is left over is slow."""
    count = min((right - left + 31) // 32 * 32, width)
    start = min(left, width - count)
    return start, start + count
