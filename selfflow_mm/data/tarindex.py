"""Finding the samples of a WebDataset tar by its headers, without reading the data."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import IO, Any

from selfflow_mm.data.shard_index import ShardIndex
from selfflow_mm.data.stores import AnyPath, BlockReader, StorePath, cache_folder, digest
from selfflow_mm.errors import UserError

_BLOCK = 512  # bytes; headers are one block, data are padded to whole blocks (POSIX.1-1988 ustar)
_PLAIN = (b"0", b"\0", b"5")  # regular files (new and old style) and folders
_PAX, _LONG_NAME = b"x", b"L"  # what may stand before a member: POSIX.1-2001 records, and GNU's long name
_RECORDS = 1 << 16  # bytes; longer ones than any name's are left to tarfile


def index_tar(path: AnyPath) -> dict[str, dict[str, tuple[int, int]]]:
    """Group a tar's members into samples: key -> ending -> (offset, size) of the data.

    The key is the path up to the first dot of the file name, the ending what follows that dot, in lower case.

    Raises:
        UserError: missing, compressed (no random access), cut off, or not a tar.
    """
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        end = path.size() if isinstance(path, StorePath) else path.stat().st_size
        for member, offset, size in _members(path):
            if offset + size > end:
                raise UserError(f"the shard '{path}' is cut off inside '{member}'; copy it again")
            folder, _, name = member.rpartition("/")
            stem, _, ending = name.partition(".")
            if stem and ending:
                groups.setdefault(f"{folder}/{stem}" if folder else stem, {})[ending.lower()] = (offset, size)
    except FileNotFoundError as error:
        raise UserError(f"the shard '{path}' is missing; copy it again") from error
    except PermissionError as error:
        raise UserError(f"the shard '{path}' may not be read ({error})") from error
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"'{path}' is not an uncompressed tar file or is damaged ({error})") from error
    return groups


def shard_index(path: AnyPath) -> ShardIndex:
    """The compact index of a shard. That of a shard on a store is kept in the cache folder, by URL, size and version,
    so that a second start reads no headers.

    Raises:
        UserError: as for :func:`index_tar`.
    """
    if not isinstance(path, StorePath):
        return ShardIndex.of(index_tar(path))
    try:
        kept = cache_folder("index") / f"{digest(path.url, path.mark())}.safetensors"
    except FileNotFoundError as error:
        raise UserError(f"the shard '{path}' is missing; copy it again") from error
    if (found := ShardIndex.load(kept)) is not None:
        return found
    index = ShardIndex.of(index_tar(path))
    index.save(kept)
    return index


def _members(path: AnyPath) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of every regular file.

    Usual headers are read directly, several times as fast as by ``tarfile``; the first one of another kind (sparse
    files, GNU's and Solaris' own) hands the whole archive to ``tarfile``.
    """
    with _opened(path) as file:
        plain = _plain_members(file)
        if plain is not None:
            yield from plain
            return
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isreg():
                    yield member.name, member.offset_data, member.size


def _opened(path: AnyPath) -> IO[bytes]:
    reader: Any = BlockReader(path) if isinstance(path, StorePath) else open(path, "rb")
    return reader


def _plain_members(file: IO[bytes]) -> list[tuple[str, int, int]] | None:
    members = []
    offset = 0
    stated: dict[str, str] = {}  # of the member to come, which its header has no room for
    while len(header := file.read(_BLOCK)) == _BLOCK and header[0]:
        kind, size_field, sum_field = header[156:157], header[124:136], header[148:156]
        try:
            size = int(size_field.strip(b" \0") or b"0", 8)
            checksum = int(sum_field.strip(b" \0"), 8)
            if checksum != sum(header) - sum(sum_field) + 8 * ord(" "):
                return None
            offset += _BLOCK
            if kind in (_PAX, _LONG_NAME):
                if size > _RECORDS:
                    return None
                data = file.read(size)
                stated |= _records(data) if kind == _PAX else {"path": data.split(b"\0", 1)[0].decode()}
                offset += -(-size // _BLOCK) * _BLOCK
                file.seek(offset)
                continue
            name = header[:100].split(b"\0", 1)[0].decode()
            prefix = header[345:500].split(b"\0", 1)[0].decode() if header[257:263] == b"ustar\0" else ""
            size = int(stated.get("size", size))
        except ValueError:
            return None
        if kind not in _PLAIN or any(key.startswith("GNU.sparse") or key == "hdrcharset" for key in stated):
            return None
        if kind != b"5":
            members.append((stated.get("path") or (f"{prefix}/{name}" if prefix else name), offset, size))
            offset += -(-size // _BLOCK) * _BLOCK
        stated = {}
        file.seek(offset)
    return members if members else None


def _records(data: bytes) -> dict[str, str]:
    """A PAX header: records of ``<their length> <key>=<value>`` and a line feed. ValueError where it is none."""
    found = {}
    while data:
        length, _, _ = data.partition(b" ")
        record, data = data[: int(length)], data[int(length) :]
        if not record.endswith(b"\n"):
            raise ValueError("a record that is cut off")
        key, _, value = record[len(length) + 1 : -1].partition(b"=")
        found[key.decode()] = value.decode()
    return found
