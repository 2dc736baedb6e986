"""Data sets on disk: folders of WebDataset shards, with random access.

A data set is a folder of tar files and a ``dataset.json`` that describes them (docs/data.md has the format). A
sample is the members of one shard that share a key, the path up to the first dot of the file name: ``000001.mp4`` and
``000001.json``. Plain WebDataset shards made elsewhere open as they are, from a folder, a glob or one tar.
"""

from __future__ import annotations

import glob
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfflow_mm.data.reading import AUDIO_ENDINGS, IMAGE_ENDINGS, VIDEO_ENDINGS, read_media
from selfflow_mm.data.shardwriter import FORMAT, VERSION, ShardWriter
from selfflow_mm.data.tarindex import index_tar
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Image, Video

__all__ = ["FORMAT", "VERSION", "Members", "RawSample", "Sample", "ShardDataset", "ShardWriter"]


@dataclass(frozen=True)
class Sample:
    """One decoded sample.

    ``id`` is its position in the data set (the global sample id that randomness is keyed by), ``key`` its name in the
    shard, ``captions`` every wording it has, ``meta`` the rest of its json.
    """

    id: int
    key: str
    video: Video | None = None
    audio: Audio | None = None
    image: Image | None = None
    captions: tuple[str, ...] = ()
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

    shard: Path
    places: dict[str, tuple[int, int]]


class ShardDataset:
    """Random access to the samples of a data set; safe to share between threads and forked workers.

    Args:
        source: a folder with ``dataset.json``, or with plain WebDataset tars; a glob (``"cifar10/*train*.tar"``); one
            tar. Samples keep the order of the sorted shards and of their members.

    Attributes:
        info: the contents of ``dataset.json``; for plain tars the same fields as far as file names tell them.

    Raises:
        UserError: nothing there, a version this program does not know, a shard that is missing or no tar.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = str(source)
        self.folder, paths, self.info = _find_shards(source)
        self.shards: list[Path] = paths
        self._entries: list[tuple[int, str, dict[str, tuple[int, int]]]] = []
        counts = []
        for number, path in enumerate(paths):
            groups = index_tar(path)
            self._entries += [(number, key, members) for key, members in groups.items()]
            counts.append(len(groups))
        self._check(counts)
        classes = self.folder / "classes.txt"
        self._classes = classes.read_text(encoding="utf-8").split("\n") if classes.is_file() else []
        self._descriptors: dict[int, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        """Decode one sample.

        Raises:
            IndexError: out of range.
            UserError: the sample cannot be decoded; the sentence names the shard and the key.
        """
        raw = self.raw(index)
        try:
            meta = _meta(raw.files)
            media = _decode(raw.files)
        except UserError as error:
            raise UserError(f"sample '{raw.key}' of {raw.shard}: {error}") from error
        captions = _captions(raw.files, meta, self._classes)
        return Sample(raw.id, raw.key, captions=captions, meta=meta, **media)

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of one sample without decoding its media."""
        raw = self.raw(index, only=("json", "txt", "cls"))
        try:
            return _captions(raw.files, _meta(raw.files), self._classes)
        except UserError as error:
            raise UserError(f"sample '{raw.key}' of {raw.shard}: {error}") from error

    def key(self, index: int) -> str:
        return self._entries[index][1]

    def meta(self, index: int) -> dict[str, Any]:
        """The json of one sample without decoding its media."""
        raw = self.raw(index, only=("json",))
        try:
            return _meta(raw.files)
        except UserError as error:
            raise UserError(f"sample '{raw.key}' of {raw.shard}: {error}") from error

    def members(self, index: int) -> Members:
        """Where the files of one sample lie."""
        shard, _, places = self._entries[index]
        return Members(self.shards[shard], places)

    def raw(self, index: int, only: Sequence[str] | None = None) -> RawSample:
        """The stored bytes of one sample; of the endings in ``only``, or of all."""
        index = range(len(self))[index]
        shard, key, members = self._entries[index]
        wanted = {ending: place for ending, place in members.items() if only is None or ending in only}
        files = {ending: self._read(shard, key, *place) for ending, place in wanted.items()}
        return RawSample(index, key, str(self.shards[shard]), files)

    def _read(self, shard: int, key: str, offset: int, size: int) -> bytes:
        with self._lock:
            if shard not in self._descriptors:
                self._descriptors[shard] = os.open(self.shards[shard], os.O_RDONLY | getattr(os, "O_BINARY", 0))
        # pread has no file position to share: threads and forked workers may use one descriptor at once.
        data = os.pread(self._descriptors[shard], size, offset)
        if len(data) != size:
            raise UserError(f"shard '{self.shards[shard]}' ends inside sample '{key}'; copy it again")
        return data

    def _check(self, counts: Sequence[int]) -> None:
        if self.info["format"] == FORMAT:
            for shard, count, path in zip(self.info["shards"], counts, self.shards, strict=True):
                if shard["samples"] != count:
                    raise UserError(f"'{path}' holds {count} samples, dataset.json says {shard['samples']}")
            return
        endings = {ending for _, _, members in self._entries for ending in members}
        kinds = {"video": VIDEO_ENDINGS, "audio": AUDIO_ENDINGS, "image": IMAGE_ENDINGS}
        self.info["modalities"] = [kind for kind, known in kinds.items() if any(_known(e, known) for e in endings)]
        self.info["samples"] = sum(counts)
        self.info["shards"] = [{"file": p.name, "samples": n} for p, n in zip(self.shards, counts, strict=True)]
        if not self.info["modalities"]:
            raise UserError(f"'{self.source}' holds no videos, images or sounds, only {sorted(endings) or 'nothing'}")

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_descriptors", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _descriptors={}, _lock=threading.Lock())

    def __del__(self) -> None:
        for descriptor in getattr(self, "_descriptors", {}).values():
            os.close(descriptor)


def _find_shards(source: str | Path) -> tuple[Path, list[Path], dict[str, Any]]:
    """The folder, the shards in order, and what is known about them."""
    folder = Path(source)
    if folder.is_dir() and (folder / "dataset.json").is_file():
        about = folder / "dataset.json"
        try:
            info = json.loads(about.read_text(encoding="utf-8"))
            form, version = info["format"], info["version"]
            paths = [folder / shard["file"] for shard in info["shards"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"'{about}' does not describe a data set ({error}); make the data set again") from error
        if (form, version) != (FORMAT, VERSION):
            raise UserError(f"'{about}' has format {form} {version}; this program reads {FORMAT} {VERSION}")
        return folder, paths, info
    if folder.is_dir():
        paths = sorted(folder.glob("*.tar"))
    else:
        paths = [Path(p) for p in sorted(glob.glob(str(source)))]
        folder = paths[0].parent if paths else folder
    if not paths:
        raise UserError(f"no data set at '{source}': give a folder with dataset.json or .tar shards, or a glob of tars")
    return folder, paths, {"format": "webdataset", "version": 1, "video": None, "audio": None}


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
