"""A survey as a page to look at: the tables, contact sheets of some episodes, and how the actions are distributed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Pillow

from selfflow_mm.errors import UserError

from ..robot_episode import RobotEpisode
from .contact_sheet import contact_sheet
from .facts import FEATURES_HEADER, features, length_bins, problems, summary
from .instruments import ROTATION, TRANSLATION, ActionScale
from .survey import Survey
from .units import display_unit

if TYPE_CHECKING:
    from selfflow_mm.evaluation.page import Page

    from ..sources import RobotFiles

__all__ = ["scale_of", "write_report", "write_sheet"]

_BINS = 60
_FREQUENT, _PROBLEMS = 20, 300
_CURVES_TO_A_CHART = 6


def write_report(
    folder: Path,
    robot: RobotFiles,
    found: Survey,
    sheets: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, planned: None,
) -> Path:
    """Write ``index.html`` and ``episode-NNNNNN.png`` into ``folder`` and return the page's path.

    Args:
        folder: made where it is not there.
        robot, found: the data set and its survey.
        sheets: contact sheets of so many episodes, chosen at random among those that were read.
        seed: of the choice.
        progress: called with sheets done and planned.

    Raises:
        UserError: ``folder`` is a file.
    """
    from selfflow_mm.evaluation.page import Page

    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out is the file '{folder}'; a report needs a folder")
    folder.mkdir(parents=True, exist_ok=True)
    page = Page(robot.files.name, f"{robot.files.format} in `{robot.files.folder}`, split {robot.files.split}")
    page.table(summary(robot, found), ("data set", ""))
    wrong = problems(found)
    page.heading(f"Problems: {len(wrong)}" if wrong else "Problems: none found")
    if wrong:
        rows = [(f"{where}, {which}" if which else where, problem) for where, which, problem in wrong[:_PROBLEMS]]
        page.table(rows, ("where", "problem"))
        if len(wrong) > _PROBLEMS:
            page.text(f"The first {_PROBLEMS} are shown; `--json` lists all.")
    chosen = _choice(found, sheets, seed)
    if chosen:
        page.heading("Episodes")
        scale = scale_of(robot, found)
        for done, (shard, index, number) in enumerate(chosen):
            progress(done, len(chosen))
            _episode(page, folder, robot, (shard, index, number), scale, curves=done == 0)
        progress(len(chosen), len(chosen))
    _distributions(page, found)
    if any(found.instructions):
        page.heading("Instructions")
        rows = [(text or "(none)", count) for text, count in found.instructions.most_common(_FREQUENT)]
        page.table(rows, ("instruction", "episodes"))
    page.heading("Columns")
    page.table(features(robot), FEATURES_HEADER)
    page.save(folder / "index.html")
    return folder / "index.html"


def scale_of(robot: RobotFiles, found: Survey) -> ActionScale | None:
    """What a full arrow means on sheets of this data set: the 99th percentile of all actions that were read."""
    if not len(found.actions):
        return None
    what = f"{found.good:,} episode{'' if found.good == 1 else 's'} of {robot.files.name}"
    return ActionScale.of(found.actions, found.action_names, what)


def write_sheet(path: Path, sheet: Pillow.Image) -> None:
    """Write a PNG file; it appears when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    try:
        sheet.save(beside, format="PNG")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _choice(found: Survey, sheets: int, seed: int) -> list[tuple[int, int, int]]:
    picks = np.random.default_rng(seed).permutation(len(found.places))[:sheets]
    return [found.places[i] for i in sorted(picks)]


def _episode(
    page: Page,
    folder: Path,
    robot: RobotFiles,
    place: tuple[int, int, int],
    scale: ActionScale | None,
    curves: bool,
) -> None:
    shard, index, number = place
    try:
        episode = robot.read(shard, index)
        sheet = contact_sheet(episode, scale=scale)
    except UserError as error:  # a picture that only decoding finds to be broken
        page.text(f"Episode {number}: {error}")
        return
    path = folder / f"episode-{number:06d}.png"
    write_sheet(path, sheet)
    page.media(path, "image", f"Episode {number}")
    if curves:
        _curves(page, episode, number)


def _curves(page: Page, episode: RobotEpisode, number: int) -> None:
    seconds = (np.arange(len(episode)) / episode.control_rate).tolist()
    for title, names in _groups(episode.action_names):
        lines = {}
        for name in names:
            factor, _ = display_unit(name, episode.action_names)
            lines[name] = (seconds, (episode.actions[:, episode.action_names.index(name)] * factor).tolist())
        page.curve(f"Episode {number}: {title}", lines, x_label="seconds")


def _distributions(page: Page, found: Survey) -> None:
    """How often actions have which size, and episodes which length."""
    if len(found.lengths) > 1:
        page.heading("Lengths")
        bins = length_bins(found.lengths, 20)
        rows = [(str(a) if a == b else f"{a} to {b}", count, f"{count / found.good:.1%}") for a, b, count in bins]
        page.table(rows, ("steps", "episodes", "share"))
    if not len(found.actions):
        return
    page.heading("Actions")
    every = "all" if len(found.actions) == found.steps else "an even random choice of"
    page.text(
        f"Share of the steps in each of {_BINS} equal bins, over {every} {len(found.actions):,} steps of the episodes "
        "read. Bins reach from the 0.5th to the 99.5th percentile; what is beyond counts in the outermost."
    )
    for title, names in _groups(found.action_names):
        lines = {name: histogram(found.actions, found.action_names, name) for name in names}
        unit = display_unit(names[0], found.action_names)[1]
        page.curve(title, lines, x_label={"°": "degrees", "": "value"}.get(unit, unit))


def histogram(actions: np.ndarray, names: Sequence[str], name: str) -> tuple[list[float], list[float]]:
    """(middles of bins in display units, share of the finite values in each)."""
    values = actions[:, list(names).index(name)].astype(np.float64) * display_unit(name, names)[0]
    values = values[np.isfinite(values)]
    if not len(values):
        return [], []
    low, high = np.quantile(values, [0.005, 0.995])
    if low == high:
        return [float(low)], [1.0]
    counts, edges = np.histogram(np.clip(values, low, high), bins=_BINS, range=(low, high))
    return ((edges[:-1] + edges[1:]) / 2).tolist(), (counts / len(values)).tolist()


def _groups(names: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """(title, columns) of charts: translation, rotation, gripper, and the rest six to a chart."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for title, group in (("translation", TRANSLATION), ("rotation", ROTATION), ("gripper", ("gripper",))):
        if set(group) <= set(names):
            unit = display_unit(group[0], names)[1]
            per = {"cm": ", cm per step", "°": ", degrees per step"}.get(unit, "")
            found.append((f"{title}{per}", tuple(group)))
    rest = [name for name in names if not any(name in group for _, group in found)]
    for start in range(0, len(rest), _CURVES_TO_A_CHART):
        part = tuple(rest[start : start + _CURVES_TO_A_CHART])
        found.append((f"{part[0]} to {part[-1]}" if len(part) > 1 else part[0], part))
    return found
