"""An evaluation as data: where and how each of its episodes begins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

__all__ = ["LIMITS", "Arrangement", "Grid", "Robot", "Start", "Trial", "every_start", "evenly"]

#: First, last and how many, ends included.
Grid = tuple[float, float, int]
Robot = Literal["google_robot_static", "widowx", "widowx_sink_camera_setup", "tabletop"]

#: Task -> control steps after which an episode ends.
LIMITS = {
    "pick_coke_can": 80,
    "move_near": 80,
    "open_drawer": 113,
    "close_drawer": 113,
    "place_apple_in_closed_top_drawer": 200,
    "spoon_on_towel": 60,
    "carrot_on_plate": 60,
    "stack_cube": 60,
    "put_eggplant_in_basket": 120,
    "pick": 80,
    "place_in_drawer": 200,
}


@dataclass(frozen=True)
class Start:
    """Where robot and objects begin.

    Attributes:
        robot: (x, y) in metres.
        yaw: of the robot, radians, from where it faces the table.
        objects: (x, y) of the object in metres; None where ``episode`` says where things stand.
        episode: number of a layout that the environment knows.
    """

    robot: tuple[float, float]
    yaw: float
    objects: tuple[float, float] | None = None
    episode: int | None = None

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """The robot's rotation, w first: a turn by ``yaw`` after half a turn about z."""
        return (-math.sin(self.yaw / 2), 0.0, 0.0, math.cos(self.yaw / 2))


@dataclass(frozen=True)
class Arrangement:
    """One call of SIMPLER's evaluator, or as much of the tabletop.

    Attributes:
        task: a key of :data:`LIMITS`.
        variant: what is varied, and how: the column of a table.
        part: which of the task's parts (an orientation of the can, a drawer); "" if there is one only.
        environment: its gymnasium id.
        scene: the evaluator's ``--scene-name``.
        overlay: the real picture that is laid over the background, below ``ManiSkill2_real2sim/data/real_inpainting``.
        options: further arguments of the environment.
        ray_tracing: is it rendered by ray tracing (the scripts' ``--enable-raytracing`` or ``shader_dir=rt``)?
        robot, control_rate, simulation_rate: the robot's name, and steps per second of the policy and of physics.
        robot_x, robot_y, yaw: where the robot stands.
        object_x, object_y: where the object stands, unless ``episodes`` are there.
        episodes: how many layouts the environment is asked for, numbered from 0; 0 goes by ``object_x`` and ``_y``.
    """

    task: str
    variant: str
    part: str
    environment: str
    scene: str
    overlay: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    ray_tracing: bool = False
    robot: Robot = "google_robot_static"
    control_rate: int = 3
    simulation_rate: int = 513
    robot_x: Grid = (0.35, 0.35, 1)
    robot_y: Grid = (0.20, 0.20, 1)
    yaw: float = 0.0
    object_x: Grid = (0.0, 0.0, 1)
    object_y: Grid = (0.0, 0.0, 1)
    episodes: int = 0

    @property
    def limit(self) -> int:
        """Control steps after which an episode ends."""
        return LIMITS[self.task]

    @property
    def setting(self) -> str:
        """The kind of evaluation: ``visual matching``, ``variant aggregation``, ``cameras``, ``WidowX``, ``tabletop``.

        Rates of one task in two settings are two figures, which nobody adds up.
        """
        if self.robot == "tabletop":
            return "tabletop"
        if self.robot.startswith("widowx"):
            return "WidowX"
        if self.overlay:
            return "visual matching"
        return "cameras" if self.variant.startswith("camera ") else "variant aggregation"

    def starts(self) -> Iterator[Start]:
        """In the evaluator's order: robot x, robot y, then the objects."""
        for x in _spread(self.robot_x):
            for y in _spread(self.robot_y):
                if self.episodes:
                    yield from (Start((x, y), self.yaw, episode=number) for number in range(self.episodes))
                else:
                    for u in _spread(self.object_x):
                        yield from (Start((x, y), self.yaw, (u, v)) for v in _spread(self.object_y))


@dataclass(frozen=True)
class Trial:
    """One episode: an arrangement and a start of it.

    Attributes:
        number: in the suite, from 0; what results are kept by.
        repeat: 0, or which of several times that the same start is acted.
    """

    number: int
    arrangement: Arrangement
    start: Start
    repeat: int = 0


def every_start(arrangements: Iterable[Arrangement]) -> list[Trial]:
    """Their trials, in their order."""
    return [Trial(number, *both) for number, both in enumerate((a, s) for a in arrangements for s in a.starts())]


def evenly(found: Sequence[Trial], count: int) -> list[Trial]:
    """At most ``count`` of them, evenly spread."""
    count = min(count, len(found))
    return [found[(2 * i + 1) * len(found) // (2 * count)] for i in range(count)]


def _spread(grid: Grid) -> list[float]:
    return [float(value) for value in np.linspace(*grid)]
