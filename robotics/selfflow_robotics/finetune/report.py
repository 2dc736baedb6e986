"""The page of a fine-tuning run: how it went, what it predicts of held-out episodes, and how far off it is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from selfflow_mm.data.reading import read_media
from selfflow_mm.evaluation.page import Card, Page, film_strip
from selfflow_mm.training.report import add_configuration, add_curves, add_warnings
from selfflow_mm.training.run_folder import read_log

from .config import FinetuneConfig

__all__ = ["OFFLINE_FILE", "write_robot_report"]

OFFLINE_FILE = "offline.json"


def write_robot_report(run: Path, config: FinetuneConfig, title: str) -> Path:
    """Write ``report.html`` into the run's folder from its log, its newest films and its metrics."""
    lines = read_log(run)
    shares = ", ".join(f"{name} {config.tasks[name]:g}" for name in config.trained)
    page = Page(title, f"{config.objective.name}, {config.run.steps} steps, seed {config.run.seed}; tasks: {shares}")
    if lines:
        last = lines[-1]
        page.text(f"{last['step']} of {config.run.steps} steps in {last['seconds'] / 60:.1f} minutes of work.")
    folders = sorted((run / "samples").glob("step-*"))
    measured = [run / OFFLINE_FILE, *(folder / OFFLINE_FILE for folder in reversed(folders))]
    newest = next((path for path in measured if path.is_file()), None)
    if newest is not None:
        _metrics(page, json.loads(newest.read_text(encoding="utf-8")))
    if folders and (films := sorted(folders[-1].glob("world-*.mp4"))):
        page.heading("Held-out clips: truth above, imagined from the first picture and the actions below")
        page.cards([_card(film) for film in films])
    add_warnings(page, run)
    add_curves(page, lines)
    add_configuration(page, config)
    path = run / "report.html"
    page.save(path)
    return path


def _metrics(page: Page, found: dict[str, Any]) -> None:
    page.heading(f"Held-out episodes: {found['windows']} windows of {found['episodes']} episodes")
    if actions := found.get("actions"):
        names = list(actions["model"]["mae"])
        rows = [
            [name, *(actions[what]["mae"][name] for what in ("model", "mean_action", "no_motion"))] for name in names
        ]
        page.text("Mean absolute error of actions in real units (metres, radians, opening).")
        page.table(rows, ["", "model", "mean action", "no motion"])
        if "gripper_accuracy" in actions:
            page.text(
                f"Gripper open or closed as it should be: {actions['gripper_accuracy']:.1%} of steps; always the more "
                f"frequent of the two: {actions['gripper_majority']:.1%}."
            )
    if video := found.get("video"):
        # Runs that were begun before the names said "at" have h.
        known = [match for name in video if (match := re.fullmatch(r"psnr_rgb_(at|h)(\d+)_(openloop|joint)", name))]
        horizons = sorted(int(match[2]) for match in known)
        at, protocol = (known[0][1], known[0][3]) if known else ("at", "openloop")
        curves = {
            "model": [video[f"psnr_rgb_{at}{h}_{protocol}"] for h in horizons],
            "present picture held still": [video[f"psnr_rgb_{at}{h}_copy_present"] for h in horizons],
        }
        page.curve(
            "PSNR in dB after each action of a chunk, without re-anchoring",
            {name: (horizons, values) for name, values in curves.items()},
            x_label="actions",
        )


def _card(film: Path) -> Card:
    media = read_media(film)
    pictures = (film_strip(media.video, height=192),) if media.video is not None else ()
    return Card(film.stem, film.read_bytes(), "video", pictures)
