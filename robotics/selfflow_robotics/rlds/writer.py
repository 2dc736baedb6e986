"""Writing RLDS data sets that tensorflow_datasets' ``builder_from_directory`` opens, without TensorFlow."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from selfflow_mm.errors import UserError

from ..episode import Episode, Feature
from .encoding import encode_leaf
from .example import Value, serialise_example
from .features import Leaf, Tree, read_tree
from .framing import write_record
from .info import TEMPLATE, fill_template, stated_split
from .treemaking import make_tree

__all__ = ["RldsWriter"]


class RldsWriter:
    """One split of a data set under construction; a context manager. Open a second writer on the folder for a second
    split.

    The same episodes give the same bytes. Shards are written beside their names and renamed when their number is
    known; ``dataset_info.json`` comes last. Leaving with an exception removes what was begun.

    Args:
        folder: of the version, usually ``.../name/1.0.0``; created where missing.
        name: of the data set: letters, digits and underscores.
        version: three numbers.
        split: ``train``, ``val``, ...; letters, digits and underscores.
        features: of steps, by name (``observation/image``); needed unless ``tree`` is given.
        metadata_features: of whole episodes, by full name (``episode_metadata/file_path``).
        tree: the structure to write exactly, instead of the two; that of an open data set (``files.tree``) gives its
            records again bit for bit, also features that are kept without being understood.
        episodes_per_shard: at most so many in a file.
        description: of the data set.
        quality: of JPEG files made from decoded pictures, 1 to 100.
        overwrite: replace the split where the folder has it already.

    Attributes:
        replaced: files of the split that is overwritten.

    Raises:
        UserError: names or numbers are not valid, the folder holds the split, or another data set.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str,
        version: str = "1.0.0",
        split: str = "train",
        features: Mapping[str, Feature] | None = None,
        metadata_features: Mapping[str, Feature] | None = None,
        tree: Tree | None = None,
        episodes_per_shard: int = 100,
        description: str = "",
        quality: int = 95,
        overwrite: bool = False,
    ) -> None:
        _check(name, version, split, episodes_per_shard, quality)
        if (tree is None) == (features is None):
            raise UserError("an RLDS writer needs either features or a tree")
        self.folder, self.name, self.version, self.split = Path(folder), name, version, split
        self.tree = tree if tree is not None else make_tree(features or {}, metadata_features)
        self._per_shard, self._description, self._quality = episodes_per_shard, description, quality
        self.replaced: set[Path] = set()
        self._info = self._existing(overwrite)
        self._lengths: list[int] = []
        self._bytes = 0
        self._file: BinaryIO | None = None
        self._made = not self.folder.exists()

    def write(self, episode: Episode) -> None:
        """Append one episode. Metadata that are not declared are left out.

        Raises:
            UserError: its columns are not those declared, or a value does not fit its declaration.
        """
        try:
            record = serialise_example(self._record(episode))
        except UserError as error:
            raise UserError(f"episode {episode.id}: {error}") from error
        if self._file is None or self._lengths[-1] == self._per_shard:
            self._next_shard()
        assert self._file is not None
        write_record(self._file, record)
        self._lengths[-1] += 1
        self._bytes += len(record)

    def __enter__(self) -> RldsWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_begun()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
            return
        if self._file is not None:
            self._file.close()
        self._remove_begun()
        if self._made and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _record(self, episode: Episode) -> dict[str, Value]:
        steps: dict[str, Any] = {**episode.columns, **episode.texts, **episode.pictures}
        wanted = {leaf.name for leaf in self.tree.leaves if leaf.per_step and leaf.kind != "unknown"}
        if extra := set(steps) - wanted:
            raise UserError(f"it has columns that are not declared: {', '.join(sorted(extra))}")
        entries: dict[str, Value] = {}
        for leaf in self.tree.leaves:
            if leaf.kind == "unknown":
                kept = {k: v for k, v in episode.metadata.items() if k == leaf.key or k.startswith(f"{leaf.key}/")}
                entries |= kept
                continue
            values = steps if leaf.per_step else episode.metadata
            if leaf.name not in values:
                raise UserError(f"it has no '{leaf.name}', which is declared")
            entries |= encode_leaf(leaf, _checked_kind(leaf, episode, values[leaf.name]), self._quality)
        rest = sorted(set(entries) - set(self.tree.order))
        return {key: entries[key] for key in (*self.tree.order, *rest) if key in entries}

    def _begun(self, shard: int) -> Path:
        return self.folder / f"{self.name}-{self.split}.tfrecord-{shard:05d}.incomplete"

    def _remove_begun(self) -> None:
        """What this writer began, or one before it that was killed."""
        for path in self.folder.glob(f"{self.name}-{self.split}.tfrecord-*.incomplete"):
            path.unlink()

    def _next_shard(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = open(self._begun(len(self._lengths)), "wb")
        self._lengths.append(0)

    def _finish(self) -> None:
        if self._file is None:
            self._next_shard()  # a split of no episodes is one empty file
        assert self._file is not None
        self._file.close()
        total = len(self._lengths)
        names = [fill_template(TEMPLATE, self.name, self.split, shard, total) for shard in range(total)]
        for shard, file in enumerate(names):
            os.replace(self._begun(shard), self.folder / file)
        self.describe(self.folder, self._lengths, self._bytes)
        for path in self.replaced - {self.folder / file for file in names}:
            path.unlink(missing_ok=True)

    def describe(self, folder: Path, lengths: Sequence[int], size: int) -> None:
        """Write ``features.json`` and ``dataset_info.json`` into ``folder``: shards of so many episodes, ``size`` bytes
        of records in all, beside the other splits of the writer's own folder."""
        _write_json(folder / "features.json", self.tree.json)
        _write_json(folder / "dataset_info.json", self._described(lengths, size))

    def _described(self, lengths: Sequence[int], size: int) -> dict[str, Any]:
        entry = {
            "filepathTemplate": TEMPLATE,
            "name": self.split,
            "numBytes": str(size),
            "shardLengths": [str(length) for length in lengths],
        }
        splits = [each for each in self._info.get("splits", []) if each.get("name") != self.split]
        fresh = {"description": self._description} if self._description or not self._info else {}
        return {
            **self._info,
            **fresh,
            "fileFormat": "tfrecord",
            "name": self.name,
            "splits": sorted([*splits, entry], key=lambda each: str(each.get("name"))),
            "version": self.version,
        }

    def _existing(self, overwrite: bool) -> dict[str, Any]:
        """The description of the data set that this split joins; empty where there is none."""
        path = self.folder / "dataset_info.json"
        if not path.exists():
            self.replaced = set(self.folder.glob("*.tfrecord-*-of-*"))
            if self.replaced and not overwrite:
                raise UserError(
                    f"'{self.folder}' holds records without a dataset_info.json; write elsewhere or overwrite"
                )
            return {}
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
            splits = {each["name"]: stated_split(each, str(info.get("name"))) for each in info.get("splits", [])}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"'{path}' cannot be read ({error!r}); remove it or write elsewhere") from error
        if self.split in splits and not overwrite:
            raise UserError(f"'{self.folder}' already has a split '{self.split}'; write elsewhere or overwrite it")
        if self.split in splits:
            self.replaced = {self.folder / file for file in splits[self.split].files}
        if set(splits) <= {self.split}:
            return {}
        same = (info.get("name"), info.get("version")) == (self.name, self.version)
        if not same or read_tree(self.folder / "features.json").json != self.tree.json:
            raise UserError(
                f"'{self.folder}' holds {info.get('name')} {info.get('version')}, and '{self.name} {self.version}' "
                "has another name, version or other features; a split joins a data set with the same ones"
            )
        return info


def _checked_kind(leaf: Leaf, episode: Episode, value: Any) -> Any:
    """A column must be of the kind that is declared, or it would be stored as something else without a word."""
    if leaf.per_step:
        kept_as = leaf.feature.kind
        found = {"array": episode.columns, "text": episode.texts, "picture": episode.pictures}
        if leaf.name not in found[kept_as]:
            kinds = [kind for kind, each in found.items() if leaf.name in each]
            raise UserError(f"'{leaf.name}' is declared as {kept_as}, and the episode has it as {kinds[0]}")
    return value


def _check(name: str, version: str, split: str, episodes_per_shard: int, quality: int) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"the name of a data set is of small letters, digits and underscores, got '{name}'")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise UserError(f"a version is three numbers such as 1.0.0, got '{version}'")
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", split) or split == "all":
        raise UserError(f"the name of a split is of letters, digits and underscores and not 'all', got '{split}'")
    if episodes_per_shard < 1:
        raise UserError(f"a shard holds at least one episode, got episodes_per_shard={episodes_per_shard}")
    if not 1 <= quality <= 100:
        raise UserError(f"the quality of JPEG files is from 1 to 100, got {quality}")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.incomplete")
    beside.write_text(json.dumps(content, indent=4, ensure_ascii=False, sort_keys=False) + "\n", encoding="utf-8")
    os.replace(beside, path)
