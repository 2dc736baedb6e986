"""What episodes came to, one line of JSON each, written as they end so that a run that was stopped can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from selfflow_mm.errors import UserError

__all__ = ["FORMAT", "VERSION", "EpisodeResult", "ResultsFile", "read_results"]

FORMAT, VERSION = "selfflow-rollout", 1


@dataclass(frozen=True)
class EpisodeResult:
    """One episode.

    Attributes:
        task: its name.
        episode: its number; with the seed it decides scene and policy noise.
        layout: of the scene, as the environment's option ``episode`` takes it.
        steps: control steps.
        success: at the last step: the official count.
        success_any: at any step.
        instructions: that were given, in order.
        queries: chunks that were asked for.
        seconds: of wall time, other episodes going on beside it; not part of equality.
    """

    task: str
    episode: int
    layout: int
    steps: int
    success: bool
    success_any: bool
    instructions: tuple[str, ...]
    queries: int
    seconds: float = field(compare=False)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> EpisodeResult:
        """The inverse of ``asdict``."""
        values = {field.name: row[field.name] for field in fields(cls)}
        return cls(**{**values, "instructions": tuple(values["instructions"])})


def read_results(path: Path | str) -> tuple[dict[str, Any], list[EpisodeResult]]:
    """Settings and episodes of a ``results.jsonl``; what was cut off while it was written is left out.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    settings, rows, _ = _parse(Path(path))
    return settings, rows


class ResultsFile:
    """``results.jsonl`` under construction: a first line with the settings, then one for each episode.

    A context manager. Every line is on the disk before :meth:`add` returns.

    Args:
        path: gone on with where it is there.
        settings: plain values (JSON) that all its episodes share.

    Attributes:
        done: episodes that the file had already.

    Raises:
        UserError: the file has other settings, or is no such file, or cannot be written.
    """

    def __init__(self, path: Path | str, settings: Mapping[str, Any]) -> None:
        path = Path(path)
        self.done: list[EpisodeResult] = []
        settings = json.loads(json.dumps(settings))  # as they come back: tuples are lists
        try:
            if path.exists():
                there, self.done, end = _parse(path)
                _same(there, settings, path)
                os.truncate(path, end)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                draft = path.with_name(f".{path.name}.tmp")
                with open(draft, "w", encoding="utf-8") as file:
                    _write(file, {"format": FORMAT, "version": VERSION, "settings": settings})
                os.replace(draft, path)
            self._file = open(path, "a", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"results cannot be written to {path.parent} ({error.strerror}); name a folder that can be made"
            ) from error

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, result: EpisodeResult) -> None:
        """Append one episode."""
        _write(self._file, asdict(result))


def _write(file: TextIO, row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row) + "\n")
    file.flush()
    os.fsync(file.fileno())


def _parse(path: Path) -> tuple[dict[str, Any], list[EpisodeResult], int]:
    """Settings, episodes, and where the last whole line ends."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"there are no results at {path} ({error.strerror})") from error
    end = data.rfind(b"\n") + 1
    try:
        first, *rows = [json.loads(line) for line in data[:end].splitlines()]
        if first["format"] != FORMAT:
            raise ValueError(first["format"])
        if first["version"] != VERSION:
            raise UserError(f"{path} has version {first['version']}; this program reads version {VERSION}")
        return first["settings"], [EpisodeResult.from_dict(row) for row in rows], end
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no results of 'selfflow-mm rollout' ({error})") from error


def _same(there: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> None:
    for name in dict.fromkeys([*there, *settings]):
        old, new = there.get(name), settings.get(name)
        if old != new:
            name, old, new = _difference(name, old, new)
            raise UserError(
                f"{path} has episodes with {name} {old!r}, and now it is {new!r}; "
                "take another folder, or start anew with --overwrite"
            )


def _difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """Full name and values of the first setting inside of two that differ."""
    while isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in [*old, *new] if old.get(key) != new.get(key))
        name, old, new = f"{name}.{key}", old.get(key), new.get(key)
    return name, old, new
