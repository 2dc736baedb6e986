"""Episodes as lines of JSON, written as they end so that a run that was stopped can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TextIO, TypeVar

from selfflow_mm.errors import UserError

__all__ = ["RowKind", "RowsFile", "read_rows"]

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class RowKind(Generic[_Row]):
    """What the lines of a file are.

    Attributes:
        format, version: in the file's first line.
        from_dict: a line's values -> the row, a dataclass; raises KeyError, TypeError or ValueError for others.
        command: who writes such files, for messages.
    """

    format: str
    version: int
    from_dict: Callable[[Mapping[str, Any]], _Row]
    command: str


def read_rows(path: Path | str, kind: RowKind[_Row]) -> tuple[dict[str, Any], list[_Row]]:
    """Settings and rows; what was cut off while it was written is left out.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    settings, rows, _ = _parse(Path(path), kind)
    return settings, rows


class RowsFile(Generic[_Row]):
    """A file under construction: a first line with the settings, then one for each episode.

    A context manager. Every line is on the disk before :meth:`add` returns.

    Args:
        path: gone on with where it is there.
        settings: plain values (JSON) that all its episodes share.
        kind: of its lines.

    Attributes:
        done: rows that the file had already.

    Raises:
        UserError: the file has other settings, or is no such file, or cannot be written.
    """

    def __init__(self, path: Path | str, settings: Mapping[str, Any], kind: RowKind[_Row]) -> None:
        path = Path(path)
        self.done: list[_Row] = []
        settings = json.loads(json.dumps(settings))  # as they come back: tuples are lists
        try:
            if path.exists():
                there, self.done, end = _parse(path, kind)
                _same(there, settings, path)
                os.truncate(path, end)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                draft = path.with_name(f".{path.name}.tmp")
                with open(draft, "w", encoding="utf-8") as file:
                    _write(file, {"format": kind.format, "version": kind.version, "settings": settings})
                os.replace(draft, path)
            self._file = open(path, "a", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"results cannot be written to {path.parent} ({error.strerror}); name a folder that can be made"
            ) from error

    def __enter__(self) -> RowsFile[_Row]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, row: _Row) -> None:
        """Append one episode."""
        _write(self._file, asdict(row))  # type: ignore[call-overload]


def _write(file: TextIO, row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row) + "\n")
    file.flush()
    os.fsync(file.fileno())


def _parse(path: Path, kind: RowKind[_Row]) -> tuple[dict[str, Any], list[_Row], int]:
    """Settings, rows, and where the last whole line ends."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"there are no results at {path} ({error.strerror})") from error
    end = data.rfind(b"\n") + 1
    try:
        first, *rows = [json.loads(line) for line in data[:end].splitlines()]
        if first["format"] != kind.format:
            raise ValueError(first["format"])
        if first["version"] != kind.version:
            raise UserError(f"{path} has version {first['version']}; this program reads version {kind.version}")
        return first["settings"], [kind.from_dict(row) for row in rows], end
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no results of '{kind.command}' ({error})") from error


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
