"""``dataset_info.json`` and the files beside it: which splits there are, and in which files their episodes lie."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfflow_mm.errors import UserError

__all__ = ["TEMPLATE", "DataSet", "Split", "fill_template", "find_folder", "read_data_set", "stated_split"]

TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SHARD = re.compile(r"(?P<name>.+)-(?P<split>\w+)\.tfrecord(?:-(?P<index>\d{5,})-of-(?P<total>\d{5,}))?")


@dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
        files: names of its shards, in order, whether they exist or not.
        lengths: episodes in each as the data set states it; None where it does not.
        listed: whether ``dataset_info.json`` knows it.
    """

    files: tuple[str, ...]
    lengths: tuple[int | None, ...]
    listed: bool = True

    def __add__(self, other: Split) -> Split:
        """This split's files, then the other's."""
        return Split(self.files + other.files, self.lengths + other.lengths, self.listed and other.listed)


@dataclass(frozen=True)
class DataSet:
    """A folder of one version of one data set.

    Attributes:
        folder: with ``features.json``.
        name, version: as stated, or guessed from names of files and folders.
        splits: by name.
        info: ``dataset_info.json`` as it is; empty where there is none.
        notes: what a user should know about the choice of folder and files.
    """

    folder: Path
    name: str
    version: str
    splits: Mapping[str, Split]
    info: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_folder(path: str | Path) -> tuple[Path, tuple[str, ...]]:
    """The folder with ``features.json`` that is meant by it, by one of its files, or by the data set's folder above it
    (the highest version is taken, and a note says so).

    Raises:
        UserError: there is none, or several configurations could be meant.
    """
    path = Path(path)
    folder = path.parent if path.is_file() else path
    if not folder.exists():
        raise UserError(f"'{path}' does not exist")
    if (folder / "features.json").is_file():
        return folder, ()
    found = [each.parent for depth in ("*", "*/*") for each in sorted(folder.glob(f"{depth}/features.json"))]
    versions = [each for each in found if _VERSION.fullmatch(each.name)]
    homes = {each.parent for each in versions}
    if len(homes) > 1:
        names = ", ".join(sorted(str(home.relative_to(folder)) for home in homes))
        raise UserError(f"'{path}' holds several data sets ({names}); name one of them")
    if not versions:
        raise UserError(
            f"'{path}' is no RLDS data set: it has no features.json, nor has a folder below it that is named by a "
            "version (1.0.0)"
        )
    best = max(versions, key=lambda each: [int(part) for part in each.name.split(".")])
    if best == folder / best.name and len(versions) == 1:
        return best, ()
    others = ", ".join(sorted(each.name for each in versions if each != best))
    return best, (f"took {best.relative_to(folder)}" + (f" (there are also {others})" if others else ""),)


def read_data_set(path: str | Path) -> DataSet:
    """What the descriptions and the names of the files tell; no record is opened.

    Raises:
        UserError: there is no RLDS data set, its description cannot be read, or its files are not TFRecords.
    """
    folder, notes = find_folder(path)
    present = {each.name for each in folder.iterdir() if each.is_file()}
    info = _read_info(folder / "dataset_info.json") if "dataset_info.json" in present else {}
    guessed = _guess(present)
    name = info.get("name") or next((match["name"] for match in _matches(present)), folder.parent.name)
    file_format = info.get("fileFormat") or info.get("file_format") or "tfrecord"
    if file_format != "tfrecord":
        raise UserError(
            f"'{folder}' stores its records as '{file_format}', which is not supported; convert it to tfrecord "
            "(tensorflow_datasets: tfds convert_format)"
        )
    splits: dict[str, Split] = {}
    for stated in info.get("splits", []):
        split = stated_split(stated, name)
        label = stated["name"]
        if label in guessed and not present & set(split.files):
            notes += (f"the files of split '{label}' are not those that dataset_info.json names; took what is there",)
            split = guessed[label]
        elif missing := len(set(split.files) - present):
            notes += (f"split '{label}': {missing} of {len(split.files)} files are missing",)
        splits[label] = split
    for label, split in guessed.items():
        splits.setdefault(label, split)
    if Path(path).is_file() and Path(path).suffix != ".json":  # a description stands for its folder
        label, split = _only(Path(path).name, splits)
        splits = {label: split}
    if not splits:
        raise UserError(f"'{folder}' describes a data set and has no record files (*.tfrecord-00000-of-00001)")
    version = info.get("version") or (folder.name if _VERSION.fullmatch(folder.name) else "1.0.0")
    return DataSet(folder, name, version, splits, info, notes)


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(info, dict):
            raise ValueError("it is no dictionary")
        for split in info.get("splits", []):
            [int(length) for length in split.get("shardLengths", [])], split["name"] + ""
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"'{path}' cannot be read ({error!r})") from error
    return info


def stated_split(split: Mapping[str, Any], name: str) -> Split:
    """A split of ``dataset_info.json``; infos before TFDS 4 state the number of shards, not their lengths."""
    lengths: list[int | None] = [int(length) for length in split.get("shardLengths", [])]
    total = len(lengths) or int(split.get("numShards") or split.get("num_shards") or 1)
    lengths = lengths or [None] * total
    template = split.get("filepathTemplate") or split.get("filepath_template") or TEMPLATE
    files = tuple(fill_template(template, name, split["name"], index, total) for index in range(total))
    return Split(files, tuple(lengths))


def fill_template(template: str, name: str, split: str, index: int, total: int) -> str:
    """The name of a shard; anything that is not one of TFDS' placeholders stays."""
    values = {
        "DATASET": name,
        "SPLIT": split,
        "FILEFORMAT": "tfrecord",
        "SHARD_INDEX": f"{index:05d}",
        "NUM_SHARDS": f"{total:05d}",
        "SHARD_X_OF_Y": f"{index:05d}-of-{total:05d}",
    }
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)


def _matches(present: set[str]) -> list[re.Match[str]]:
    return [match for match in map(_SHARD.fullmatch, sorted(present)) if match]


def _guess(present: set[str]) -> dict[str, Split]:
    """Splits by the names of files. Of several layouts of one split the most complete one is taken."""
    layouts: dict[str, dict[tuple[str, int], list[str]]] = {}
    for match in _matches(present):
        total = int(match["total"] or 0)
        layouts.setdefault(match["split"], {}).setdefault((match["name"], total), []).append(match.string)
    splits = {}
    for label, found in layouts.items():
        (name, total), files = max(found.items(), key=lambda item: len(item[1]) / (item[0][1] or 1))
        if 0 < total <= 10**6:
            files = [fill_template(TEMPLATE, name, label, index, total) for index in range(total)]
        splits[label] = Split(tuple(files), (None,) * len(files), listed=False)
    return splits


def _only(file: str, splits: Mapping[str, Split]) -> tuple[str, Split]:
    """The one file that a user pointed at, with the length that is stated for it."""
    for label, split in splits.items():
        if file in split.files:
            return label, Split((file,), (split.lengths[split.files.index(file)],), split.listed)
    return "train", Split((file,), (None,), False)
