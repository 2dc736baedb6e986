"""What episodes came to on the tabletop, one line of JSON each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .rows import RowKind, RowsFile, read_rows

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


_KIND = RowKind(FORMAT, VERSION, EpisodeResult.from_dict, "selfflow-mm rollout")


def read_results(path: Path | str) -> tuple[dict[str, Any], list[EpisodeResult]]:
    """Settings and episodes of a ``results.jsonl``, see :func:`.rows.read_rows`."""
    return read_rows(path, _KIND)


class ResultsFile(RowsFile[EpisodeResult]):
    """``results.jsonl`` under construction, see :class:`.rows.RowsFile`."""

    def __init__(self, path: Path | str, settings: Mapping[str, Any]) -> None:
        super().__init__(path, settings, _KIND)
