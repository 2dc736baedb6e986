"""Reading RLDS data sets (TensorFlow Datasets' record files) without TensorFlow."""

from __future__ import annotations

import functools
import operator
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from ..episode import Episode, Feature, Pictures
from ..files import BadEpisode, Shard
from .columns import decode_metadata, decode_step, episode_length
from .example import Value, parse_example
from .features import Tree, read_tree
from .framing import BadRecord
from .info import DataSet, find_folder, read_data_set
from .shardfiles import ShardFiles

__all__ = ["RldsFiles", "is_rlds", "open_rlds"]


def is_rlds(folder: str | Path) -> bool:
    """Whether a folder (or a record file in one) holds a TensorFlow data set; nothing but names is looked at."""
    try:
        found, _ = find_folder(folder)
    except UserError:
        return False
    return (found / "dataset_info.json").is_file() or any(found.glob("*.tfrecord*"))


def open_rlds(folder: str | Path, split: str | None = None) -> RldsFiles:
    """Open a data set by the folder of a version, the data set's own folder, or one of its record files.

    Args:
        folder: what to open.
        split: ``train`` unless given; where there is none, the only split, or the first whose files are there. Several
            are read as one, in order, when joined by ``+`` as in TensorFlow Datasets: ``train+extra``.

    Raises:
        UserError: it is no RLDS data set, has no such split, or none of the split's files is there.
    """
    data_set = read_data_set(folder)
    tree = read_tree(data_set.folder / "features.json")
    present = {label for label, each in data_set.splits.items() if _present(data_set, each.files)}
    if split is None:
        split = next((label for label in ("train", *data_set.splits) if label in present), None)
        split = split or next(iter(data_set.splits))
    names = [name.strip() for name in split.split("+")]
    for name in names:
        if name not in data_set.splits:
            raise UserError(f"'{data_set.folder}' has no split '{name}'; it has: {', '.join(data_set.splits)}")
        if names.count(name) > 1:
            raise UserError(f"split '{split}' names '{name}' more than once; its episodes would count double")
        if name not in present:
            files = data_set.splits[name].files
            missing = f"'{files[0]}'" if len(files) == 1 else f"none of its {len(files)} files ('{files[0]}' and so on)"
            others = f"; splits that are there: {', '.join(sorted(present))}" if present else ""
            verb = "is missing" if len(files) == 1 else "is there"
            raise UserError(f"split '{name}' of '{data_set.folder}' has no data: {missing} {verb}{others}")
    return RldsFiles(data_set, tree, names)


def _present(data_set: DataSet, files: tuple[str, ...]) -> bool:
    return any((data_set.folder / name).is_file() for name in files)


class RldsFiles:
    """An open RLDS data set; see :class:`selfflow_robotics.files.EpisodeFiles` for what every reader gives.

    Names of a step's columns lose ``steps/``; values of whole episodes keep their full names as metadata. Features of
    classes that this reader does not know are put into the metadata of each episode as they are stored, under their
    full names.

    Attributes:
        version: of the data set.
        notes: sentences on what was chosen, is missing, or is kept without being understood.
    """

    format = "RLDS"
    fps: float | None = None

    def __init__(self, data_set: DataSet, tree: Tree, splits: Sequence[str]) -> None:
        self.name, self.version, self.folder = data_set.name, data_set.version, data_set.folder
        self.split, self._splits = "+".join(splits), "|".join(map(re.escape, splits))
        self.description: Mapping[str, Any] = data_set.info
        self.features: Mapping[str, Feature] = tree.features
        self.metadata_features: Mapping[str, Feature] = tree.metadata_features
        self._tree, self._ordered = tree, bool(tree.order)
        self._files = ShardFiles(self.folder)
        chosen = functools.reduce(operator.add, (data_set.splits[name] for name in splits))
        self._names, lengths = chosen.files, chosen.lengths
        self.shards = tuple(
            Shard(name, self._count(name) if length is None else length)
            for name, length in zip(self._names, lengths, strict=True)
        )
        self.splits: Mapping[str, int] = {
            label: sum(shard.episodes for shard in self.shards)
            if label == self.split
            else sum(self._count(n) if k is None else k for n, k in zip(each.files, each.lengths, strict=True))
            for label, each in data_set.splits.items()
        }
        self.missing = frozenset(k for k, name in enumerate(self._names) if not (self.folder / name).is_file())
        self.notes = (*data_set.notes, *tree.notes)

    @property
    def tree(self) -> Tree:
        """The parsed ``features.json``, with the order of features in this data set's records; give it to a writer to
        get the same records again. The first record that can be read is looked at once for the order."""
        if not self._ordered:
            self._tree, self._ordered = Tree(self._tree.json, self._order()), True
        return self._tree

    def read(self, shard: int, index: int) -> Episode:
        """Episode ``index`` of shard number ``shard``; pictures stay encoded until asked for.

        Raises:
            BadEpisode: it is missing or damaged, or not what ``features.json`` says.
        """
        data = self.read_record(shard, index)
        try:
            return self._episode(shard, index, parse_example(data))
        except UserError as error:
            raise BadEpisode(self._names[shard], index, str(error)) from error

    def read_record(self, shard: int, index: int) -> bytes:
        """The record as it is stored, its checksums verified.

        Raises:
            BadEpisode: it is missing or damaged.
        """
        name = self._names[shard]
        try:
            return self._files.read(name, index)
        except BadRecord as error:
            raise BadEpisode(name, index, str(error)) from error

    def episodes_in(self, shard: int) -> int:
        """How many episodes the file holds; what the data set states where it is missing or damaged."""
        stated = self.shards[shard].episodes
        try:
            found = self._files.index(self._names[shard])
        except BadRecord:
            return stated
        return max(stated, len(found)) if found.damage else len(found)

    def close(self) -> None:
        """Close the files that are open; reading opens them again."""
        self._files.close()

    def _episode(self, shard: int, index: int, record: Mapping[str, Value]) -> Episode:
        leaves = self._tree.leaves
        length = episode_length(leaves, record)
        columns: dict[str, np.ndarray] = {}
        texts: dict[str, list[str | bytes]] = {}
        pictures: dict[str, Pictures] = {}
        metadata: dict[str, Any] = {}
        for leaf in leaves:
            if leaf.kind == "unknown":
                metadata |= _kept(leaf.key, record)
            elif not leaf.per_step:
                metadata[leaf.name] = decode_metadata(leaf, record)
            else:
                value = decode_step(leaf, record, length)
                if isinstance(value, np.ndarray):
                    columns[leaf.name] = value
                elif isinstance(value, list):
                    texts[leaf.name] = value
                else:
                    pictures[leaf.name] = value
        return Episode(self._id(shard, index), length, columns, texts, pictures, metadata)

    def _id(self, shard: int, index: int) -> str:
        """``train-00003-of-01024/17``; with the whole name of the file where it is not TFDS' usual one."""
        name = self._names[shard]
        usual = re.fullmatch(rf"{re.escape(self.name)}-({self._splits})\.tfrecord(-\d+-of-\d+)", name)
        return f"{usual[1]}{usual[2]}/{index}" if usual else f"{name}/{index}"

    def _count(self, name: str) -> int:
        """Episodes of a file whose number nothing states; 0 where it is missing."""
        if not os.path.isfile(self.folder / name):
            return 0
        try:
            return len(self._files.index(name))
        except BadRecord:
            return 0

    def _order(self) -> tuple[str, ...]:
        for shard in range(len(self._names)):
            for index in range(self.episodes_in(shard)):
                try:
                    return tuple(parse_example(self.read_record(shard, index)))
                except (BadRecord, BadEpisode):
                    if not index:  # a missing file, or one without its first record: the next one will tell
                        break
        return ()


def _kept(key: str, record: Mapping[str, Value]) -> dict[str, Value]:
    """What a record holds under the name of a feature that nobody here knows, free of the record's memory."""
    found = {name: value for name, value in record.items() if name == key or name.startswith(f"{key}/")}
    return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in found.items()}
