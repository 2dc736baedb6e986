"""TFRecord framing: each record between its length and two checksums, read at any offset and indexed without its data.

A record is ``uint64 length | uint32 masked crc32c of those 8 bytes | data | uint32 masked crc32c of the data``, all
little-endian, one after another from the first byte of the file (tensorflow/core/lib/io/record_writer.h).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from selfflow_mm.errors import UserError

from ..extras import require

__all__ = ["BadRecord", "ShardIndex", "index_shard", "masked_crc", "read_record", "write_record"]

_HEADER, _FOOTER = 12, 4
_FRAME = _HEADER + _FOOTER
_MASK = 0xA282EAD8


class BadRecord(UserError):
    """A record that is damaged or not what the data set's description says; the message is one clause."""


@dataclass(frozen=True)
class ShardIndex:
    """Where the records of one file lie.

    Attributes:
        offsets: ``(N,)`` int64, of each record's header.
        lengths: ``(N,)`` int64, bytes of each record's data.
        damage: why the file could not be followed to its end, "" where it could. Records after that place are lost,
            because only a record's length tells where the next one starts.
    """

    offsets: np.ndarray
    lengths: np.ndarray
    damage: str = ""

    def __len__(self) -> int:
        return len(self.offsets)


def masked_crc(data: bytes | memoryview) -> int:
    """CRC-32C of ``data``, rotated by 15 bits and shifted by a constant, as TFRecord files store it."""
    crc = require("crc32c", "reading and writing RLDS records").crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def write_record(file: BinaryIO, data: bytes) -> int:
    """Append one record; the bytes that it takes in the file."""
    length = struct.pack("<Q", len(data))
    file.write(length + struct.pack("<I", masked_crc(length)))
    file.write(data)
    file.write(struct.pack("<I", masked_crc(data)))
    return _FRAME + len(data)


def index_shard(file: BinaryIO) -> ShardIndex:
    """Hop over the headers of a file; no data are read, so a shard of any size takes a moment.

    Every header's checksum is verified. The first header that is damaged, or a last record that ends after the file
    does, ends the index and is named in ``damage``.
    """
    size = os.fstat(file.fileno()).st_size
    offsets: list[int] = []
    lengths: list[int] = []
    at, damage = 0, ""
    while at < size and not damage:
        try:
            file.seek(at)
            length = _length(_exactly(file, _HEADER), at, size)
        except BadRecord as error:
            damage = _compressed(file) if at == 0 else ""
            damage = damage or str(error)
            break
        offsets.append(at)
        lengths.append(length)
        at += _FRAME + length
    return ShardIndex(np.array(offsets, np.int64), np.array(lengths, np.int64), damage)


def read_record(file: BinaryIO, offset: int) -> bytes:
    """The data of the record whose header lies at ``offset``; both checksums are verified.

    Raises:
        BadRecord: a checksum fails (which one, at which byte), or the file ends within the record.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(offset)
    length = _length(_exactly(file, _HEADER), offset, size)
    body = _exactly(file, length + _FOOTER)
    if len(body) != length + _FOOTER:
        raise BadRecord(f"the file ends within the record at byte {offset}")
    data = body[:length]
    (stored,) = struct.unpack_from("<I", body, length)
    if masked_crc(data) != stored:
        raise BadRecord(
            f"the checksum of the data fails (bytes {offset + _HEADER} to {offset + _HEADER + length}); "
            "this record is damaged, others of the file may be whole"
        )
    return data


def _exactly(file: BinaryIO, count: int) -> bytes:
    """``count`` bytes, fewer only at the end of the file; an unbuffered file may give them in pieces."""
    data = file.read(count)
    while data and len(data) < count:
        more = file.read(count - len(data))
        if not more:
            break
        data += more
    return data


def _length(header: bytes, at: int, size: int) -> int:
    if len(header) < _HEADER:
        raise BadRecord(f"the file is cut off: it ends at byte {size}, within the header of the record at byte {at}")
    length, stored = struct.unpack("<QI", header)
    if masked_crc(header[:8]) != stored:
        raise BadRecord(
            f"the checksum of the length fails at byte {at}; "
            "where later records start is unknown, so the rest of the file is lost"
        )
    if length > size - at - _FRAME:
        raise BadRecord(f"the file is cut off: it ends at byte {size}, within the record at byte {at}")
    return int(length)


def _compressed(file: BinaryIO) -> str:
    """Whether a file that has no valid first header is a compressed one; the checksum was asked first, because the
    length of a plain record may begin with any two bytes."""
    file.seek(0)
    start = file.read(2)
    if start == b"\x1f\x8b":
        return "the file is compressed with gzip, which is not supported; unpack it first (gunzip)"
    if start in (b"\x78\x01", b"\x78\x9c", b"\x78\xda"):
        return "the file is compressed with zlib, which is not supported; write it again without compression"
    return ""
