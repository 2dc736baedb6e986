"""A survey as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..robot_episode import ACTION_NAMES
from .facts import FEATURES_HEADER, PROBLEMS_HEADER, features, length_bins, problems, summary
from .survey import Survey

if TYPE_CHECKING:
    from ..sources import RobotFiles

__all__ = ["as_text", "table"]

_UNITS = {"x": "m", "y": "m", "z": "m", "roll": "rad", "pitch": "rad", "yaw": "rad"}
_FREQUENT = 8
_BAR = 32  # characters of the longest bar
_PROBLEMS = 40


def as_text(robot: RobotFiles, found: Survey) -> str:
    """Everything, block after block."""
    rows = summary(robot, found)
    width = max(len(what) for what, _ in rows)
    blocks = ["\n".join(f"{what:<{width}}  {value}" for what, value in rows)]
    blocks.append(_titled("columns", table(features(robot), FEATURES_HEADER)))
    if found.lengths:
        blocks.append(_lengths(found))
    if any(found.instructions):
        frequent = [(count, text or "(none)") for text, count in found.instructions.most_common(_FREQUENT)]
        blocks.append(_titled("most frequent instructions", table(frequent, ("episodes", "instruction"))))
    if found.first_actions.size:
        blocks.append(_first_actions(found))
    wrong = problems(found)
    if wrong:
        text = table(wrong[:_PROBLEMS], PROBLEMS_HEADER)
        more = f"\n  and {len(wrong) - _PROBLEMS} more (--json lists all)" if len(wrong) > _PROBLEMS else ""
        blocks.append(_titled("problems", text + more))
    else:
        blocks.append("problems: none found" + ("" if found.verified else " (--verify decodes every picture)"))
    return "\n\n".join(blocks)


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Columns flush left, those of numbers flush right, indented by two; empty columns are left out."""
    kept = [i for i in range(len(header)) if any(str(row[i]) for row in rows)]
    numeric = {i: all(isinstance(row[i], int | float) for row in rows) for i in kept}
    lines = [[header[i] for i in kept]]
    lines += [[f"{row[i]:,}" if isinstance(row[i], int) else str(row[i]) for i in kept] for row in rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(kept))]

    def padded(cell: str, place: int) -> str:
        return cell.rjust(widths[place]) if numeric[kept[place]] else cell.ljust(widths[place])

    return "\n".join(("  " + "  ".join(padded(cell, i) for i, cell in enumerate(line))).rstrip() for line in lines)


def _titled(title: str, text: str) -> str:
    return f"{title}\n{text}"


def _lengths(found: Survey) -> str:
    lengths = found.lengths
    title = f"steps of an episode: {min(lengths)} to {max(lengths)}, median {np.median(lengths):g}"
    bins = length_bins(lengths)
    most = max(count for _, _, count in bins)
    labels = [str(first) if first == last else f"{first}-{last}" for first, last, _ in bins]
    wide, digits = max(map(len, labels)), len(f"{most:,}")
    lines = [
        f"  {label:>{wide}}  {count:>{digits},}  {'█' * round(_BAR * count / most) or ('▏' if count else '')}".rstrip()
        for label, (_, _, count) in zip(labels, bins, strict=True)
    ]
    return _titled(title, "\n".join(lines))


def _first_actions(found: Survey) -> str:
    house = found.action_names == ACTION_NAMES
    titles = [f"{name} {_UNITS[name]}" if house and name in _UNITS else name for name in found.action_names]
    rows = [(step, *(f"{value:+.4f}" for value in row)) for step, row in enumerate(found.first_actions)]
    per = "first actions, per step; gripper 1 open, 0 closed" if house else "first actions"
    return _titled(f"{per} (episode {found.places[0][2]})", table(rows, ("step", *titles)))
