"""From the flat lists of a record to an episode's columns: shapes, types, lists of lists, strings and pictures.

What is stored how follows tensorflow_datasets (core/example_parser.py, features/tensor_feature.py): integers and
bools as int64, all floats as float32, strings and pictures as bytes; lists within lists as ``key/ragged_flat_values``
and ``key/ragged_row_lengths_0`` and so on; tensors with an encoding as one string of bytes each, and with more than
one open size as ``key/value`` and ``key/shape``.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..episode import EncodedPictures, Pictures
from .example import Value
from .features import Leaf
from .floatpictures import FloatPictures
from .framing import BadRecord

__all__ = ["decode_metadata", "decode_step", "episode_length", "step_key"]

_LARGEST = 2**30  # bytes of one encoded tensor: what a record of a few kilobytes may unpack to


def is_dynamic(leaf: Leaf) -> bool:
    """Whether each value is stored with its shape."""
    return bool(leaf.encoding) and leaf.kind == "array" and leaf.shape.count(None) > 1


def step_key(leaf: Leaf) -> str:
    """The name in the record that tells how many outermost entries there are."""
    if len(leaf.lists) > 1:
        return f"{leaf.key}/ragged_row_lengths_0"
    return f"{leaf.key}/value" if is_dynamic(leaf) else leaf.key


def episode_length(leaves: Sequence[Leaf], record: Mapping[str, Value]) -> int:
    """T, from the first feature that is there and tells it; 0 where none does."""
    for leaf in leaves:
        value = record.get(step_key(leaf))
        if value is None or not leaf.per_step or leaf.kind == "unknown":
            continue
        size = 1 if len(leaf.lists) > 1 else _stored_size(leaf)
        if size:
            return len(value) // size
    return 0


def decode_step(leaf: Leaf, record: Mapping[str, Value], length: int) -> np.ndarray | list[str | bytes] | Pictures:
    """A column of ``length`` steps: an array ``(T, ...)`` (of objects where steps differ in shape), T strings, or T
    pictures that stay encoded.

    Raises:
        BadRecord: it is missing, of another type, or its values are not those of ``length`` steps.
    """
    if record.get(step_key(leaf)) is None and length:
        if not leaf.optional:
            raise BadRecord(f"it has no '{leaf.key}'")
        return _missing(leaf, length)
    if len(leaf.lists) > 1:
        return _ragged(leaf, record, length)
    values = _flat(leaf, record, leaf.key, length)
    if leaf.kind == "picture":
        return pictures_of(leaf, values)
    if leaf.kind == "text" and not leaf.shape:
        return [_text(value) for value in values]
    return values


def decode_metadata(leaf: Leaf, record: Mapping[str, Value]) -> Any:
    """A value of the whole episode: bool, number, str, bytes (a picture's file), or an array.

    Raises:
        BadRecord: it is missing or not what the description says.
    """
    if leaf.lists:
        count = episode_length([replace(leaf, per_step=True)], record)
        value = decode_step(leaf, record, count)
        if isinstance(value, EncodedPictures | FloatPictures):
            return list(value.data)
        return _objects(value) if isinstance(value, list) else value
    if record.get(step_key(leaf)) is None:
        if not leaf.optional:
            raise BadRecord(f"it has no '{leaf.key}'")
        return _single(leaf, _missing(leaf, 1))
    return _single(leaf, _flat(leaf, record, leaf.key, 1))


def pictures_of(leaf: Leaf, files: Sequence[bytes]) -> Pictures:
    """The files of one camera, to be decoded later; float pictures are bit patterns in the four channels of a PNG."""
    height, width, channels = ((None, None, 3) + leaf.shape)[-3:]
    size = (height, width) if height and width else None
    if leaf.dtype == "float32":
        return FloatPictures(files, size)
    return EncodedPictures(files, channels if channels in (1, 3, 4) else 3, size)


def _single(leaf: Leaf, values: Any) -> Any:
    value = values[0]
    if leaf.kind == "text" and not leaf.shape:
        return _text(value) if isinstance(value, bytes) else value
    if leaf.kind == "array" and not leaf.shape:
        return bool(value) if leaf.dtype == "bool" else value
    return value


def _stored_size(leaf: Leaf) -> int:
    """Entries in the record for one value; 0 where the description leaves it open."""
    if leaf.kind == "picture" or leaf.encoding:
        return 1
    return 0 if None in leaf.shape else math.prod(size or 0 for size in leaf.shape)


def _flat(leaf: Leaf, record: Mapping[str, Value], key: str, count: int) -> Any:
    """``count`` values: an array ``(count, *shape)``, or a list of bytes where each value is one string."""
    stored = record.get(f"{key}/value" if is_dynamic(leaf) else key)
    strings = leaf.kind in ("text", "picture") or bool(leaf.encoding)
    if stored is None:
        stored = [] if strings else np.zeros(0, np.float32 if np.dtype(leaf.dtype).kind == "f" else np.int64)
    if strings:
        if not isinstance(stored, list):
            raise BadRecord(f"'{key}' holds numbers where the description says {_said(leaf)}")
        if leaf.kind == "text" and leaf.shape:
            values = _objects([_text(item) for item in stored])
            return values.reshape(_full_shape(leaf, key, len(values), count))
        if len(stored) != count:
            raise BadRecord(f"'{key}' has {len(stored)} values where others have {count}")
        return _encoded(leaf, record, key, stored) if leaf.kind == "array" else stored
    dtype = np.dtype(leaf.dtype)
    if isinstance(stored, list) or (stored.dtype.kind == "f") != (dtype.kind == "f"):
        kind = "strings" if isinstance(stored, list) else "floats" if stored.dtype.kind == "f" else "integers"
        raise BadRecord(f"'{key}' holds {kind} where the description says {_said(leaf)}")
    return _cast(stored, dtype, key).reshape(_full_shape(leaf, key, len(stored), count))


def _said(leaf: Leaf) -> str:
    return "pictures" if leaf.kind == "picture" else "strings" if leaf.kind == "text" else leaf.dtype


def _full_shape(leaf: Leaf, key: str, found: int, count: int) -> tuple[int, ...]:
    known = math.prod(size for size in leaf.shape if size is not None)
    open_sizes = leaf.shape.count(None)
    rest = found // (known * count) if open_sizes and known * count else 0
    shape = (count, *(rest if size is None else size for size in leaf.shape))
    if open_sizes > 1 or math.prod(shape) != found:
        raise BadRecord(f"'{key}' has {found} values, which are not {count} times {_pretty(leaf.shape)}")
    return shape


def _pretty(shape: Sequence[int | None]) -> str:
    return " x ".join("?" if size is None else str(size) for size in shape) or "one"


def _cast(stored: np.ndarray, dtype: np.dtype, key: str) -> np.ndarray:
    """A copy in the declared type, free of the record; integers that do not fit are refused, where TFDS wraps them."""
    if dtype.kind == "b":
        return stored != 0
    if dtype == np.uint64:  # stored as the same bits
        return stored.astype(np.int64).view(np.uint64)
    if dtype.kind in "iu" and len(stored):
        limits = np.iinfo(dtype)
        if stored.min() < limits.min or stored.max() > limits.max:
            raise BadRecord(f"'{key}' holds numbers that {dtype} cannot")
    with np.errstate(over="ignore"):
        return stored.astype(dtype)


def _encoded(leaf: Leaf, record: Mapping[str, Value], key: str, stored: Sequence[bytes]) -> np.ndarray:
    """Tensors that are stored as the string of their bytes, perhaps deflated."""
    if is_dynamic(leaf):
        rows = record.get(f"{key}/shape")
        rank = len(leaf.shape)
        if not isinstance(rows, np.ndarray) or rows.dtype.kind != "i" or len(rows) != rank * len(stored):
            raise BadRecord(f"'{key}/shape' does not give the shapes of {len(stored)} values")
        shapes = [tuple(int(size) for size in row) for row in rows.reshape(len(stored), rank)]
        items = [_tensor(leaf, key, item, shape) for item, shape in zip(stored, shapes, strict=True)]
        return _objects(items)
    items = [_tensor(leaf, key, item, leaf.shape) for item in stored]
    if None in leaf.shape:
        return _objects(items)
    return np.stack(items) if items else np.zeros((0, *(size or 0 for size in leaf.shape)), leaf.dtype)


def _tensor(leaf: Leaf, key: str, item: bytes, shape: tuple[int | None, ...]) -> np.ndarray:
    dtype = np.dtype(leaf.dtype).newbyteorder("<")
    row = math.prod(size for size in shape if size is not None) * dtype.itemsize
    if row > _LARGEST or any(size is not None and size < 0 for size in shape):
        raise BadRecord(f"'{key}' claims a shape of {_pretty(shape)}")
    if leaf.encoding == "zlib":
        try:
            item = zlib.decompressobj().decompress(item, _LARGEST if None in shape else row + 1)
        except zlib.error as error:
            raise BadRecord(f"'{key}' is not zlib data ({error})") from error
    rows, rest = divmod(len(item), row) if row else (0, len(item))
    if rest or (None not in shape and rows != (1 if row else 0)):
        raise BadRecord(f"'{key}' has {len(item)} bytes, which are not {_pretty(shape)} of {leaf.dtype}")
    raw = np.frombuffer(item, np.uint8 if dtype.kind == "b" else dtype)
    values = raw != 0 if dtype.kind == "b" else raw.astype(leaf.dtype)
    return values.reshape([rows if size is None else size for size in shape])


def _ragged(leaf: Leaf, record: Mapping[str, Value], length: int) -> np.ndarray:
    """Lists within the steps: dense where the description fixes their lengths, else T objects."""
    depth = len(leaf.lists) - 1
    levels = [_row_lengths(leaf, record, level) for level in range(depth)]
    counts = [length, *(int(rows.sum()) for rows in levels)]
    for level, rows in enumerate(levels):
        if len(rows) != counts[level]:
            raise BadRecord(f"'{leaf.key}' has {len(rows)} lists at level {level} where {counts[level]} are announced")
        fixed = leaf.lists[level + 1]
        if fixed is not None and (rows != fixed).any():
            raise BadRecord(f"'{leaf.key}' has lists that are not {fixed} long")
    values = _flat(leaf, record, f"{leaf.key}/ragged_flat_values", counts[-1])
    if not isinstance(values, np.ndarray):
        values = _objects([_text(item) for item in values] if leaf.kind == "text" else list(values))
    fixed_sizes = leaf.lists[1:]
    if None not in fixed_sizes:
        return values.reshape((length, *(size or 0 for size in fixed_sizes), *values.shape[1:]))
    groups: Any = values
    for rows in reversed(levels):
        ends = np.cumsum(rows)
        groups = _objects([groups[end - size : end] for end, size in zip(ends, rows, strict=True)])
    return groups


def _row_lengths(leaf: Leaf, record: Mapping[str, Value], level: int) -> np.ndarray:
    key = f"{leaf.key}/ragged_row_lengths_{level}"
    rows = record.get(key)
    rows = np.zeros(0, np.int64) if rows is None else rows
    if isinstance(rows, list) or rows.dtype.kind != "i" or (rows < 0).any() or (rows > _LARGEST).any():
        raise BadRecord(f"'{key}' does not hold lengths of lists")
    return rows


def _missing(leaf: Leaf, length: int) -> Any:
    """What TFDS puts in place of a missing optional value: the least number of its type, False, or ""."""
    if leaf.kind == "text":
        return [""] * length if not leaf.shape else np.full((length, *leaf.shape), "", object)
    dtype = np.dtype(leaf.dtype)
    least = False if dtype.kind == "b" else np.finfo(dtype).min if dtype.kind == "f" else np.iinfo(dtype).min
    return np.full((length, *(size or 0 for size in leaf.shape)), least, dtype)


def _objects(items: Sequence[Any]) -> np.ndarray:
    """An array of objects that stay what they are, where numpy would join equally long ones."""
    out = np.empty(len(items), object)
    for place, item in enumerate(items):
        out[place] = item
    return out


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
