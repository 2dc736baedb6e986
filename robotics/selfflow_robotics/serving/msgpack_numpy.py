"""Messages of policy servers: msgpack, with numpy arrays as maps (openpi's wire format, and vla-eval's).

An array is the map ``{"__ndarray__": True, "data": bytes, "dtype": dtype.str, "shape": [..]}`` in C order, a scalar of
numpy ``{"__npgeneric__": True, "data": value, "dtype": dtype.str}``. In openpi's format those four keys are *bytes*,
in vla-eval's they are strings. Structured, object and complex types do not exist on the wire, so nothing is unpickled.

Reading trusts nothing. A message is refused by its claims before anything of the claimed size is made: msgpack bounds
each container, the hooks bound their sum, and an array must have exactly the bytes that its shape and type need.

Source: Physical-Intelligence/openpi, ``packages/openpi-client/src/openpi_client/msgpack_numpy.py``;
allenai/vla-evaluation-harness, ``docs/rfcs/0002-communication-protocol.md``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np

from selfflow_mm.errors import UserError

__all__ = ["MAX_DEPTH", "MAX_ITEMS", "MAX_RANK", "pack", "unpack"]

#: Containers inside containers, items in all of a message's lists and maps together, axes of an array.
MAX_DEPTH, MAX_ITEMS, MAX_RANK = 16, 20_000, 8
#: Items of one list or map. msgpack makes a list of the claimed length at once, so this bounds what a lie costs.
_MAX_LENGTH = 4096
# Bool, integers, floats, texts and times, as `dtype.str` spells them; numpy's parser sees nothing else.
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f(2|4|8|16)|S[1-9]\d{0,7}|U[1-9]\d{0,6}|[mM]8(\[\d{0,4}[a-zA-Z]{1,2}\])?)")
_REFUSED_KINDS = "VOc"


def pack(message: Any, *, text_keys: bool = False) -> bytes:
    """``message`` (None, bools, numbers, texts, bytes, lists, dictionaries, arrays, numpy scalars) as bytes.

    Args:
        message: what to pack.
        text_keys: write the arrays' own keys as strings (vla-eval) and not as bytes (openpi).

    Raises:
        UserError: it holds something that cannot travel: an object, a complex number, an integer beyond 64 bits.
    """
    try:
        return msgpack.packb(message, default=_packer(text_keys))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"this message cannot be packed: {error}") from error


def unpack(data: bytes, *, text_keys: bool = False) -> Any:
    """The message in ``data``; arrays are views into it and read-only.

    Args:
        data: one whole message.
        text_keys: the arrays' own keys are strings (vla-eval) and not bytes (openpi).

    Raises:
        UserError: not msgpack, cut off, too deep, too many items, or an array whose claims do not fit.
    """
    budget = _Budget()
    markers = _markers(text_keys)

    def on_map(found: dict) -> Any:
        budget.take(len(found))
        if markers["__ndarray__"] in found:
            return _array(found, markers)
        if markers["__npgeneric__"] in found:
            return _scalar(found, markers)
        return found

    def on_list(found: list) -> list:
        budget.take(len(found))
        return found

    try:
        message = msgpack.unpackb(
            data,
            object_hook=on_map,
            list_hook=on_list,
            ext_hook=_no_extensions,
            max_array_len=_MAX_LENGTH,
            max_map_len=_MAX_LENGTH,
        )
    except UserError:
        raise
    except Exception as error:  # msgpack raises many kinds (also bare ValueError, RecursionError, UnicodeDecodeError)
        raise UserError(f"this message is not msgpack: {_brief(error)}") from error
    if _too_deep(message, MAX_DEPTH):
        raise UserError(f"this message nests deeper than {MAX_DEPTH} levels")
    return message


class _Budget:
    """Counts the items of all containers while they are made."""

    def __init__(self) -> None:
        self.left = MAX_ITEMS

    def take(self, items: int) -> None:
        self.left -= 1 + items
        if self.left < 0:
            raise UserError(f"this message has more than {MAX_ITEMS} items; send numbers as arrays")


def _markers(text_keys: bool) -> dict[str, Any]:
    names = ("__ndarray__", "__npgeneric__", "data", "dtype", "shape")
    return {name: name if text_keys else name.encode() for name in names}


def _packer(text_keys: bool) -> Callable[[Any], Any]:
    keys = _markers(text_keys)

    def default(value: Any) -> Any:
        if not isinstance(value, (np.ndarray, np.generic)):
            raise TypeError(f"{type(value).__name__} does not exist in msgpack")
        if value.dtype.kind in _REFUSED_KINDS:
            raise ValueError(f"arrays of {value.dtype} do not travel")
        if isinstance(value, np.ndarray):
            head = {keys["__ndarray__"]: True, keys["data"]: value.tobytes()}
            return head | {keys["dtype"]: value.dtype.str, keys["shape"]: value.shape}
        plain = value.item()
        if isinstance(plain, np.generic):  # a long double has no plain form; without this, packing would not end
            raise ValueError(f"scalars of {value.dtype} do not travel")
        return {keys["__npgeneric__"]: True, keys["data"]: plain, keys["dtype"]: value.dtype.str}

    return default


def _array(found: dict, keys: dict[str, Any]) -> np.ndarray:
    data, shape = found.get(keys["data"]), found.get(keys["shape"])
    dtype = _dtype(found.get(keys["dtype"]))
    if not isinstance(data, bytes):
        raise UserError(f"an array's data are bytes, not {type(data).__name__}")
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(_is_size(size) for size in shape):
        raise UserError(f"an array's shape is a list of at most {MAX_RANK} whole numbers from 0 on")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise UserError(f"an array of shape {tuple(shape)} and type {dtype} does not have {len(data)} bytes")
    return np.ndarray(shape=tuple(shape), dtype=dtype, buffer=data)


def _scalar(found: dict, keys: dict[str, Any]) -> np.generic:
    dtype, value = _dtype(found.get(keys["dtype"])), found.get(keys["data"])
    if not isinstance(value, (bool, int, float, str, bytes)) or isinstance(value, (str, bytes)) != (dtype.kind in "SU"):
        raise UserError(f"a scalar of type {dtype} cannot be {type(value).__name__}")
    try:
        return dtype.type(value)
    except (OverflowError, ValueError, TypeError) as error:
        raise UserError(f"this scalar is not of type {dtype}: {_brief(error)}") from error


def _dtype(name: Any) -> np.dtype:
    if not isinstance(name, str) or len(name) > 16 or not _DTYPE.fullmatch(name):
        shown = repr(name[:40]) if isinstance(name, str) else type(name).__name__
        raise UserError(f"an array's dtype is like '<f4' or '|u1' (bool, integer, float, text or time), not {shown}")
    try:
        return np.dtype(name)
    except TypeError as error:
        raise UserError(f"numpy has no type '{name}' here") from error


def _is_size(size: Any) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**31


def _no_extensions(code: int, data: bytes) -> Any:
    raise UserError(f"messages have no extension types, this one has type {code}")


def _too_deep(value: Any, left: int) -> bool:
    if isinstance(value, dict):
        return left == 0 or any(_too_deep(inner, left - 1) for inner in value.values())
    if isinstance(value, list):
        return left == 0 or any(_too_deep(inner, left - 1) for inner in value)
    return False


def _brief(error: Exception) -> str:
    return f"{type(error).__name__} {error}"[:120].strip()
