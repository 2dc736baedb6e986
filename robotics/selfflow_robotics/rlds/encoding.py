"""From an episode's columns to the flat lists of a record: the inverse of :mod:`selfflow_robotics.rlds.columns`."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image as Pillow

from selfflow_mm.errors import UserError

from ..episode import EncodedPictures, Pictures
from .columns import is_dynamic
from .example import Value
from .features import Leaf
from .floatpictures import FloatPictures

__all__ = ["encode_leaf", "encode_pictures"]

_AT_ONCE = 32  # pictures decoded and encoded again in one go, which bounds memory


def encode_leaf(leaf: Leaf, value: Any, quality: int) -> dict[str, Value]:
    """The entries of a record that hold a column (or a value of the whole episode).

    Raises:
        UserError: shape or type are not the declared ones, or numbers would not survive.
    """
    if not leaf.lists:
        return _values(leaf, leaf.key, [value], quality)
    if len(leaf.lists) == 1:
        return _values(leaf, leaf.key, value, quality)
    entries: dict[str, Value] = {}
    for level, fixed in enumerate(leaf.lists[1:]):
        rows = np.array([len(item) for item in value], np.int64)
        if fixed is not None and (rows != fixed).any():
            raise UserError(f"'{leaf.name}' has lists that are not {fixed} long")
        entries[f"{leaf.key}/ragged_row_lengths_{level}"] = rows
        value = [part for item in value for part in item]
    return entries | _values(leaf, f"{leaf.key}/ragged_flat_values", value, quality)


def encode_pictures(pictures: Pictures, encoding: str, quality: int, dtype: str = "uint8") -> Iterator[bytes]:
    """One JPEG or PNG file a picture; files that are there already keep their bytes. PNG where nothing says which, as
    tensorflow_datasets does."""
    if isinstance(pictures, EncodedPictures | FloatPictures):
        yield from pictures.data
        return
    for start in range(0, len(pictures), _AT_ONCE):
        for frame in pictures.read(range(start, min(start + _AT_ONCE, len(pictures)))):
            yield _picture(frame, encoding, quality, dtype)


def _picture(frame: np.ndarray, encoding: str, quality: int, dtype: str) -> bytes:
    if frame.dtype != dtype or frame.ndim != 3:
        raise UserError(
            f"a picture is {frame.dtype} {frame.shape}, where {dtype} (height, width, channels) is declared"
        )
    if dtype == "float32":
        frame = np.ascontiguousarray(frame, "<f4").view(np.uint8)
    out = io.BytesIO()
    picture = Pillow.fromarray(frame[..., 0] if frame.shape[2] == 1 else np.ascontiguousarray(frame))
    if encoding == "jpeg":
        picture.save(out, "JPEG", quality=quality)
    else:
        picture.save(out, "PNG")
    return out.getvalue()


def _values(leaf: Leaf, key: str, value: Any, quality: int) -> dict[str, Value]:
    """A list of values, one after another."""
    if leaf.kind == "picture":
        return {key: _files(leaf, value, quality)}
    if leaf.kind == "text":
        strings = np.asarray(value, object) if leaf.shape else value
        if leaf.shape and not _fits(strings.shape[1:], leaf.shape):
            raise UserError(f"'{leaf.name}' has shape {strings.shape[1:]}, where {leaf.shape} is declared")
        return {key: [_bytes(leaf, item) for item in (strings.reshape(-1) if leaf.shape else strings)]}
    if leaf.encoding:
        items = [_array(leaf, item) for item in value]
        packed: list[bytes] = [item.astype(item.dtype.newbyteorder("<")).tobytes() for item in items]
        if leaf.encoding == "zlib":
            packed = [zlib.compress(item) for item in packed]
        if not is_dynamic(leaf):
            return {key: packed}
        shapes = np.array([item.shape for item in items], np.int64).reshape(-1)
        return {f"{key}/value": packed, f"{key}/shape": shapes}
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {key: _stored(leaf, _checked(leaf, value, value.shape[1:]).reshape(-1))}
    items = [_array(leaf, item).reshape(-1) for item in value]
    flat = np.concatenate(items) if items else np.zeros(0, leaf.dtype)
    return {key: _stored(leaf, flat)}


def _files(leaf: Leaf, value: Any, quality: int) -> list[bytes]:
    """Of the pictures of a camera, or of a list whose entries are files or single pictures."""
    if not isinstance(value, list | tuple | np.ndarray):
        return list(encode_pictures(value, leaf.encoding, quality, leaf.dtype))
    return [
        item if isinstance(item, bytes) else _picture(np.asarray(item), leaf.encoding, quality, leaf.dtype)
        for item in value
    ]


def _bytes(leaf: Leaf, item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return item
    raise UserError(f"'{leaf.name}' is text, got {type(item).__name__}")


def _array(leaf: Leaf, item: Any) -> np.ndarray:
    if type(item) is float and np.dtype(leaf.dtype).kind == "f":  # Python's own numbers are of no declared type
        item = np.asarray(item, leaf.dtype)
    elif type(item) is int and np.dtype(leaf.dtype).kind in "iu":
        item = _exact(leaf, np.asarray(item), np.dtype(leaf.dtype))
    array = np.asarray(item)
    return _checked(leaf, array, array.shape)


def _checked(leaf: Leaf, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array in the declared type, which must be able to hold it, and of the declared shape."""
    if not _fits(shape, leaf.shape):
        raise UserError(f"'{leaf.name}' has shape {shape}, where {leaf.shape} is declared")
    if not np.can_cast(array.dtype, leaf.dtype):
        raise UserError(f"'{leaf.name}' is {array.dtype}, where {leaf.dtype} is declared; convert it first")
    return array.astype(leaf.dtype, copy=False)


def _fits(shape: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    return len(shape) == len(declared) and all(b in (None, a) for a, b in zip(shape, declared, strict=True))


def _exact(leaf: Leaf, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
    if not np.array_equal(cast.astype(array.dtype), array, equal_nan=array.dtype.kind == "f"):
        raise UserError(f"'{leaf.name}' holds numbers that {dtype} does not hold exactly")
    return cast


def _stored(leaf: Leaf, flat: np.ndarray) -> np.ndarray:
    """As the record's lists have it: int64, or float32."""
    if flat.dtype.kind == "f":
        if flat.dtype.itemsize <= 4:
            return flat.astype(np.float32)
        return _exact(leaf, flat, np.dtype(np.float32))
    return flat.view(np.int64) if flat.dtype == np.uint64 else flat.astype(np.int64)
