"""What a survey found as rows of tables and as plain data for machines; texts and pages are made of these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..episode import Feature
from ..files import BadEpisode
from .survey import Survey
from .units import bytes_text, duration_text

if TYPE_CHECKING:
    from ..sources import RobotFiles

Row = tuple[Any, ...]
FEATURES_HEADER = ("name", "kind", "shape", "type", "encoding", "taken for")
PROBLEMS_HEADER = ("where", "episodes", "problem")


def summary(robot: RobotFiles, found: Survey) -> list[tuple[str, str]]:
    """(what, value) about the data set as a whole."""
    files = robot.files
    version = files.description.get("version") or files.description.get("codebase_version") or "not stated"
    cameras = [f"{name} {_size_text(size)}" for name, size in found.cameras.items()]
    rows = [
        ("name", f"{files.name}, version {version}"),
        ("format", files.format),
        ("folder", f"{files.folder} ({found.size[1]:,} files, {bytes_text(found.size[0])})"),
        ("splits", ", ".join(_split_text(name, count, found) for name, count in files.splits.items()) or "none stated"),
        ("split looked at", f"{files.split}: {found.stated:,} episodes in {_plural(len(files.shards), 'shard')}"),
        ("layout", robot.layout.name),
        ("robot", found.robot or robot.layout.robot or "not stated"),
        ("control rate", f"{found.control_rate:g} Hz" if found.control_rate else "not known"),
        ("read", _read_text(found)),
        ("steps", _steps_text(found)),
        ("cameras", ", ".join(cameras) or "none"),
        ("instructions", _instructions_text(found)),
    ]
    rows += [("note", note) for note in files.notes]
    if found.sounding:
        rows.append(("sound", f"in {found.sounding:,} of {found.good:,} episodes"))
    return rows


def features(robot: RobotFiles) -> list[Row]:
    """Columns in the data set's order, then values of whole episodes; see ``FEATURES_HEADER``."""
    uses = robot.layout.uses()
    rows = [_feature(name, feature, uses, "") for name, feature in robot.files.features.items()]
    return rows + [_feature(n, f, uses, " (per episode)") for n, f in robot.files.metadata_features.items()]


def length_bins(lengths: Sequence[int], most: int = 10) -> list[tuple[int, int, int]]:
    """(first length, last length, episodes) of at most ``most`` equal ranges of whole numbers that cover all."""
    if not lengths:
        return []
    low, high = min(lengths), max(lengths)
    width = -(-(high - low + 1) // most)
    starts = range(low, high + 1, width)
    counts = np.bincount((np.asarray(lengths) - low) // width, minlength=len(starts))
    return [(start, min(start + width - 1, high), int(count)) for start, count in zip(starts, counts, strict=True)]


def problems(found: Survey) -> list[Row]:
    """What is wrong, see ``PROBLEMS_HEADER``; episodes of one shard with one reason share a row."""
    rows: list[Row] = [(f"split {name}", "", reason) for name, reason in found.absent_splits.items()]
    if found.stated == 0:
        rows.append(("the split", "", "it has no episodes"))
    rows += [(name, "all", "the shard is not there") for name in found.missing]
    rows += [(shard, "", f"it holds {real} episodes, {stated} are stated") for shard, stated, real in found.miscounted]
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for bad in found.bad:
        groups[bad.shard, bad.reason].append(bad.index)
    rows += [(shard, ranges(indices), reason) for (shard, reason), indices in groups.items()]
    rows += [(name, "", "its actions or states hold numbers that are not finite") for name in found.not_finite]
    return rows


def as_data(robot: RobotFiles, found: Survey) -> dict[str, Any]:
    """The survey for machines: numbers, strings, lists and mappings only (docs/robot-data.md lists the keys)."""
    files = robot.files
    lengths = found.lengths
    keys = [title.replace(" ", "_") for title in FEATURES_HEADER]
    return {
        "name": files.name,
        "format": files.format,
        "folder": str(files.folder),
        "files": found.size[1],
        "bytes": found.size[0],
        "split": files.split,
        "splits": dict(files.splits),
        "episodes": found.stated,
        "shards": len(files.shards),
        "layout": robot.layout.name,
        "robot": found.robot,
        "control_rate": found.control_rate,
        "read": {"episodes": found.tried, "good": found.good, "all": found.complete, "verified": found.verified},
        "steps": found.steps,
        "lengths": {"min": min(lengths), "median": float(np.median(lengths)), "max": max(lengths)} if lengths else None,
        "cameras": {name: list(size) if size else None for name, size in found.cameras.items()},
        "instructions": dict(found.instructions.most_common()),
        "action_names": list(found.action_names),
        "first_actions": [[_number(value) for value in row] for row in found.first_actions],
        "features": [dict(zip(keys, row, strict=True)) for row in features(robot)],
        "problems": {
            "damaged": found.damaged,
            "bad_episodes": [_bad(bad) for bad in found.bad],
            "missing_shards": found.missing,
            "miscounted_shards": [{"shard": s, "stated": n, "found": m} for s, n, m in found.miscounted],
            "not_finite": found.not_finite,
            "absent_splits": found.absent_splits,
        },
    }


def ranges(numbers: Iterable[int]) -> str:
    """``0-4, 7, 9-11``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def _feature(name: str, feature: Feature, uses: dict[str, str], note: str) -> Row:
    shape = " x ".join("?" if size is None else str(size) for size in feature.shape) or "scalar"
    return name, f"{feature.kind}{note}", shape, feature.dtype, feature.encoding, uses.get(name, "unused")


def _split_text(name: str, count: int, found: Survey) -> str:
    return f"{name} {count:,}{' (not all there)' if name in found.absent_splits else ''}"


def _read_text(found: Survey) -> str:
    how = ", every picture decoded" if found.verified else ""
    if found.complete:
        text = f"all {_plural(found.tried, 'episode')}{' that are there' if found.missing else ''}{how}"
    else:
        text = f"the first {found.tried:,} of {found.stated:,} episodes (--all reads everything)"
    return f"{text}; {len(found.bad):,} cannot be read" if found.bad else text


def _steps_text(found: Survey) -> str:
    if not found.lengths:
        return "0"
    text = f"{found.steps:,} in the episodes read"
    if found.control_rate:
        text += f", {duration_text(found.steps / found.control_rate)}"
    if not found.complete:
        whole = found.steps / found.good * found.stated
        text += f"; in all episodes about {whole:,.0f}"
        text += f", {duration_text(whole / found.control_rate)}" if found.control_rate else ""
    return text


def _instructions_text(found: Survey) -> str:
    told = sum(1 for text in found.instructions if text)
    without = found.instructions.get("", 0)
    return f"{told:,} different" + (f", {without:,} episodes without" if without else "")


def _size_text(size: tuple[int, int] | None) -> str:
    return f"{size[1]} x {size[0]}" if size else "(does not decode)"


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None  # JSON has no nan


def _bad(bad: BadEpisode) -> dict[str, Any]:
    return {"shard": bad.shard, "index": bad.index, "reason": bad.reason}
