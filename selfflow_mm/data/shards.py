"""Data sets on disk: folders of WebDataset shards, with random access.

A data set is a folder of tar files and a ``dataset.json`` that describes them (docs/data.md has the format). A
sample is the members of one shard that share a key, the path up to the first dot of the file name: ``000001.mp4`` and
``000001.json``. Plain WebDataset shards made elsewhere open as they are, from a folder, a glob or one tar, on a disk or
on a store (``stores``).
"""

from __future__ import annotations

import glob
import json
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from braceexpand import braceexpand

from selfflow_mm.data.open_files import OpenFiles
from selfflow_mm.data.reading import AUDIO_ENDINGS, IMAGE_ENDINGS, VIDEO_ENDINGS, read_media
from selfflow_mm.data.retrying import RETRY_SECONDS, Unreachable
from selfflow_mm.data.shardwriter import FORMAT, VERSION, ShardWriter
from selfflow_mm.data.stores import AnyPath, StorePath, is_url, place
from selfflow_mm.data.tarindex import shard_index
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Image, Video

__all__ = ["FORMAT", "VERSION", "Members", "RawSample", "Sample", "ShardDataset", "ShardWriter"]


@dataclass(frozen=True)
class Sample:
    """One decoded sample.

    ``id`` is its position in the data set (the global sample id that randomness is keyed by), ``key`` its name in the
    shard, ``captions`` every wording it has, ``caption_kinds`` of what kind each is, or none where it does not say,
    ``meta`` the rest of its json.
    """

    id: int
    key: str
    video: Video | None = None
    audio: Audio | None = None
    image: Image | None = None
    captions: tuple[str, ...] = ()
    caption_kinds: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RawSample:
    """One sample as stored: ``files`` maps endings without the dot (``"mp4"``, ``"json"``) to bytes."""

    id: int
    key: str
    shard: str
    files: dict[str, bytes]


@dataclass(frozen=True)
class Members:
    """Where the files of one sample lie: ending -> (offset, size) in bytes, in the tar ``shard``."""

    shard: AnyPath
    places: dict[str, tuple[int, int]]


#: Shards of a store that are indexed at a time: most of that is waiting for the store.
_AT_ONCE = 16


class ShardDataset:
    """Random access to the samples of a data set; safe to share between threads and forked workers.

    Args:
        source: a folder with ``dataset.json``, or with plain WebDataset tars; a glob (``"cifar10/*train*.tar"``) or
            braces (``"train-{0000..0099}.tar"``); one tar. Any of them may be a URL of a store (``s3://bucket/data``).
            Samples keep the order of the sorted shards and of their members.
        retry_seconds: how long a store that refuses is asked again.

    Attributes:
        info: the contents of ``dataset.json``; for plain tars the same fields as far as file names tell them.

    Raises:
        UserError: nothing there, a version this program does not know, a shard that is missing or no tar, a store that
            does not answer.
    """

    def __init__(self, source: str | AnyPath, retry_seconds: float = RETRY_SECONDS) -> None:
        self.source = str(source)
        self.folder, paths, self.info = _find_shards(source, retry_seconds)
        self.shards: list[AnyPath] = paths
        if any(isinstance(path, StorePath) for path in paths):
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                self._indexes = list(pool.map(shard_index, paths))
        else:
            self._indexes = [shard_index(path) for path in paths]
        self._starts = list(accumulate((len(index) for index in self._indexes), initial=0))
        self._check([len(index) for index in self._indexes])
        self._classes = self._class_names()
        self._files = OpenFiles()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample.

        Raises:
            IndexError: out of range.
            UserError: the sample cannot be decoded; the sentence names the shard and the key.
            Unreachable: its shard cannot be read now.
        """
        raw = self.raw(index)
        try:
            meta = _meta(raw.files)
            media = _decode(raw.files)
        except UserError as error:
            raise UserError(f"sample '{raw.key}' of {raw.shard}: {error}") from error
        captions = _captions(raw.files, meta, self._classes)
        kinds = _caption_kinds(meta, len(captions))
        return Sample(raw.id, raw.key, captions=captions, caption_kinds=kinds, meta=meta, **media)

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of one sample without decoding its media."""
        raw = self.raw(index, only=("json", "txt", "cls"))
        try:
            return _captions(raw.files, _meta(raw.files), self._classes)
        except UserError as error:
            raise UserError(f"sample '{raw.key}' of {raw.shard}: {error}") from error

    def key(self, index: int) -> str:
        shard, row = self._place(index)
        return self._indexes[shard].key(row)

    def meta(self, index: int) -> dict[str, Any]:
        """The json of one sample without decoding its media."""
        raw = self.raw(index, only=("json",))
        try:
            return _meta(raw.files)
        except UserError as error:
            raise UserError(f"sample '{raw.key}' of {raw.shard}: {error}") from error

    def members(self, index: int) -> Members:
        """Where the files of one sample lie."""
        shard, row = self._place(index)
        return Members(self.shards[shard], self._indexes[shard].members(row))

    def raw(self, index: int, only: Sequence[str] | None = None) -> RawSample:
        """The stored bytes of one sample; of the endings in ``only``, or of all."""
        shard, row = self._place(index)
        key, members = self._indexes[shard].key(row), self._indexes[shard].members(row)
        wanted = {ending: place for ending, place in members.items() if only is None or ending in only}
        files = {ending: self._read(self.shards[shard], key, *place) for ending, place in wanted.items()}
        return RawSample(self._starts[shard] + row, key, str(self.shards[shard]), files)

    def _place(self, index: int) -> tuple[int, int]:
        """The shard of a sample, and its number there; IndexError out of range."""
        index = range(len(self))[index]
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def _read(self, shard: AnyPath, key: str, offset: int, size: int) -> bytes:
        try:
            if isinstance(shard, StorePath):
                data = shard.read_range(offset, size)
            else:
                data = self._files.read(shard, offset, size)
        except FileNotFoundError as error:
            raise Unreachable(f"the shard '{shard}' is missing; copy it again") from error
        if len(data) != size:
            raise UserError(f"shard '{shard}' ends inside sample '{key}'; copy it again")
        return data

    def _check(self, counts: Sequence[int]) -> None:
        if self.info["format"] == FORMAT:
            for shard, count, path in zip(self.info["shards"], counts, self.shards, strict=True):
                if shard["samples"] != count:
                    raise UserError(f"'{path}' holds {count} samples, dataset.json says {shard['samples']}")
            return
        endings = {ending for index in self._indexes for combination in index.endings for ending in combination}
        kinds = {"video": VIDEO_ENDINGS, "audio": AUDIO_ENDINGS, "image": IMAGE_ENDINGS}
        self.info["modalities"] = [kind for kind, known in kinds.items() if any(_known(e, known) for e in endings)]
        self.info["samples"] = sum(counts)
        self.info["shards"] = [{"file": p.name, "samples": n} for p, n in zip(self.shards, counts, strict=True)]
        if not self.info["modalities"]:
            raise UserError(f"'{self.source}' holds no videos, images or sounds, only {sorted(endings) or 'nothing'}")

    def _class_names(self) -> list[str]:
        """The lines of ``classes.txt``, where samples have numbers of classes."""
        if not any("cls" in endings for index in self._indexes for endings in index.endings):
            return []
        classes = self.folder / "classes.txt"
        return classes.read_text(encoding="utf-8").split("\n") if classes.is_file() else []


def _find_shards(source: str | AnyPath, retry_seconds: float) -> tuple[AnyPath, list[AnyPath], dict[str, Any]]:
    """The folder, the shards in order, and what is known about them."""
    folder = place(source, retry_seconds)
    about = folder / "dataset.json"
    paths: list[AnyPath]
    if (text := _description(folder)) is not None:
        try:
            info = json.loads(text)
            form, version = info["format"], info["version"]
            paths = [folder / shard["file"] for shard in info["shards"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"'{about}' does not describe a data set ({error}); make the data set again") from error
        if (form, version) != (FORMAT, VERSION):
            raise UserError(f"'{about}' has format {form} {version}; this program reads {FORMAT} {VERSION}")
        return folder, _with_facts(folder, paths), info
    paths = [path for part in _braces(str(folder)) for path in _matching(place(part, retry_seconds))]
    if not paths:
        raise UserError(f"no data set at '{source}': give a folder with dataset.json or .tar shards, or a glob of tars")
    if not (isinstance(folder, Path) and folder.is_dir()):
        folder = paths[0].parent
    return folder, paths, {"format": "webdataset", "version": 1, "video": None, "audio": None}


def _description(folder: AnyPath) -> str | None:
    """What the folder's ``dataset.json`` says, where it is a folder and has one."""
    if folder.suffix == ".tar" or (is_url(folder) and any(mark in str(folder) for mark in "*[{")):
        return None
    about = folder / "dataset.json"
    try:
        return about.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None


def _braces(source: str) -> list[str]:
    """``a-{00..02}.tar`` as the names it stands for, sorted; anything else as it is."""
    if "{" not in source or Path(source).exists():
        return [source]
    try:
        return sorted(braceexpand(source))
    except ValueError:  # a brace that is not closed is part of the name
        return [source]


def _matching(where: AnyPath) -> list[AnyPath]:
    """The tars in a folder, those that a glob matches, or the one that is named."""
    if isinstance(where, Path):
        found = where.glob("*.tar") if where.is_dir() else map(Path, glob.glob(str(where)))
        return [*sorted(found)]
    if where.suffix == ".tar" and not any(mark in where.url for mark in "*["):
        return [where]
    try:
        return list(where.find("" if any(mark in where.url for mark in "*[") else "*.tar"))
    except FileNotFoundError:
        return []


def _with_facts(folder: AnyPath, paths: list[AnyPath]) -> list[AnyPath]:
    """The shards with what one listing of their folder says, so that the store is not asked for each."""
    if not isinstance(folder, StorePath) or len(paths) < 2:
        return paths
    facts = {path.name: path.facts for path in _matching(folder) if isinstance(path, StorePath)}
    return [StorePath(str(path), folder.retry_seconds, facts.get(path.name, {})) for path in paths]


def _known(ending: str, endings: frozenset[str]) -> bool:
    return ending.rpartition(".")[2] in endings


def _decode(files: dict[str, bytes]) -> dict[str, Any]:
    """Decode whatever media a sample holds; a sound file of its own wins over a video's sound track."""
    media: dict[str, Any] = {}
    order = (VIDEO_ENDINGS, AUDIO_ENDINGS, IMAGE_ENDINGS)
    for endings in order:
        for ending, data in files.items():
            if _known(ending, endings):
                clip = read_media(data)
                found = {"video": clip.video, "audio": clip.audio, "image": clip.image}
                media.update({kind: value for kind, value in found.items() if value is not None})
                break
    return media


def _meta(files: dict[str, bytes]) -> dict[str, Any]:
    if "json" not in files:
        return {}
    try:
        meta = json.loads(files["json"])
    except ValueError as error:
        raise UserError(f"its json cannot be read ({error})") from error
    return meta if isinstance(meta, dict) else {"json": meta}


def _captions(files: dict[str, bytes], meta: dict[str, Any], classes: Sequence[str]) -> tuple[str, ...]:
    """Captions from json (``captions``, ``caption`` or ``text``), else txt, else the name of the class."""
    for field_name in ("captions", "caption", "text"):
        if field_name in meta:
            found = meta[field_name]
            return tuple(str(c) for c in found) if isinstance(found, list) else (str(found),)
    if "txt" in files:
        return (files["txt"].decode("utf-8", "replace").strip(),)
    if "cls" in files:
        label = files["cls"].decode("utf-8", "replace").strip()
        number = int(label) if label.isdigit() else -1
        return (classes[number].strip() if 0 <= number < len(classes) and classes[number] else label,)
    return ()


def _caption_kinds(meta: dict[str, Any], captions: int) -> tuple[str, ...]:
    """The json's ``caption_kinds``, where it has one for each caption."""
    found = meta.get("caption_kinds", ())
    kinds = tuple(str(k) for k in found) if isinstance(found, list) else (found,) if isinstance(found, str) else ()
    return kinds if len(kinds) == captions else ()
