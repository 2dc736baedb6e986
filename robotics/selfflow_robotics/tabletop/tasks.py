"""What there is to do: layouts, instructions and success, after SIMPLER's Google-robot tasks.

To add a task, write a class and add it to ``TASKS``, or to ``ALL_TASKS`` alone if nobody is to be judged by it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from . import measures as m
from .cabinet import Cabinet
from .catalogue import FITS_DRAWER, KINDS
from .things import Thing, lying, turned
from .world import World

#: Where objects are put.
AREA_X, AREA_Y = (0.50, 0.80), (-0.26, 0.26)


class Task:
    """One episode's aim. ``limit``: control steps after which it is truncated; ``subtasks``: how many instructions;
    ``drawer``: the one to be moved, -1 for none.

    ``stats`` are SIMPLER's episode statistics, renewed by ``evaluate``. ``namings``: how many instructions one scene of
    several objects can be given, all else being equal.
    """

    name = ""
    limit = 80
    subtasks = 1
    drawer = -1
    namings = 1
    world: World

    def __init__(self) -> None:
        self.subtask = 0
        self.stats: dict[str, Any] = {}

    @property
    def instruction(self) -> str:
        raise NotImplementedError

    def evaluate(self) -> bool:
        """Whether the aim is reached now; to be called once per control step."""
        raise NotImplementedError


class Pick(Task):
    """Success: the object is held 2 cm or more above where it stood."""

    name = "pick"

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        kind = KINDS[str(rng.choice(sorted(KINDS)))]
        place = (rng.uniform(*AREA_X), rng.uniform(*AREA_Y))
        yaw = rng.uniform(-math.pi, math.pi)
        on_side = bool(rng.random() < 0.4) and kind.lies
        thing = put(kind.name, place, yaw, on_side)
        self._lift(thing, World([thing], None, start(rng)))

    def _lift(self, thing: Thing, world: World) -> None:
        self.thing, self.world, self.height = thing, world, thing.place[2]
        self.stats = {"is_grasped": False, "consecutive_grasp": 0, "lifted_object": False, "n_lift_significant": 0}

    @property
    def instruction(self) -> str:
        return f"pick {self.thing.name}"

    def evaluate(self) -> bool:
        stats, held = self.stats, self.world.held is self.thing
        rise = self.thing.place[2] - self.height
        stats["is_grasped"] = held
        stats["consecutive_grasp"] = stats["consecutive_grasp"] + 1 if held else 0
        stats["lifted_object"] = held and rise > 0.01
        success = held and rise >= 0.02
        stats["n_lift_significant"] += int(success)
        return success


class PickAmong(Pick):
    """As ``Pick``, with two more objects in reach, so that the name must be understood: in ``pick`` it can be ignored.
    SIMPLER has no such task."""

    name = "pick_among"
    namings = 3

    def __init__(self, rng: np.random.Generator, naming: int = 0) -> None:
        Task.__init__(self)
        named = _three(rng)
        self.things = [named.pop(naming), *named]
        self._lift(self.things[0], World(self.things, None, start(rng)))


class MoveNear(Task):
    """Success: the object was moved, lies or hangs at its height near the target, nearer than the third object, and
    nothing else was moved as far."""

    name = "move_near"
    namings = 6

    def __init__(self, rng: np.random.Generator, naming: int = 0) -> None:
        super().__init__()
        self.things = list(list(itertools.permutations(_three(rng)))[naming])
        self.source, self.target, self.other = self.things
        self.world = World(self.things, None, start(rng))
        self.began = [tuple(thing.place) for thing in self.things]
        self.stats = dict.fromkeys(
            ("moved_correct_obj", "moved_wrong_obj", "near_tgt_obj", "is_closest_to_tgt", "all_obj_keep_height"), False
        )
        self.stats["is_grasped"] = False

    @property
    def instruction(self) -> str:
        return f"move {self.source.name} near {self.target.name}"

    def evaluate(self) -> bool:
        moved = [math.dist(thing.place[:2], place[:2]) for thing, place in zip(self.things, self.began, strict=True)]
        rose = [abs(thing.place[2] - place[2]) for thing, place in zip(self.things, self.began, strict=True)]
        to_target = math.dist(self.source.place[:2], self.target.place[:2])
        to_other = math.dist(self.source.place[:2], self.other.place[:2])
        size = sum(float(np.hypot(*thing.extent[:2])) / 2 for thing in (self.source, self.target))
        found = {
            "moved_correct_obj": moved[0] > 0.03 and moved[0] > max(moved[1:]),
            "moved_wrong_obj": max(moved[1:]) > 0.03 and max(moved[1:]) > moved[0],
            "near_tgt_obj": to_target < size + 0.10,
            "is_closest_to_tgt": to_target < to_other + 0.01,
            "all_obj_keep_height": max(rose) < 0.02,
        }
        self.stats = found | {"is_grasped": self.world.held is self.source}
        return all(found[key] for key in found if key != "moved_wrong_obj")


class OpenDrawer(Task):
    """Success: the drawer is out by SIMPLER's 0.15 m or more."""

    name = "open_drawer"
    limit = 113

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.drawer = int(rng.integers(3))
        self.cabinet = Cabinet(float(rng.uniform(0.79, 0.84)), float(rng.uniform(-0.15, 0.15)))
        self.world = World([], self.cabinet, start(rng))
        self.stats = {"qpos": 0.0}

    @property
    def instruction(self) -> str:
        return f"open {m.DRAWERS[self.drawer]} drawer"

    def evaluate(self) -> bool:
        self.stats = {"qpos": self.cabinet.opening[self.drawer]}
        return self.stats["qpos"] >= 0.15


class CloseDrawer(OpenDrawer):
    """Success: the drawer, open at first, is out by SIMPLER's 0.05 m or less."""

    name = "close_drawer"

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self.cabinet.slide(self.drawer, float(rng.uniform(0.17, 0.21)))
        self.stats = {"qpos": self.cabinet.opening[self.drawer]}

    @property
    def instruction(self) -> str:
        return f"close {m.DRAWERS[self.drawer]} drawer"

    def evaluate(self) -> bool:
        self.stats = {"qpos": self.cabinet.opening[self.drawer]}
        return self.stats["qpos"] <= 0.05


class PlaceInDrawer(Task):
    """Two instructions: open a drawer, put the object into it.

    Success: in the second subtask the object lies in the drawer, which is out by 0.05 m or more.
    """

    name = "place_in_drawer"
    limit = 200
    subtasks = 2

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.drawer = int(rng.integers(3))
        side = 1.0 if rng.random() < 0.5 else -1.0
        self.cabinet = Cabinet(float(rng.uniform(0.79, 0.83)), -side * float(rng.uniform(0.12, 0.18)))
        name = str(rng.choice(FITS_DRAWER))
        place = (rng.uniform(0.52, 0.68), side * rng.uniform(0.16, 0.28))
        self.thing = put(name, place, rng.uniform(-math.pi, math.pi))
        self.world = World([self.thing], self.cabinet, start(rng))
        self.stats = {"qpos": 0.0, "is_drawer_open": False, "has_contact": 0, "is_grasped": False}

    @property
    def instruction(self) -> str:
        drawer = m.DRAWERS[self.drawer]
        return f"open {drawer} drawer" if self.subtask == 0 else f"place {self.thing.name} into {drawer} drawer"

    def evaluate(self) -> bool:
        stats = self.stats
        stats["qpos"] = self.cabinet.opening[self.drawer]
        stats["is_drawer_open"] = stats["is_drawer_open"] or stats["qpos"] >= 0.15
        held = self.world.held is self.thing
        stats["is_grasped"] = held
        inside = not held and self.thing.inside == self.drawer and not self.thing.fall
        stats["has_contact"] += int(inside)
        return self.subtask == 1 and inside and stats["qpos"] >= 0.05


TaskClass = type[Pick | MoveNear | OpenDrawer | CloseDrawer | PlaceInDrawer]

#: The suite: what is recorded and acted unless tasks are named, and what ``random`` draws from.
TASKS: dict[str, TaskClass] = {task.name: task for task in (Pick, MoveNear, OpenDrawer, CloseDrawer, PlaceInDrawer)}
ALL_TASKS: dict[str, TaskClass] = {**TASKS, PickAmong.name: PickAmong}


def make_task(name: str, rng: np.random.Generator, naming: int = 0) -> Task:
    """A new episode of a task; ``"random"`` draws which of the suite.

    Args:
        naming: which of the task's ``namings`` instructions the scene is given.

    Raises:
        UserError: there is no such task, or naming.
    """
    if name == "random":
        name = str(rng.choice(list(TASKS)))
    if name not in ALL_TASKS:
        raise UserError(f"there is no task '{name}'; known: {', '.join(ALL_TASKS)}, random")
    kind = ALL_TASKS[name]
    if not 0 <= naming < kind.namings:
        raise UserError(f"a scene of '{name}' has {kind.namings} instructions, numbered from 0; there is no {naming}")
    make: Callable[..., Task] = kind
    return make(rng, naming) if kind.namings > 1 else make(rng)


def put(name: str, place: tuple[float, float], yaw: float, on_side: bool = False) -> Thing:
    """An object on the table at (x, y)."""
    thing = Thing(KINDS[name], [0.0, 0.0, 0.0], lying(yaw) if on_side else turned(yaw))
    thing.place[:] = [float(place[0]), float(place[1]), m.TABLE_TOP + thing.half_height]
    return thing


def start(rng: np.random.Generator) -> tuple[float, float, float]:
    """Where the tool begins: on the right, where it hides little, a little different each time."""
    x, y, z = rng.uniform(-0.02, 0.02, 3)
    return (0.42 + x, y - 0.20, 1.13 + z)


def _three(rng: np.random.Generator) -> list[Thing]:
    """Objects of three kinds, apart from each other."""
    names = [str(name) for name in rng.choice(sorted(KINDS), size=3, replace=False)]
    places = _apart(rng)
    return [put(name, place, rng.uniform(-math.pi, math.pi)) for name, place in zip(names, places, strict=True)]


def _apart(rng: np.random.Generator) -> list[tuple[float, float]]:
    """Places of source, target and third object, such that there is something to do and room to do it."""
    while True:
        places = [(float(x), float(y)) for x, y in zip(rng.uniform(*AREA_X, 3), rng.uniform(*AREA_Y, 3), strict=True)]
        source, target, other = places
        if math.dist(source, target) > 0.25 and min(math.dist(other, source), math.dist(other, target)) > 0.20:
            return places
