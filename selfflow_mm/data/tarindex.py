"""Finding the samples of a WebDataset tar by its headers, without reading the data."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from selfflow_mm.errors import UserError

_BLOCK = 512  # bytes; headers are one block, data are padded to whole blocks (POSIX.1-1988 ustar)
_PLAIN = (b"0", b"\0", b"5")  # regular files (new and old style) and folders


def index_tar(path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Group a tar's members into samples: key -> ending -> (offset, size) of the data.

    The key is the path up to the first dot of the file name, the ending what follows that dot, in lower case.

    Raises:
        UserError: missing, compressed (no random access), cut off, or not a tar.
    """
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        end = os.path.getsize(path)
        for member, offset, size in _members(path):
            if offset + size > end:
                raise UserError(f"the shard '{path}' is cut off inside '{member}'; copy it again")
            folder, _, name = member.rpartition("/")
            stem, _, ending = name.partition(".")
            if stem and ending:
                groups.setdefault(f"{folder}/{stem}" if folder else stem, {})[ending.lower()] = (offset, size)
    except FileNotFoundError as error:
        raise UserError(f"the shard '{path}' is missing; copy it again") from error
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"'{path}' is not an uncompressed tar file or is damaged ({error})") from error
    return groups


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of every regular file.

    Plain ustar headers are read directly, several times as fast as by ``tarfile``; the first header of another
    kind (PAX, GNU long names, sparse files) hands the whole archive to ``tarfile``.
    """
    with open(path, "rb") as file:
        plain = _plain_members(file)
    if plain is not None:
        yield from plain
        return
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if member.isreg():
                yield member.name, member.offset_data, member.size


def _plain_members(file: BinaryIO) -> list[tuple[str, int, int]] | None:
    members = []
    offset = 0
    while len(header := file.read(_BLOCK)) == _BLOCK and header[0]:
        kind, size_field, sum_field = header[156:157], header[124:136], header[148:156]
        try:
            size = int(size_field.strip(b" \0") or b"0", 8)
            stated = int(sum_field.strip(b" \0"), 8)
            name = header[:100].split(b"\0", 1)[0].decode()
            prefix = header[345:500].split(b"\0", 1)[0].decode() if header[257:263] == b"ustar\0" else ""
        except ValueError:
            return None
        if kind not in _PLAIN or stated != sum(header) - sum(sum_field) + 8 * ord(" "):
            return None
        offset += _BLOCK
        if kind != b"5":
            members.append((f"{prefix}/{name}" if prefix else name, offset, size))
            offset += -(-size // _BLOCK) * _BLOCK
        file.seek(offset)
    return members if members else None
