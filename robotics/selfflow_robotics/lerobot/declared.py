"""What a data set under construction declares, checked before the first episode, and each episode against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from ..episode import Episode, Feature
from .info import MADE_COLUMNS
from .v3 import FORMAT_COLUMNS, FORMAT_PREFIXES

__all__ = ["INDEXED", "Declared"]

#: Texts that are stored as numbers, their strings in a table of their own: name -> column.
INDEXED = {"task": "task_index", "subtask": "subtask_index"}
_MOST_AXES = 5  # Hugging Face's Array5D


class Declared:
    """The columns and per-episode values that every episode must have.

    Attributes:
        arrays, texts, pictures: columns by kind, without those that the writer makes.
        videos: the pictures that become videos; the others keep picture files in the parquet.
        indexed: texts stored by number: ``task`` always, ``subtask`` where declared.
        metadata: values of whole episodes.
        metadata_columns: their columns in the table of episodes.
    """

    def __init__(self, features: Mapping[str, Feature], metadata: Mapping[str, Feature], as_video: bool) -> None:
        """
        Raises:
            UserError: a name or a type that the format cannot hold.
        """
        self.arrays: dict[str, Feature] = {}
        self.texts: dict[str, Feature] = {}
        self.pictures: dict[str, Feature] = {}
        self.indexed = {"task": INDEXED["task"]}
        for name, feature in features.items():
            if name in INDEXED:
                _expect(feature.kind == "text", f"column '{name}' must be text in a LeRobot data set")
                self.indexed[name] = INDEXED[name]
        for name, feature in features.items():
            if name in MADE_COLUMNS or name in self.indexed or name in self.indexed.values():
                continue
            _expect(bool(name) and "/" not in name, f"column '{name}': LeRobot's names have no slashes; use dots")
            {"array": self.arrays, "text": self.texts, "picture": self.pictures}[feature.kind][name] = feature
        for name, feature in self.arrays.items():
            _check_array(f"column '{name}'", feature, open_sizes=False)
        for name, feature in self.texts.items():
            _expect(feature.shape == (), f"column '{name}': LeRobot holds one text per step, not {feature.shape}")
        self.videos = tuple(
            name
            for name, feature in self.pictures.items()
            if as_video and feature.dtype == "uint8" and (feature.shape[-1:] or (3,))[0] in (3, None)
        )
        for name, feature in self.pictures.items():
            _expect(len(feature.shape) in (0, 3), f"column '{name}': pictures are (height, width, channels)")
            if name not in self.videos and feature.encoding == "video":
                self.pictures[name] = replace(feature, encoding="png")
        # Every LeRobot data set numbers its episodes; a number from elsewhere would no longer hold.
        self.metadata = {name: feature for name, feature in metadata.items() if name != "episode_index"}
        for name, feature in self.metadata.items():
            _expect(feature.kind != "picture", f"value '{name}' of an episode is a picture, which LeRobot cannot hold")
            if feature.kind == "array":
                _check_array(f"value '{name}' of an episode", feature, open_sizes=True)
            else:
                _expect(feature.shape == (), f"value '{name}' of an episode: one text, not {feature.shape}")
        reserved = {name for name in self.metadata if name in FORMAT_COLUMNS or name.startswith(FORMAT_PREFIXES)}
        self.metadata_columns = {name: f"metadata/{name}" if name in reserved else name for name in self.metadata}
        _expect(
            len(set(self.metadata_columns.values())) == len(self.metadata), "two values of an episode have one name"
        )

    def columns_of(self, episode: Episode) -> dict[str, np.ndarray]:
        """The declared columns.

        Raises:
            UserError: one is missing, of another type or shape, or not declared.
        """
        known = {*self.arrays, *MADE_COLUMNS, *self.indexed.values()}
        _same(episode, "column", episode.columns.keys() - known, self.arrays.keys() - episode.columns.keys())
        for name, feature in self.arrays.items():
            values = episode.columns[name]
            if values.shape[1:] != tuple(feature.shape) or values.dtype != np.dtype(feature.dtype):
                raise UserError(
                    f"episode {episode.id}: column '{name}' is {values.dtype} {list(values.shape[1:])} per step, "
                    f"declared is {feature.dtype} {list(feature.shape)}"
                )
        return {name: episode.columns[name] for name in self.arrays}

    def texts_of(self, episode: Episode) -> dict[str, list[str]]:
        """The declared texts and the indexed ones as str; bytes become the characters of the same numbers.

        Raises:
            UserError: one is missing, not declared, or bytes where text is declared.
        """
        wanted = {*self.texts, *self.indexed}
        _same(episode, "text", episode.texts.keys() - wanted, wanted - episode.texts.keys() - {"task"})
        given = {"task": [""] * episode.length, **episode.texts}
        return {name: _words(episode, name, given[name], self.texts.get(name)) for name in sorted(wanted)}

    def check_pictures(self, episode: Episode) -> None:
        """
        Raises:
            UserError: a camera is missing or not declared.
        """
        have, want = episode.pictures.keys(), self.pictures.keys()
        _same(episode, "camera", have - want, want - have)

    def metadata_of(self, episode: Episode) -> dict[str, Any]:
        """The declared values, arrays in the declared type.

        Raises:
            UserError: one is missing or of another type.
        """
        missing = self.metadata.keys() - episode.metadata.keys()
        _same(episode, "value", set(), missing)
        result: dict[str, Any] = {}
        for name, feature in self.metadata.items():
            value = episode.metadata[name]
            if feature.kind == "text":
                result[name] = _words(episode, name, [value], feature)[0]
                continue
            array = np.asarray(value)
            fits = array.dtype == np.dtype(feature.dtype) or not isinstance(value, np.ndarray | np.generic)
            sizes = len(array.shape) == len(feature.shape) and all(
                want in (None, have) for have, want in zip(array.shape, feature.shape, strict=True)
            )
            if not fits or not sizes:
                raise UserError(
                    f"episode {episode.id}: value '{name}' is {array.dtype} {list(array.shape)}, declared is "
                    f"{feature.dtype} {list(feature.shape)}"
                )
            result[name] = array.astype(feature.dtype)
        return result


def _check_array(what: str, feature: Feature, open_sizes: bool) -> None:
    try:
        kind = np.dtype(feature.dtype)
    except TypeError as error:
        raise UserError(f"{what} has the type {feature.dtype}, which LeRobot cannot hold") from error
    _expect(
        kind.kind in "biuf" and kind.itemsize <= 8, f"{what} has the type {feature.dtype}, which LeRobot cannot hold"
    )
    _expect(len(feature.shape) <= _MOST_AXES, f"{what} has {len(feature.shape)} axes; LeRobot holds {_MOST_AXES}")
    if not open_sizes:
        _expect(
            all(size for size in feature.shape),
            f"{what} has the shape {list(feature.shape)}; LeRobot needs sizes that are known and not 0",
        )


def _words(episode: Episode, name: str, words: Sequence[Any], feature: Feature | None) -> list[str]:
    as_bytes = feature is not None and feature.dtype == "bytes"
    wanted = "bytes" if as_bytes else "text"
    for word in words:
        if not isinstance(word, bytes if as_bytes else str):
            raise UserError(f"episode {episode.id}: '{name}' holds {type(word).__name__}, declared is {wanted}")
    return [word.decode("latin-1") for word in words] if as_bytes else list(words)


def _same(episode: Episode, what: str, extra: Any, missing: Any) -> None:
    if missing:
        raise UserError(f"episode {episode.id} lacks the {what} '{sorted(missing)[0]}', which is declared")
    if extra:
        raise UserError(f"episode {episode.id} has the {what} '{sorted(extra)[0]}', which is not declared")


def _expect(holds: bool, sentence: str) -> None:
    if not holds:
        raise UserError(sentence)
