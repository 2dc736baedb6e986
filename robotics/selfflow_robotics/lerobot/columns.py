"""Columns between numpy and Arrow, every bit kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..extras import require

__all__ = ["PURPOSE", "from_arrow", "to_arrow"]

PURPOSE = "reading and writing LeRobot data"


def to_arrow(values: np.ndarray, shape: Sequence[int], fixed: bool = True) -> Any:
    """``(T, *shape)`` -> an Arrow array of T entries, laid out as LeRobot does.

    Scalars and shape (1,) are plain columns, (n,) lists of fixed size, more axes lists of lists (the storage of Hugging
    Face's Array2D and so on). ``fixed=False`` gives lists for every axis, for sizes that differ between episodes.
    """
    pa = require("pyarrow", PURPOSE)
    flat = np.ascontiguousarray(values).reshape(-1)
    array = pa.array(flat, type=pa.from_numpy_dtype(flat.dtype))
    shape = tuple(shape)
    if shape == () or (fixed and shape == (1,)):
        return array
    if fixed and len(shape) == 1:
        return pa.FixedSizeListArray.from_arrays(array, shape[0])
    for axis in range(len(shape) - 1, -1, -1):
        lists = math.prod((len(values), *shape[:axis]))
        array = pa.ListArray.from_arrays(np.arange(lists + 1, dtype=np.int32) * shape[axis], array)
    return array


def from_arrow(column: Any, shape: Sequence[int | None], dtype: str) -> np.ndarray:
    """A column of a table -> ``(T, *shape)`` of ``dtype``, in memory of its own.

    Raises:
        ValueError: the stored values have another shape, a type that does not fit, or holes.
    """
    pa = require("pyarrow", PURPOSE)
    pc = require("pyarrow.compute", PURPOSE)
    array = column.combine_chunks()
    length, sizes = len(array), []
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if not (
            pa.types.is_list(array.type)
            or pa.types.is_large_list(array.type)
            or pa.types.is_fixed_size_list(array.type)
        ):
            break
        if array.null_count:
            raise ValueError("steps without a value")
        counts = pc.unique(pc.list_value_length(array)).to_pylist()
        if len(counts) > 1:
            raise ValueError("entries of different sizes")
        sizes.append(counts[0] if counts else 0)
        array = array.flatten()
    target = np.dtype(dtype)
    if array.null_count and target.kind != "f":  # a missing float reads as NaN, as pandas has it
        raise ValueError("steps without a value")
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype != target:
        if values.dtype == object or not np.can_cast(values.dtype, target, "same_kind"):
            raise ValueError(f"{values.dtype} where {target} is stated")
        values = values.astype(target)
    shape = tuple(shape)
    stored = tuple(sizes)
    plain = tuple(size for size in stored if size != 1) == tuple(size for size in shape if size != 1)
    if stored != shape and not (len(shape) <= 1 and len(stored) <= 1 and plain) and not _fits(stored, shape):
        raise ValueError(f"shape {list(stored)} where {list(shape)} is stated")
    final = stored if _fits(stored, shape) else shape
    return np.array(values.reshape(length, *final))  # a copy: a view would keep the whole row group in memory


def _fits(stored: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(stored) == len(shape) and all(want in (None, have) for have, want in zip(stored, shape, strict=True))
