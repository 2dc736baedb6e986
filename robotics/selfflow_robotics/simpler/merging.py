"""Shards of one evaluation, acted in several folders, into one folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from selfflow_mm.errors import UserError

from .comparing import differences
from .films import first_picture
from .results import PROVENANCE, RESULTS, SuiteRun, TrialResult, TrialsFile, write_json

__all__ = ["merge"]


def merge(folders: Sequence[Path | str], out: Path | str) -> SuiteRun:
    """Put results, films, first pictures and provenance of several folders into a new one.

    A trial that several folders have counts once; it must have come to the same in all of them. Files are linked where
    the disk can, and copied elsewhere, so the shards may be deleted afterwards. ``out`` appears when it is complete.

    Args:
        folders: that ``selfflow-mm eval-simpler`` wrote with the same settings.
        out: that does not exist, or is empty.

    Returns:
        The merged evaluation.

    Raises:
        UserError: no such results, other settings (the first is named), a trial with two outcomes, or a folder that
            cannot be written.
    """
    out = Path(out)
    places = [Path(folder) for folder in folders]
    if len({place.resolve() for place in places}) < len(places):
        raise UserError("a folder is named twice; name each shard once")
    runs = [SuiteRun.load(place) for place in places]
    if not runs:
        raise UserError("name the folders that are to be merged")
    for run in runs[1:]:
        if found := differences(runs[0].settings, run.settings):
            first = found[0]
            raise UserError(
                f"{run.folder} has {first.setting} {first.other!r} and {runs[0].folder} {first.one!r}; only shards of "
                "one evaluation are merged"
            )
    chosen = _chosen(runs)
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} is there and not empty; name a new folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = out.with_name(f".{out.name}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            _write(draft, runs, chosen)
            os.replace(draft, out)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); name a folder that can be made") from error
    return SuiteRun.load(out)


def _chosen(runs: Iterable[SuiteRun]) -> list[tuple[Path, TrialResult]]:
    """Every trial once, by number, with the folder that it is taken from: one where it was filmed, if there is one."""
    found: dict[int, tuple[Path, TrialResult]] = {}
    for run in runs:
        for row in run.rows:
            folder, known = found.setdefault(row.number, (run.folder, row))
            if _came_to(known) != _came_to(row):
                raise UserError(
                    f"trial {row.number} ({row.task}) came out otherwise in {run.folder} than in {folder}; "
                    "they are not of one evaluation"
                )
            if known.video is None and row.video is not None:
                found[row.number] = run.folder, row
    return [found[number] for number in sorted(found)]


def _came_to(row: TrialResult) -> TrialResult:
    """Without what may differ a little where a network answers in batches of another size."""
    return replace(row, stats={}, queries=0)


def _write(draft: Path, runs: Sequence[SuiteRun], chosen: Sequence[tuple[Path, TrialResult]]) -> None:
    draft.mkdir()
    with TrialsFile(draft / RESULTS, runs[0].settings) as record:
        for folder, row in chosen:
            record.add(row)
            for path in (folder / row.video if row.video else None, first_picture(folder, row.number)):
                if path is not None and path.is_file():
                    _link(path, draft / path.relative_to(folder))
    if starts := [start for run in runs for start in run.provenance.get("runs", [])]:
        write_json(draft / PROVENANCE, {"runs": starts})


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
