"""A suite's results for a terminal, for machines and as a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from selfflow_mm.data.reading import read_media
from selfflow_mm.errors import UserError
from selfflow_mm.evaluation.page import Card, Page, film_strip

from ..look.tables import table
from ..rollouts.film import outcome
from ..rollouts.report import flat, plain_text
from .arrangements import Trial
from .films import first_picture
from .published import SIMPLER_SOURCE
from .results import FORMAT, VERSION, SuiteRun, TrialResult, write_json
from .scoreboard import SCOREBOARD_HEADER, scoreboard, task_table
from .summary import Line, MeanLine, Summary, setting_of, summarise
from .wall import wall

__all__ = ["PAGE", "SUMMARY", "LostTrial", "as_text", "read_lost", "write_page", "write_report", "write_summary"]

SUMMARY, PAGE = "summary.json", "report.html"
_TASKS = ("task", "episodes", "successes", "share", "95 % interval", "at any step", "mean steps")
_VARIANTS = ("task", "variant", *_TASKS[1:])
_MEANS = ("mean", "episodes", "share", "95 % interval")
_LOST = ("trial", "task", "reason")
_ON_THE_WALL = 144  # pictures, so that a page of a whole suite stays small
_ENVIRONMENTS = {
    "simpler": ("SIMPLER", "Closed-loop episodes in SIMPLER, counted as its evaluator counts them."),
    "tabletop": (
        "Tabletop",
        "Closed-loop episodes on the tabletop, a test bed: success here says that a policy works, not that it is good.",
    ),
    "dream": (
        "Dream",
        "Episodes in the imagination of a world model: what they say of a robot is no better than that model.",
    ),
}


@dataclass(frozen=True)
class LostTrial:
    """A trial that has no result: its number and task, and why it was given up."""

    number: int
    task: str
    reason: str

    @classmethod
    def of(cls, trial: Trial, reason: str) -> LostTrial:
        """Of a trial that was given up."""
        return cls(trial.number, trial.arrangement.task, reason)


def as_text(summary: Summary, lost: Sequence[LostTrial] = ()) -> str:
    """Tables: success per task, and the means."""
    blocks = []
    for group in summary.groups:
        blocks.append(f"{group.name}\n" + table([_task_row(line) for line in group.tasks], _TASKS))
        if group.means:
            blocks.append(table([_mean_row(mean) for mean in group.means], _MEANS))
    if lost:
        blocks.append("given up, and not counted:\n" + table([(t.number, t.task, t.reason) for t in lost], _LOST))
    return "\n\n".join(blocks)


def write_summary(
    path: Path, run: SuiteRun, summary: Summary, deviations: Sequence[str] = (), lost: Sequence[LostTrial] = ()
) -> None:
    """``summary.json``: settings, deviations from the official protocol, and for every group its tasks, variants and
    means; beside them the trials that were given up."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "settings": run.settings,
        "episodes": len(run.rows),
        "deviations": list(deviations),
        "lost": [asdict(trial) for trial in lost],
        "groups": [asdict(group) for group in summary.groups],
    }
    write_json(path, content)


def read_lost(folder: Path) -> tuple[LostTrial, ...]:
    """Trials that were given up, as a folder's ``summary.json`` has them; none where there is no such file.

    Raises:
        UserError: the file is no such summary.
    """
    path = folder / SUMMARY
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise ValueError(f"{content['format']} {content['version']}")
        return tuple(LostTrial(**trial) for trial in content["lost"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no summary of 'selfflow-mm eval-simpler' ({error})") from error


def write_report(run: SuiteRun, deviations: Sequence[str] = (), lost: Sequence[LostTrial] = ()) -> Summary:
    """Summarise a run and write ``summary.json`` and ``report.html`` into its folder.

    Args:
        run: the folder as it stands.
        deviations: from the official protocol, a sentence each.
        lost: trials that were given up; those that have a row by now are left out.
    """
    rows = {row.number for row in run.rows}
    lost = [trial for trial in lost if trial.number not in rows]
    summary = summarise(run.rows, run.settings["suite"])
    write_summary(run.folder / SUMMARY, run, summary, deviations, lost)
    write_page(run.folder / PAGE, run, summary, deviations, lost)
    return summary


def write_page(
    path: Path, run: SuiteRun, summary: Summary, deviations: Sequence[str] = (), lost: Sequence[LostTrial] = ()
) -> None:
    """``report.html``: success with intervals, what others published, deviations, films, settings, provenance."""
    title, subtitle = _ENVIRONMENTS[run.settings["environment"]]
    page = Page(f"{title}: {run.name()}", subtitle)
    _success(page, run, summary)
    if lost:
        page.heading("Given up")
        page.text("These trials were lost with the simulator as often as they were begun. They are in no figure above.")
        page.table([(trial.number, trial.task, trial.reason) for trial in lost], _LOST)
    _beside_others(page, run, summary, deviations)
    if deviations or run.settings["environment"] == "simpler":
        page.heading("Deviations from the official protocol")
        page.text("\n\n".join(f"• {sentence}" for sentence in deviations) or "None is known.")
    _pictures(page, run)
    page.heading("Settings")
    page.table([(name, plain_text(value)) for name, value in flat(run.settings)], ("setting", "value"))
    if starts := run.provenance.get("runs", []):
        page.heading("Provenance")
        page.text("Every start of the command that added episodes.")
        rows = [(n, name, plain_text(value)) for n, start in enumerate(starts, 1) for name, value in flat(start)]
        page.table(rows, ("start", "what", "value"))
    page.save(path)


def _success(page: Page, run: SuiteRun, summary: Summary) -> None:
    page.heading("Success")
    page.text(
        "Success is what is true at the last step, the official count; `at any step` counts episodes whose aim was "
        "reached at some time. Intervals are at 95 %: Wilson's for a task; for a mean of tasks each task's variance is "
        "recovered from its Wilson limits (Zou and Donner 2008)."
    )
    if not summary.groups:
        page.text("No episode has ended yet.")
    for group in summary.groups:
        if len(summary.groups) > 1 or group.name != run.settings["suite"]:
            page.text(f"{group.name[:1].upper()}{group.name[1:]}:")
        page.table([_task_row(line) for line in group.tasks], _TASKS)
        if group.means:
            page.table([_mean_row(mean) for mean in group.means], _MEANS)
    for group in summary.groups:
        if len(group.variants) > len(group.tasks):
            page.heading(f"Per variant: {group.name}")
            page.table([(line.task, line.variant, *_task_row(line)[1:]) for line in group.variants], _VARIANTS)


def _beside_others(page: Page, run: SuiteRun, summary: Summary, deviations: Sequence[str]) -> None:
    rows = scoreboard(run, summary)
    tables = [(group.name, *task_table(run, group)) for group in summary.groups]
    tables = [each for each in tables if each[1]]
    if not rows and not tables:
        return
    page.heading("Beside published figures")
    several = f"in {len(deviations)} points, see below" if len(deviations) > 1 else "in one point, see below"
    page.text(
        "Others' figures are as they published them: other checkpoints and seeds, mostly without an interval. "
        + (f"This run deviates from the official protocol {several}." if deviations else "")
    )
    if rows:
        page.table(rows, SCOREBOARD_HEADER)
    for name, lines, header in tables:
        page.text(f"Per task, {name}; others from {SIMPLER_SOURCE}:")
        page.table(lines, header)


def _pictures(page: Page, run: SuiteRun) -> None:
    if cards := list(_cards(run)):
        page.heading("Films")
        page.cards(cards)
    first = [(first_picture(run.folder, row.number), row.success) for row in run.rows]
    if there := [(path, success) for path, success in first if path.is_file()]:
        few = there[:: -(-len(there) // _ON_THE_WALL)]
        page.heading("First pictures")
        try:
            picture = wall(few)
        except OSError as error:  # one that is damaged must not cost the report
            page.text(f"They cannot be shown: {error}")
            return
        what = f"What {len(few)} of {len(run.rows)} episodes began with"
        page.media(picture, "image", f"{what}, in order: framed in blue where they succeeded, in vermilion where not.")


def _cards(run: SuiteRun) -> Iterator[Card]:
    for row in run.rows:
        path = run.folder / row.video if row.video else None
        if path is not None and path.is_file():
            yield Card(", then ".join(row.instructions), media=path, pictures=tuple(_strip(path)), details=_facts(row))


def _facts(row: TrialResult) -> dict[str, Any]:
    facts = {
        "outcome": outcome(row.success, row.success_any, row.steps),
        "setting": setting_of(row),
        "task": row.task,
        "variant": row.variant,
        "part": row.part,
        "trial": row.number,
    }
    return {name: value for name, value in facts.items() if value != ""}


def _strip(path: Path) -> Iterable[Pillow.Image]:
    try:
        video = read_media(path).video
    except UserError:  # a film that does not decode keeps its card
        return
    if video is not None:
        yield film_strip(video, n=6)


def _task_row(line: Line) -> tuple[Any, ...]:
    return (
        line.task,
        line.episodes,
        line.successes,
        f"{line.share:.1%}",
        f"{line.low:.1%} to {line.high:.1%}",
        line.successes_any,
        f"{line.steps:.1f}",
    )


def _mean_row(mean: MeanLine) -> tuple[Any, ...]:
    return (mean.name, mean.episodes, f"{mean.share:.1%}", f"{mean.low:.1%} to {mean.high:.1%}")
