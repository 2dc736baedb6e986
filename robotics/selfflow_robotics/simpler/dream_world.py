"""A world model as a worker's world: the trials of a suite, imagined from their first pictures.

A policy that is evaluated in a simulator and in dreams of the same trials tells what the world model is worth, and a
world model of known worth tells of policies without a simulator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from selfflow_mm.errors import UserError

from ..interfaces import WorldModel
from ..policies.seeds import derived_seed
from ..report_card.imagined_episodes import Judge
from ..report_card.success import task_of
from ..resizing import resize
from .arrangements import Trial
from .films import first_picture
from .results import SuiteRun
from .tabletop_world import TabletopWorld
from .worker import World

__all__ = ["DreamWorld", "judged", "starts_of_run", "tabletop_start"]

#: What a trial's start message leads to: the first picture ``(H, W, 3)`` uint8, and the instruction.
FindStart = Callable[[Mapping[str, Any]], tuple[np.ndarray, str]]


class DreamWorld(World):
    """Trials imagined by a world model; success is what a judge sees in its pictures.

    The hand's place is not known in a dream, nor does a second instruction come.

    Args:
        model: that imagines; it takes the house's actions.
        judges: task (by the instruction's first word, :func:`selfflow_robotics.report_card.success.task_of`) -> judge.
        find_start: first picture and instruction of a trial.
        steps, context_level: of the world model, see :meth:`selfflow_robotics.interfaces.WorldModel.imagine`.
    """

    def __init__(
        self,
        model: WorldModel,
        judges: Mapping[str, Judge],
        find_start: FindStart,
        steps: int | None = None,
        context_level: float | None = None,
    ) -> None:
        self._model, self._judges, self._find_start = model, judges, find_start
        self._how: dict[str, Any] = {"steps": steps, "context_level": context_level}

    def start(self, trial: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        image, self._prompt_now = self._find_start(trial)
        about = self._model.about
        self._first = self._now = resize(image, (about.height, about.width), about.fit)
        self._judge = self._judges[str(task_of(self._prompt_now))]
        self._seed, self._limit = trial["seed"], trial["limit"]
        self._filmed, self._until = trial["filmed"], trial["until"]
        self._steps, self._success, self._ever = 0, False, False
        return self._told(self._first[None], False, began)

    def carry_out(self, actions: np.ndarray, terminate: np.ndarray | None) -> dict[str, Any]:
        began = time.perf_counter()
        actions = actions[: self._limit - self._steps]
        terminated = terminate is not None and bool(terminate[: len(actions)].any())
        if terminated:
            assert terminate is not None
            actions = actions[: int(np.argmax(terminate)) + 1]
        seed = derived_seed("imagined step", self._seed, self._steps)
        asked = actions[None].astype(np.float32)
        film = self._model.imagine(self._now[None], asked, [self._prompt_now], seeds=[seed], **self._how)[0]
        seen = self._judge.done(self._first, film)
        if self._until == "success" and seen.any():
            film, seen = film[: int(np.argmax(seen)) + 1], seen[: int(np.argmax(seen)) + 1]
        self._now = film[-1]
        self._steps += len(film)
        self._success, self._ever = bool(seen[-1]), self._ever or bool(seen.any())
        over = terminated or self._steps >= self._limit or (self._success and self._until == "success")
        return self._told(film, over, began, terminated)

    def close(self) -> None:
        pass

    def _told(self, film: np.ndarray, over: bool, began: float, terminated: bool = False) -> dict[str, Any]:
        moment = {
            "image": self._now,
            "prompt": self._prompt_now,
            "tcp_pose": None,
            "base_pose": None,
            "gripper_closed": None,
            "steps": self._steps,
            "success": self._success,
            "success_any": self._ever,
            "over": over,
            "terminated": terminated,
            "instructions": [self._prompt_now],
            "stats": {},
            "seconds": time.perf_counter() - began,
        }
        return moment | ({"frames": film} if self._filmed else {})


def tabletop_start(trial: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """Of a trial of the tabletop's suites: the simulation's own first picture."""
    world = TabletopWorld()
    moment = world.start({**trial, "filmed": False})
    world.close()
    return moment["image"], moment["prompt"]


def starts_of_run(folder: Path | str) -> FindStart:
    """Of the trials of a run in a simulator: its first pictures and instructions.

    Raises:
        UserError: no such run; at a trial that it has not acted.
    """
    run = SuiteRun.load(folder)
    rows = {row.number: row for row in run.rows}

    def find(trial: Mapping[str, Any]) -> tuple[np.ndarray, str]:
        number = trial["number"]
        path = first_picture(run.folder, number)
        if number not in rows or not path.exists():
            raise UserError(f"{run.folder} has no trial {number} with a first picture to begin a dream from")
        with Pillow.open(path) as picture:
            return np.asarray(picture.convert("RGB")), rows[number].instructions[0]

    return find


def judged(trials: Sequence[Trial], tasks: Sequence[str]) -> None:
    """UserError where a trial's task cannot be told from pictures.

    Args:
        trials: to be dreamt.
        tasks: that have a judge, by the instruction's first word.
    """
    for trial in trials:
        task = trial.arrangement.task
        # "place" begins with opening a drawer, and a dream has no second instruction.
        if task.startswith("place") or task_of(task.replace("_", " ")) not in tasks:
            raise UserError(
                f"'{task}' cannot be judged in a dream; leave it out: --tasks {' '.join(_rest(trials, tasks))}"
            )


def _rest(trials: Sequence[Trial], tasks: Sequence[str]) -> list[str]:
    every = dict.fromkeys(trial.arrangement.task for trial in trials)
    return [t for t in every if not t.startswith("place") and task_of(t.replace("_", " ")) in tasks]
