"""What is kept of an episode to look at: its first picture always, its film where it was filmed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from ..episode import RawPictures
from ..look.film import FilmOptions, play
from ..robot_episode import GRIPPER, RobotEpisode
from ..rollouts.film import outcome
from .arrangements import Trial, evenly
from .runner import Acted

__all__ = ["FILMS", "FIRST", "filmed_numbers", "first_picture", "write_film", "write_first_picture"]

FILMS, FIRST = "films", "first"
_QUALITY = 95


def filmed_numbers(trials: Sequence[Trial], per_task: int) -> set[int]:
    """Numbers of the trials to be filmed: so many of each task, evenly spread over its variants."""
    tasks = dict.fromkeys(trial.arrangement.task for trial in trials)
    if not per_task:
        return set()
    return {t.number for task in tasks for t in evenly([t for t in trials if t.arrangement.task == task], per_task)}


def first_picture(folder: Path, number: int) -> Path:
    """Where the first picture of a trial lies."""
    return folder / FIRST / f"{number:05d}.jpg"


def write_first_picture(folder: Path, acted: Acted) -> None:
    """Keep what the robot saw before it did anything: ``first/NUMBER.jpg``."""
    path = first_picture(folder, acted.trial.number)
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    Pillow.fromarray(acted.first).save(draft, "JPEG", quality=_QUALITY, subsampling=0)
    os.replace(draft, path)


def write_film(folder: Path, acted: Acted) -> str:
    """``films/TASK-NUMBER.mp4``, a frame per step, with instruction, outcome and every action over time.

    After the last action, which has the picture of what came of it, nothing moves; "done" marks success.

    Returns:
        The film's path relative to ``folder``.
    """
    assert acted.frames is not None
    result, arrangement = acted.result, acted.trial.arrangement
    last = np.zeros((1, acted.actions.shape[1]), np.float32)
    last[0, GRIPPER] = acted.actions[-1, GRIPPER]
    terminate = np.zeros(len(acted.frames), bool)
    terminate[-1] = result.success
    said = ", then ".join(result.instructions)
    episode = RobotEpisode(
        id=" ".join(filter(None, [f"trial {result.number}:", arrangement.task, arrangement.variant, arrangement.part])),
        robot=arrangement.robot,
        control_rate=float(arrangement.control_rate),
        actions=np.concatenate([acted.actions, last]),
        states=np.zeros((len(acted.frames), 0), np.float32),
        images={"camera": RawPictures(acted.frames)},
        instruction=f"{said}: {outcome(result.success, result.success_any, result.steps)}",
        terminate=terminate,
    )
    name = f"{FILMS}/{arrangement.task}-{result.number:05d}.mp4"
    play(folder / name, [episode], FilmOptions(crf=20))
    return name
