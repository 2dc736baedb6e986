"""``tf.train.Example`` messages to and from numpy, without TensorFlow or protobuf.

The message is a map from names to lists: ``Example { Features features = 1 }``, ``Features { map<string, Feature>
feature = 1 }``, ``Feature { oneof { BytesList = 1, FloatList = 2, Int64List = 3 } }``, each list with its values as
field 1 (tensorflow/core/example/feature.proto; the wire format is protobuf's).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .framing import BadRecord
from .varints import decode_varints, encode_varint, encode_varints, read_varint

__all__ = ["Value", "parse_example", "serialise_example"]

Value = np.ndarray | list[bytes] | None
"""Float32 or int64 ``(N,)``, bytes, or None for a feature without any list."""

_BYTES, _FLOATS, _INTS = 1, 2, 3
_LISTS = (_BYTES << 3 | 2, _FLOATS << 3 | 2, _INTS << 3 | 2)


def parse_example(data: bytes) -> dict[str, Value]:
    """The features of a message in the order in which it holds them.

    Arrays are views of ``data`` where that is possible: copy what is kept. Unknown fields are skipped; of a name that
    appears twice the last one counts, as protobuf has it.

    Raises:
        BadRecord: the message is malformed. Lengths are checked before anything is allocated.
    """
    found: dict[str, Value] = {}
    for field, kind, start, end in _fields(data, 0, len(data)):
        if field == 1 and kind == 2:
            for entry, entry_kind, a, b in _fields(data, start, end):
                if entry == 1 and entry_kind == 2:
                    name, value = _entry(data, a, b)
                    found[name] = value
    return found


def serialise_example(features: Mapping[str, Value]) -> bytes:
    """The message that holds ``features`` in their order: lists of numbers packed, lengths in their shortest form.

    Arrays must be float32 or int64; the bytes are those that protobuf writes for the same order of names.
    """
    entries = []
    for name, value in features.items():
        if value is None:
            feature = b""
        elif isinstance(value, list):
            feature = _tagged(_BYTES, b"".join(_tagged(1, item) for item in value))
        else:
            packed = value.astype("<f4", copy=False).tobytes() if value.dtype.kind == "f" else encode_varints(value)
            field = _FLOATS if value.dtype.kind == "f" else _INTS
            feature = _tagged(field, _tagged(1, packed) if packed else b"")
        entries.append(_tagged(1, _tagged(1, name.encode()) + _tagged(2, feature)))
    return _tagged(1, b"".join(entries))


def _tagged(field: int, content: bytes) -> bytes:
    return encode_varint(field << 3 | 2) + encode_varint(len(content)) + content


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Of each field between two bytes: its number, its wire type, and where its content lies."""
    at = start
    while at < end:
        tag, at = read_varint(data, at, end)
        field, kind = tag >> 3, tag & 7
        if kind == 2:
            length, at = read_varint(data, at, end)
        elif kind == 0:
            _, after = read_varint(data, at, end)
            length = after - at
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise BadRecord(f"the message is malformed: wire type {kind} at byte {at}")
        if field == 0 or length > end - at:
            raise BadRecord(f"the message is malformed: a field at byte {at} is longer than what holds it, or unnamed")
        yield field, kind, at, at + length
        at += length


def _filled(data: bytes, start: int, end: int, tag: int) -> int:
    """Where the content of the one field lies that fills these bytes, or -1: how everybody writes most messages, and
    much cheaper to ask first than to go the general way."""
    if start < end and data[start] == tag:
        length, at = read_varint(data, start + 1, end)
        if at + length == end:
            return at
    return -1


def _entry(data: bytes, start: int, end: int) -> tuple[str, Value]:
    name, value = b"", None
    for field, kind, a, b in _fields(data, start, end):
        if field == 1 and kind == 2:
            name = data[a:b]
        elif field == 2 and kind == 2:
            value = _feature(data, a, b)
    try:
        return name.decode(), value
    except UnicodeDecodeError as error:
        raise BadRecord(f"the message is malformed: a feature's name is not UTF-8 ({name[:40]!r})") from error


def _feature(data: bytes, start: int, end: int) -> Value:
    """One list. Protobuf joins a list that comes in several pieces, and of several kinds of list keeps the last."""
    chosen = 0
    pieces: list[tuple[int, int]] = []
    tag = data[start] if start < end else 0
    if tag in _LISTS and (at := _filled(data, start, end, tag)) >= 0:
        chosen, pieces = tag >> 3, [(at, end)]
    else:
        for field, kind, a, b in _fields(data, start, end):
            if field << 3 | kind in _LISTS:
                if field != chosen:
                    chosen, pieces = field, []
                pieces.append((a, b))
    if chosen == _BYTES:
        return [item for a, b in pieces for item in _strings(data, a, b)]
    if not chosen:
        return None
    read = _floats if chosen == _FLOATS else _ints
    lists = [read(data, a, b) for a, b in pieces]
    return lists[0] if len(lists) == 1 else np.concatenate(lists)


def _strings(data: bytes, start: int, end: int) -> list[bytes]:
    items, at = [], start
    while at < end and data[at] == 0x0A:  # the loop of _fields without its generality: pictures come this way
        length, a = read_varint(data, at + 1, end)
        at = a + length
        if at > end:
            raise BadRecord(f"the message is malformed: a string at byte {a} is longer than what holds it")
        items.append(data[a:at])
    return items + [data[a:b] for field, kind, a, b in _fields(data, at, end) if field == 1 and kind == 2]


def _floats(data: bytes, start: int, end: int) -> np.ndarray:
    at = _filled(data, start, end, 0x0A)
    if at >= 0 and (end - at) % 4 == 0:
        return np.frombuffer(data, "<f4", (end - at) // 4, at)
    raw = np.frombuffer(data, np.uint8, end - start, start)
    if len(raw) and len(raw) % 5 == 0 and (raw[::5] == 0x0D).all():  # one tag before each number
        return np.ascontiguousarray(raw.reshape(-1, 5)[:, 1:]).view("<f4")[:, 0]
    lists = []
    for field, kind, a, b in _fields(data, start, end):
        if field == 1 and kind in (2, 5):
            if (b - a) % 4:
                raise BadRecord(f"the message is malformed: {b - a} bytes of packed floats at byte {a}")
            lists.append(np.frombuffer(data, "<f4", (b - a) // 4, a))
    return lists[0] if len(lists) == 1 else np.concatenate([np.zeros(0, np.float32), *lists])


def _ints(data: bytes, start: int, end: int) -> np.ndarray:
    at = _filled(data, start, end, 0x0A)
    if 0 <= at < end:
        return decode_varints(data, at, end)
    if start < end and data[start] == 0x08:
        values = decode_varints(data, start, end)
        if len(values) % 2 == 0 and (values[::2] == 0x08).all():  # one tag before each number
            return values[1::2].copy()
    lists = [
        decode_varints(data, a, b)
        for field, kind, a, b in _fields(data, start, end)
        if field == 1 and kind in (0, 2) and a < b
    ]
    return lists[0] if len(lists) == 1 else np.concatenate([np.zeros(0, np.int64), *lists])
