"""Writing a data set: deterministic WebDataset tars, then ``dataset.json``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from selfflow_mm.errors import UserError

FORMAT, VERSION = "selfflow-shards", 1


class ShardWriter:
    """Write a data set; use as a context manager.

    Shards are deterministic: the same samples in the same order give the same bytes. Each is written beside its place
    and renamed when full; ``dataset.json`` comes last, so a folder that has one is complete. After an exception no
    ``dataset.json`` is written.

    Args:
        folder: created when missing; must not hold a data set already.
        samples_per_shard: at most so many samples a tar.
        info: what ``dataset.json`` says beside the counts: ``modalities``, ``video`` (frames, height, width, fps) or
            None, ``audio`` (rate, channels) or None, ``created_by``. ``writer.info`` may be changed until ``close``.
    """

    def __init__(self, folder: str | Path, *, samples_per_shard: int = 500, info: dict[str, Any]) -> None:
        if samples_per_shard < 1:
            raise UserError(f"a shard holds at least one sample, got samples_per_shard={samples_per_shard}")
        self.folder = Path(folder)
        if (self.folder / "dataset.json").exists():
            raise UserError(f"'{folder}' already holds a data set; give another folder or remove it first")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.samples_per_shard = samples_per_shard
        self.info = dict(info)
        self._shards: list[dict[str, Any]] = []
        self._keys: set[str] = set()
        self._tar: Any = None
        self._file: BinaryIO | None = None

    def add(self, key: str, files: dict[str, bytes], meta: dict[str, Any]) -> None:
        """Append a sample: ``files`` maps endings without the dot to bytes; ``meta`` becomes ``<key>.json`` and has
        ``captions``, a list of strings (it may be empty)."""
        if not key or "." in key or key in self._keys:
            raise UserError(f"a sample's key is a new name without a dot, got '{key}'")
        captions = meta.get("captions")
        if not isinstance(captions, list | tuple) or not all(isinstance(c, str) for c in captions):
            raise UserError(f"sample '{key}' needs meta['captions'], a list of strings, got {captions!r}")
        if not files or "json" in files:
            raise UserError(f"sample '{key}' needs media files; its json is made from meta")
        self._keys.add(key)
        if self._tar is None or self._shards[-1]["samples"] == self.samples_per_shard:
            self._finish_shard()
            self._start_shard()
        text = json.dumps({"version": VERSION, **meta, "captions": list(captions)}, ensure_ascii=False)
        self._tar.write({"__key__": key, **files, "json": text.encode()})
        self._shards[-1]["samples"] += 1

    def close(self) -> None:
        """Finish the last shard and write ``dataset.json``."""
        self._finish_shard()
        about = {
            "format": FORMAT,
            "version": VERSION,
            "samples": sum(s["samples"] for s in self._shards),
            "modalities": [],
            "video": None,
            "audio": None,
            **self.info,
            "shards": self._shards,
        }
        beside = self.folder / ".dataset.json.tmp"
        beside.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(beside, self.folder / "dataset.json")

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        elif self._file is not None:
            self._tar.close()
            self._file.close()
            self._beside.unlink(missing_ok=True)

    @property
    def _beside(self) -> Path:
        return self.folder / f".{self._shards[-1]['file']}.tmp"

    def _start_shard(self) -> None:
        from webdataset import TarWriter

        self._shards.append({"file": f"shard-{len(self._shards):06d}.tar", "samples": 0})
        self._file = open(self._beside, "wb")
        self._tar = TarWriter(self._file, user="", group="", mtime=0, encoder=False)

    def _finish_shard(self) -> None:
        if self._tar is None or self._file is None:
            return
        self._tar.close()
        self._file.close()
        os.replace(self._beside, self.folder / self._shards[-1]["file"])
        self._tar = self._file = None
