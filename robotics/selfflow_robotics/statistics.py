"""What statistics of a robot data set are, and the file ``statistics.json`` that checkpoints embed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from selfflow_mm.errors import UserError

__all__ = ["FILE_NAME", "FORMAT", "VERSION", "ColumnStatistics", "Statistics", "missing_statistics"]

FORMAT = "selfflow-robot-statistics"
VERSION = 1
FILE_NAME = "statistics.json"


def missing_statistics(what: str) -> UserError:
    """The error of everybody who needs statistics and has none."""
    return UserError(f"{what}; compute them once over all frames with 'selfflow-mm robot-data stats FOLDER'")


@dataclass(frozen=True)
class ColumnStatistics:
    """Of D numbers per step, over all steps of all episodes; each tuple has D entries, in the data's raw units.

    Attributes:
        names: of the numbers.
        count: finite values that went in.
        not_finite: values that were left out because they are infinite or NaN.
        mean, std: of the population (divided by the count).
        min, max: the extremes.
        q01, q10, q50, q90, q99: quantiles, interpolated linearly (numpy's default).
        examples: where values that are not finite are, the first few: "episode_000003, step 7, roll".
    """

    names: tuple[str, ...]
    count: tuple[int, ...]
    not_finite: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]
    q01: tuple[float, ...]
    q10: tuple[float, ...]
    q50: tuple[float, ...]
    q90: tuple[float, ...]
    q99: tuple[float, ...]
    examples: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            entries = len(getattr(self, field.name))
            if field.name != "examples" and entries != len(self.names):
                raise UserError(f"the statistics have {len(self.names)} names and {entries} of '{field.name}'")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ColumnStatistics:
        missing = [field.name for field in fields(cls) if field.name not in data and field.name != "examples"]
        if missing:
            raise UserError(f"the statistics lack {', '.join(missing)}")
        return cls(**{field.name: tuple(data.get(field.name, ())) for field in fields(cls)})


@dataclass(frozen=True)
class Statistics:
    """Statistics of one data set.

    Attributes:
        dataset: its name.
        version, split, layout: of the data set, and the layout it was read with; "" where unknown.
        robots: that were seen, sorted.
        control_rates: steps per second that were seen, sorted.
        episodes, steps: that went in.
        quarantined: episodes that could not be read and are not in it.
        actions: in the house's convention, before any normalisation.
        states: None where there are none.
    """

    dataset: str
    episodes: int
    steps: int
    actions: ColumnStatistics
    states: ColumnStatistics | None = None
    version: str = ""
    split: str = ""
    layout: str = ""
    robots: tuple[str, ...] = ()
    control_rates: tuple[float, ...] = ()
    quarantined: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 of names and numbers (not of the data set's name): equal exactly when the statistics are."""
        content = {"actions": asdict(self.actions), "states": asdict(self.states) if self.states else None}
        for column in content.values():
            if column:
                del column["examples"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; numbers come back bit for bit."""
        return {"format": FORMAT, "format_version": VERSION, "digest": self.digest, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "the statistics") -> Statistics:
        """The inverse of :meth:`to_dict`.

        Raises:
            UserError: other format or version, something missing, or numbers that are not those of the digest.
        """
        if data.get("format") != FORMAT:
            raise UserError(f"{where}: the format is {data.get('format')!r}, not '{FORMAT}'")
        if data.get("format_version") != VERSION:
            raise UserError(f"{where}: version {data.get('format_version')}; this program reads version {VERSION}")
        try:
            statistics = cls(
                dataset=str(data["dataset"]),
                episodes=int(data["episodes"]),
                steps=int(data["steps"]),
                actions=ColumnStatistics.from_dict(data["actions"]),
                states=ColumnStatistics.from_dict(data["states"]) if data["states"] else None,
                version=str(data["version"]),
                split=str(data["split"]),
                layout=str(data["layout"]),
                robots=tuple(data["robots"]),
                control_rates=tuple(data["control_rates"]),
                quarantined=int(data["quarantined"]),
            )
        except KeyError as error:
            raise UserError(f"{where}: {error} is missing") from error
        if statistics.digest != data.get("digest"):
            raise UserError(f"{where}: the numbers are not those that were written (the digest differs)")
        return statistics

    def save(self, path: Path | str) -> None:
        """Write ``statistics.json``; a folder gets a file of that name. Complete or not at all."""
        path = _file(Path(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.tmp")
        with open(draft, "w", encoding="utf-8") as file:
            file.write(json.dumps(self.to_dict(), indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)

    @classmethod
    def load(cls, path: Path | str) -> Statistics:
        """Read what :meth:`save` wrote; a folder stands for its ``statistics.json``.

        Raises:
            UserError: there is no such file (the sentence says how to make it), or it cannot be understood.
        """
        path = _file(Path(path))
        if not path.is_file():
            raise missing_statistics(f"there are no statistics at {path}")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as JSON ({error})") from error
        if not isinstance(data, Mapping):
            raise UserError(f"{path} holds no statistics")
        return cls.from_dict(data, str(path))

    def to_openpi(self) -> dict[str, Any]:
        """The content of openpi's ``norm_stats.json`` (``shared/normalize.py``): keys ``state`` and ``actions``."""
        columns = {"state": self.states, "actions": self.actions}
        keys = ("mean", "std", "q01", "q99")
        return {"norm_stats": {name: _lists(column, keys) for name, column in columns.items() if column}}

    def to_openvla(self) -> dict[str, Any]:
        """The content of OpenVLA's ``dataset_statistics.json``; its ``mask`` leaves the gripper as it is."""
        keys = ("mean", "std", "max", "min", "q01", "q99")
        actions = {**_lists(self.actions, keys), "mask": [name != "gripper" for name in self.actions.names]}
        content: dict[str, Any] = {"action": actions}
        if self.states:
            content["proprio"] = _lists(self.states, keys)
        return {self.dataset: {**content, "num_transitions": self.steps, "num_trajectories": self.episodes}}

    def table(self) -> str:
        """Both tables as text for a terminal."""
        title = [part for part in (self.dataset, self.version, self.split) if part]
        lines = [f"{' '.join(title)}: {self.episodes:,} episodes, {self.steps:,} steps"]
        if self.quarantined:
            lines[0] += f", {self.quarantined:,} unreadable episodes left out"
        for what, column in (("action", self.actions), ("state", self.states)):
            if column:
                lines += ["", *_rows(what, column)]
        return "\n".join(lines)


def _file(path: Path) -> Path:
    return path / FILE_NAME if path.is_dir() else path


def _lists(column: ColumnStatistics, keys: Sequence[str]) -> dict[str, list[float]]:
    return {key: list(getattr(column, key)) for key in keys}


def _rows(what: str, column: ColumnStatistics) -> list[str]:
    keys = ("mean", "std", "min", "q01", "q50", "q99", "max")
    width = max(len(name) for name in (what, *column.names))
    rows = [f"{what:{width}}" + "".join(f"{key:>12}" for key in keys)]
    for index, name in enumerate(column.names):
        rows.append(f"{name:{width}}" + "".join(f"{getattr(column, key)[index]:12.5g}" for key in keys))
    lost = sum(column.not_finite)
    if lost:
        rows.append(f"{lost:,} values are not finite and left out: {'; '.join(column.examples)}")
    return rows
