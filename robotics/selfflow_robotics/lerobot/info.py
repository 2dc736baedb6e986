"""``meta/info.json``: what a LeRobot data set says about itself, and its columns as ``Feature``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from ..episode import Feature

__all__ = ["MADE_COLUMNS", "FEATURES_KEY", "Info", "feature_from_json", "feature_to_json", "feature_to_lerobot"]

#: Columns that LeRobot makes itself, in every data set: name -> dtype.
MADE_COLUMNS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
#: The key of ``info.json`` under which our writer keeps what LeRobot's own fields cannot say: (1,) against (), the
#: encoding of pictures, text that is bytes, the types of values of whole episodes.
FEATURES_KEY = "selfflow_features"


@dataclass(frozen=True)
class Info:
    """``meta/info.json``, checked.

    Attributes:
        folder: of the data set.
        raw: the file, parsed.
        version: ``"v2.0"``, ``"v2.1"``, ``"v3.0"``, as the file has it.
        fps: steps per second.
        splits: name -> range of episode indices.
        features: column -> what it is; columns of a type that LeRobot's format does not define are left out.
        note: what our writer added under ``FEATURES_KEY``; empty for other writers' data.
    """

    folder: Path
    raw: Mapping[str, Any]
    version: str
    fps: float
    splits: Mapping[str, range]
    features: Mapping[str, Feature]
    note: Mapping[str, Any]

    @property
    def videos(self) -> tuple[str, ...]:
        return tuple(name for name, feature in self.features.items() if feature.encoding == "video")

    @property
    def chunks_size(self) -> int:
        return int(self.raw.get("chunks_size") or 1000)

    def path(self, template: str, **values: Any) -> Path:
        """A file by ``data_path`` or ``video_path``.

        Raises:
            UserError: the template is missing, or names a place outside the data set.
        """
        pattern = self.raw.get(template)
        if not isinstance(pattern, str):
            raise UserError(f"{self.folder / 'meta/info.json'} has no '{template}', which says where its files are")
        try:
            relative = PurePosixPath(pattern.format(**values))
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UserError(
                f"{self.folder / 'meta/info.json'}: '{template}': {pattern!r} cannot be filled in"
            ) from error
        if relative.is_absolute() or ".." in relative.parts:
            raise UserError(f"{self.folder / 'meta/info.json'}: '{template}' points outside the data set: {pattern!r}")
        return self.folder / relative

    @staticmethod
    def read(folder: Path) -> Info:
        """
        Raises:
            UserError: no such file, not JSON, a version that is not v2.x or v3.x, or fields that are missing.
        """
        path = folder / "meta" / "info.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{folder} is no LeRobot data set: {path} cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise UserError(f"{path} is not JSON: {error}") from error
        if not isinstance(raw, dict) or not isinstance(raw.get("features"), dict):
            raise UserError(f"{path} has no 'features': it does not describe a LeRobot data set")
        version = str(raw.get("codebase_version", ""))
        if not version.startswith(("v2.", "v3.")):
            raise UserError(f"{path} says version {version or 'nothing'}; LeRobot v2.0, v2.1 and v3.0 can be read")
        fps = raw.get("fps")
        if not isinstance(fps, int | float) or not fps > 0:
            raise UserError(f"{path}: 'fps' is {fps!r}; it should be the steps per second")
        note = raw.get(FEATURES_KEY) or {}
        features: dict[str, Feature] = {}
        for name, entry in raw["features"].items():
            try:
                feature = _feature(entry)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{path}: feature '{name}' is not a LeRobot feature: {entry!r}") from error
            if feature is None:
                continue
            told = note.get("features", {}).get(name)
            features[name] = _with_note(feature, feature_from_json(told)) if told else feature
        return Info(folder, raw, version, float(fps), _splits(raw, path), features, note)


def feature_to_json(feature: Feature) -> dict[str, Any]:
    return asdict(feature)


def feature_from_json(entry: Mapping[str, Any]) -> Feature:
    return Feature(**{**entry, "shape": tuple(entry["shape"]), "names": tuple(entry["names"])})


def feature_to_lerobot(feature: Feature, as_video: bool) -> dict[str, Any]:
    """The entry of ``info.json``'s ``features``: dtype, shape (``[1]`` for scalars) and names."""
    if feature.kind == "picture":
        dtype = "video" if as_video else "image"
        return {"dtype": dtype, "shape": list(feature.shape), "names": ["height", "width", "channels"]}
    if feature.kind == "text":
        return {"dtype": "string", "shape": [1], "names": None}
    names = list(feature.names) if feature.names and len(feature.shape) == 1 else None
    return {"dtype": feature.dtype, "shape": list(feature.shape) or [1], "names": names}


def _feature(entry: Mapping[str, Any]) -> Feature | None:
    dtype, shape = entry["dtype"], tuple(int(size) for size in entry["shape"])
    if dtype in ("image", "video"):
        return Feature(
            "picture", _height_width_channels(shape, entry.get("names")), "uint8", dtype.replace("image", "")
        )
    if dtype == "string":
        return Feature("text", (), "str")
    try:
        kind = np.dtype(dtype).kind
    except TypeError:
        return None  # a type of a later version; the other columns are readable
    if kind not in "biuf":
        return None
    shape = () if shape == (1,) else shape  # LeRobot stores [1] as a plain column
    return Feature("array", shape, dtype, names=_names(entry.get("names"), shape))


def _with_note(feature: Feature, told: Feature) -> Feature:
    """Our writer's own words, unless somebody changed the column's type since."""
    if feature.kind != told.kind or (feature.kind == "array" and feature.dtype != told.dtype):
        return feature
    if feature.kind == "picture":
        encoding = "" if told.encoding == "video" else told.encoding  # whether it is one, the column's type decides
        return replace(told, shape=feature.shape, encoding=feature.encoding or encoding)
    return told


def _height_width_channels(shape: tuple[int, ...], names: Any) -> tuple[int, ...]:
    if len(shape) == 2:
        return (*shape, 1)
    height, width, channels = shape
    first = str(names[0]) if isinstance(names, list) and names else ""
    channels_first = first.startswith("channel") if first else height in (1, 3, 4) and channels not in (1, 3, 4)
    return (width, channels, height) if channels_first else shape


def _names(names: Any, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the last axis: a list, or a dictionary such as {"motors": [...]} or {"x": 0, "y": 1}."""
    if isinstance(names, dict):
        lists = [value for value in names.values() if isinstance(value, list)]
        names = lists[0] if lists else list(names)
    if not isinstance(names, list):
        return ()
    size = shape[-1] if shape else 1
    return tuple(str(name) for name in names) if len(names) == size and not isinstance(names[0], list) else ()


def _splits(raw: Mapping[str, Any], path: Path) -> dict[str, range]:
    stated = raw.get("splits") or {"train": f"0:{int(raw.get('total_episodes', 0))}"}
    splits = {}
    for name, stretch in stated.items():
        first, _, last = str(stretch).partition(":")
        if not (first.isdecimal() and last.isdecimal()):
            raise UserError(
                f"{path}: split '{name}' is {stretch!r}; it should be a stretch of episodes such as '0:100'"
            )
        splits[name] = range(int(first), int(last))
    return splits
