"""Protobuf's variable-length integers, one at a time and as whole arrays."""

from __future__ import annotations

import numpy as np

from .framing import BadRecord

__all__ = ["decode_varints", "encode_varint", "encode_varints", "read_varint"]

_LONGEST = 10  # bytes of a 64-bit number at 7 bits each


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """One unsigned number, and the byte after it.

    Raises:
        BadRecord: it does not end before ``end``, or is longer than 64 bits.
    """
    if at < end and data[at] < 0x80:  # most lengths and all tags
        return data[at], at + 1
    value = shift = 0
    for place in range(at, min(end, at + _LONGEST)):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, place + 1
        shift += 7
    raise BadRecord(f"the message is malformed: the number at byte {at} does not end")


def encode_varint(value: int) -> bytes:
    """One unsigned number in its shortest form."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varints(data: bytes, start: int, end: int) -> np.ndarray:
    """All numbers between two bytes as int64 ``(N,)``; negative ones are stored as their 64-bit complement.

    Raises:
        BadRecord: the last one is cut off, or one is longer than ten bytes.
    """
    raw = np.frombuffer(data, np.uint8, end - start, start)
    final = raw < 0x80
    if final.all():
        return raw.astype(np.int64)
    ends = np.flatnonzero(final)
    if not final[-1]:
        raise BadRecord(f"the message is malformed: the last number before byte {end} does not end")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise BadRecord(f"the message is malformed: a number after byte {start} has more than {_LONGEST} bytes")
    shifts = (np.arange(len(raw)) - np.repeat(starts, lengths)).astype(np.uint64) * np.uint64(7)
    parts = (raw & 0x7F).astype(np.uint64) << shifts
    return np.add.reduceat(parts, starts).view(np.int64)


def encode_varints(values: np.ndarray) -> bytes:
    """The inverse of :func:`decode_varints`: int64 ``(N,)``, each number in its shortest form."""
    bits = np.ascontiguousarray(values, np.int64).view(np.uint64)
    if not len(bits) or bits.max() < 0x80:
        return bits.astype(np.uint8).tobytes()
    limits = np.uint64(1) << np.arange(7, 70, 7, dtype=np.uint64)
    lengths = 1 + np.searchsorted(limits, bits, side="right")
    starts = np.cumsum(lengths) - lengths
    out = np.zeros(int(lengths.sum()), np.uint8)
    for place in range(int(lengths.max())):
        has = np.flatnonzero(lengths > place)
        piece = (bits[has] >> np.uint64(7 * place)) & np.uint64(0x7F)
        more = (lengths[has] > place + 1).astype(np.uint8) << 7
        out[starts[has] + place] = piece.astype(np.uint8) | more
    return out.tobytes()
