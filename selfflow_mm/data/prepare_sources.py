"""What ``prepare`` works on: the files of a folder, the rows of a table, or the samples of WebDataset shards."""

from __future__ import annotations

import csv
import glob
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from selfflow_mm.data.reading import AUDIO_ENDINGS, IMAGE_ENDINGS, VIDEO_ENDINGS
from selfflow_mm.data.retrying import Unreachable
from selfflow_mm.data.shards import ShardDataset
from selfflow_mm.data.stores import AnyPath, StorePath, is_url
from selfflow_mm.errors import UserError

MEDIA_ENDINGS = VIDEO_ENDINGS | AUDIO_ENDINGS | IMAGE_ENDINGS
_PATH_COLUMNS, _CAPTION_COLUMNS = ("path", "file"), ("captions", "caption", "text")


@dataclass(frozen=True)
class Item:
    """One source medium.

    ``name`` identifies it in the report (relative, so that it does not depend on where the data lie). The data are the
    file ``path``, or the ``size`` bytes at ``offset`` in it; on a store always these. ``problem`` is why it cannot be
    prepared, when that is known already. ``start`` and ``end`` are seconds.
    """

    name: str
    path: AnyPath
    offset: int = 0
    size: int | None = None
    captions: tuple[str, ...] = ()
    start: float = 0.0
    end: float | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problem: str | None = None

    def data(self) -> Path | bytes:
        if isinstance(self.path, StorePath):
            assert self.size is not None, "files on a store are read as members of its tars only"
            return self.path.read_range(self.offset, self.size)
        if self.size is None:
            return self.path
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def list_items(source: str | Path, name_captions: bool = True, limit: int | None = None) -> list[Item]:
    """All items of a source, or the first ``limit``, in a fixed order.

    Args:
        source: a folder of media, a ``.csv`` or ``.jsonl`` table, a data set folder, or a glob or folder of tars, these
            two on a store also.
        name_captions: take the words of a file's name as its caption when it has no other.

    Raises:
        UserError: no such source, nothing in it, or a table without a path column.
    """
    path = Path(source)
    if is_url(source):
        found = _from_shards(source)
    elif path.is_dir():
        has_media = any(p.suffix.lower().lstrip(".") in MEDIA_ENDINGS for p in _files(path))
        if (path / "dataset.json").is_file() or (any(path.glob("*.tar")) and not has_media):
            found = _from_shards(source)
        else:
            found = _from_folder(path, name_captions)
    elif path.suffix.lower() in (".csv", ".jsonl") and path.is_file():
        found = _from_table(path, name_captions)
    elif glob.glob(str(source)) or "{" in str(source):
        found = _from_shards(source)
    else:
        raise UserError(f"there is no '{source}'; give a folder, a .csv or .jsonl table, or WebDataset tars")
    items = list(islice(found, limit))
    if not items:
        raise UserError(f"'{source}' is empty: no videos, images or sounds in it")
    return items


def words_of(name: str) -> str:
    """The words of a file name: ``flipping_a_pancake-2`` becomes ``flipping a pancake``."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name))
    return " ".join(words) if any(len(word) > 1 for word in words) else ""


def _files(folder: Path) -> list[Path]:
    inside = (p for p in folder.rglob("*") if p.is_file())
    return sorted(p for p in inside if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def _from_folder(folder: Path, name_captions: bool) -> Iterator[Item]:
    """Media files; captions from ``<stem>.txt`` (one a line), ``<stem>.json``, else from the file's name."""
    files = _files(folder)
    stems = {p.with_suffix("") for p in files if p.suffix.lower().lstrip(".") in MEDIA_ENDINGS}
    for path in files:
        name = path.relative_to(folder).as_posix()
        ending = path.suffix.lower().lstrip(".")
        if ending in ("txt", "json") and path.with_suffix("") in stems:
            continue  # a caption, read with its medium
        if ending not in MEDIA_ENDINGS:
            yield Item(name, path, problem="not a media file")
            continue
        try:
            captions, meta = _beside(path)
        except UserError as error:
            yield Item(name, path, problem=f"unreadable caption: {error}")
            continue
        yield _named(Item(name, path, captions=captions, meta=meta), path.stem, name_captions)


def _beside(path: Path) -> tuple[tuple[str, ...], dict[str, Any]]:
    text, table = path.with_suffix(".txt"), path.with_suffix(".json")
    try:
        if text.is_file():
            lines = text.read_text(encoding="utf-8-sig").splitlines()
            return tuple(line.strip() for line in lines if line.strip()), {}
        if table.is_file():
            meta = json.loads(table.read_text(encoding="utf-8-sig"))
            if not isinstance(meta, dict):
                raise UserError(f"'{table.name}' holds no object with a caption")
            return _take_captions(meta), meta
    except ValueError as error:  # not UTF-8, or not JSON
        raise UserError(str(error)) from error
    return (), {}


def _from_table(table: Path, name_captions: bool) -> Iterator[Item]:
    """Rows with a path (relative to the table), and optionally a caption, start and end (seconds)."""
    for number, row in _rows(table):
        column = next((c for c in _PATH_COLUMNS if row.get(c)), None)
        if column is None:
            raise UserError(f"row {number} of '{table}' needs a column 'path' or 'file'; it has {sorted(row)}")
        name = str(row.pop(column))
        path = table.parent / name
        captions = _take_captions(row)
        try:
            start, end = (float(row.pop(c)) if row.get(c) not in (None, "") else None for c in ("start", "end"))
        except (TypeError, ValueError):
            yield Item(name, path, problem=f"unreadable row: start or end of row {number} is not a number of seconds")
            continue
        begin = start or 0.0
        label = name if start is None and end is None else f"{name}[{begin:g}:{'' if end is None else f'{end:g}'}]"
        if not path.is_file():
            yield Item(label, path, problem="missing: there is no such file")
        elif begin < 0 or (end is not None and end <= begin):
            yield Item(label, path, problem=f"unreadable row: it goes from {begin:g} s to {end:g} s")
        else:
            meta = {k: v for k, v in row.items() if k not in ("start", "end")}
            item = Item(label, path, captions=captions, start=begin, end=end, meta=meta)
            yield _named(item, path.stem, name_captions)


def _rows(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            if table.suffix.lower() == ".csv":
                for row in (reader := csv.DictReader(file)):
                    yield reader.line_num, {k.strip(): v for k, v in row.items() if k and isinstance(v, str)}
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise UserError(f"line {number} of '{table}' is not an object")
                    yield number, row
    except UserError:
        raise
    except (ValueError, csv.Error) as error:
        raise UserError(f"'{table}' cannot be read: {error}") from error


def _from_shards(source: str | Path) -> Iterator[Item]:
    """Samples of shards; of several media in a sample, video goes before image before sound."""
    dataset = ShardDataset(source)
    for index in range(len(dataset)):
        members = dataset.members(index)
        key = dataset.key(index)
        name = f"{members.shard.name}/{key}"
        kinds = (VIDEO_ENDINGS, IMAGE_ENDINGS, AUDIO_ENDINGS)
        media = [e for kind in kinds for e in members.places if e.rpartition(".")[2] in kind]
        if not media:
            yield Item(name, members.shard, problem="not a media file: the sample holds no video, image or sound")
            continue
        try:
            captions, meta = dataset.captions(index), dataset.meta(index)
        except Unreachable:
            raise
        except UserError as error:
            yield Item(name, members.shard, problem=f"unreadable caption: {error}")
            continue
        offset, size = members.places[media[0]]
        meta = {k: v for k, v in meta.items() if k not in (*_CAPTION_COLUMNS, "version")}
        notes = (f"several media: only {media[0]} was taken, not {', '.join(media[1:])}",) if media[1:] else ()
        yield _named(Item(name, members.shard, offset, size, captions, meta=meta, notes=notes), key, False)


def _take_captions(row: dict[str, Any]) -> tuple[str, ...]:
    """Take the captions out of a row."""
    found = [row.pop(c) for c in _CAPTION_COLUMNS if c in row]
    first = next((f for f in found if f not in (None, "", [])), ())
    return tuple(str(c) for c in first) if isinstance(first, list | tuple) else (str(first),)


def _named(item: Item, stem: str, name_captions: bool) -> Item:
    """The item with a caption from its name when it has none and may have one; noted either way."""
    if item.captions:
        return item
    words = words_of(stem) if name_captions else ""
    note = f'caption from name: "{words}"' if words else "no caption"
    fields = {**item.__dict__, "captions": (words,) if words else (), "notes": (*item.notes, note)}
    return Item(**fields)
