"""What a suite's episodes came to: ``results.jsonl``, a line per episode, on the disk before the next one begins."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from selfflow_mm.errors import UserError

from ..rollouts.rows import RowKind, RowsFile, read_rows
from .arrangements import Trial

__all__ = ["PROVENANCE", "RESULTS", "SuiteRun", "TrialResult", "TrialsFile", "described", "write_json"]

FORMAT, VERSION = "selfflow-simpler", 1
RESULTS, PROVENANCE = "results.jsonl", "provenance.json"


@dataclass(frozen=True)
class TrialResult:
    """One episode.

    Attributes:
        number: of the trial in its suite.
        repeat: of the same start, from 0.
        task, variant, part: of its arrangement (:class:`selfflow_robotics.simpler.arrangements.Arrangement`).
        environment: its gymnasium id.
        start: where robot and objects began: ``robot`` (x, y), ``yaw``, ``objects`` (x, y) or None, ``episode`` or
            None.
        seed: of the policy's noise in this episode.
        environment_seed: that the environment was reset with.
        steps: control steps.
        success: at the last step: the official count.
        success_any: at any step.
        terminated: did the policy end the episode, and not the limit?
        instructions: that were given, in order.
        queries: chunks that were asked for.
        stats: what the simulator says of the episode (``info["episode_stats"]``), numbers and truths.
        video: its film, relative to the folder of the results; None if not filmed. Like all that follows, no part of
            equality.
        seconds: of wall time, other episodes going on beside it.
        simulator_seconds: of these, what the simulator itself took to reset and to step.
        attempts: 1, or how many times it was begun because the simulator was lost.
    """

    number: int
    repeat: int
    task: str
    variant: str
    part: str
    environment: str
    start: dict[str, Any]
    seed: int
    environment_seed: int
    steps: int
    success: bool
    success_any: bool
    terminated: bool
    instructions: tuple[str, ...]
    queries: int
    stats: dict[str, Any]
    video: str | None = field(compare=False)
    seconds: float = field(compare=False)
    simulator_seconds: float = field(compare=False)
    attempts: int = field(compare=False)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> TrialResult:
        """The inverse of ``asdict``."""
        values = {field.name: row[field.name] for field in fields(cls)}
        return cls(**{**values, "instructions": tuple(values["instructions"])})


def described(trial: Trial) -> dict[str, Any]:
    """The fields of a :class:`TrialResult` that say which trial it is."""
    arrangement, start = trial.arrangement, trial.start
    return {
        "number": trial.number,
        "repeat": trial.repeat,
        "task": arrangement.task,
        "variant": arrangement.variant,
        "part": arrangement.part,
        "environment": arrangement.environment,
        "start": {
            "robot": list(start.robot),
            "yaw": start.yaw,
            "objects": None if start.objects is None else list(start.objects),
            "episode": start.episode,
        },
    }


_KIND = RowKind(FORMAT, VERSION, TrialResult.from_dict, "selfflow-mm eval-simpler")


class TrialsFile(RowsFile[TrialResult]):
    """``results.jsonl`` under construction, see :class:`selfflow_robotics.rollouts.rows.RowsFile`."""

    def __init__(self, path: Path | str, settings: Mapping[str, Any]) -> None:
        super().__init__(path, settings, _KIND)


@dataclass(frozen=True)
class SuiteRun:
    """A folder that ``selfflow-mm eval-simpler`` wrote.

    Attributes:
        folder: where it lies.
        settings: all that a result depends on: ``environment`` (simpler, tabletop or dream), ``suite``, ``seed``,
            ``policy``, ``acting``, ``conventions``, ``simulator``.
        rows: its episodes, by number and repeat, none twice.
        provenance: who ran it when with which versions: ``{"runs": [...]}``; empty if there is none.
    """

    folder: Path
    settings: dict[str, Any]
    rows: list[TrialResult]
    provenance: dict[str, Any]

    @classmethod
    def load(cls, folder: Path | str) -> SuiteRun:
        """Read a folder.

        Raises:
            UserError: it holds no such results.
        """
        folder = Path(folder)
        settings, rows = read_rows(folder / RESULTS, _KIND)
        rows = sorted({row.number: row for row in rows}.values(), key=lambda row: row.number)
        try:
            provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            provenance = {}
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / PROVENANCE} cannot be read ({error})") from error
        return cls(folder, settings, rows, provenance)

    def name(self) -> str:
        """Of its policy."""
        return str(self.settings["policy"]["name"])


def write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write beside and rename into place."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)
