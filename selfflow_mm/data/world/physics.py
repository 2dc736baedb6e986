"""The mechanics of a clip: rigid bodies in two dimensions, stepped by pymunk (Chipmunk2D)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pymunk

from .constants import (
    FLOOR_LINE,
    FRAMES,
    FULL_IMPACT,
    GRAVITY,
    HEIGHT,
    PLANK,
    QUIETEST_IMPACT,
    ROLL_GAP,
    ROLL_SPEED,
    SAME_CONTACT,
    SHORTEST_ROLL,
    STEP,
    STEPS,
    STEPS_PER_FRAME,
    WALL_LEFT,
    WALL_RIGHT,
    WIDTH,
)
from .materials import MATERIALS
from .scene import Scene, Thing

#: Collision types of the furniture; objects are 1, 2, 3 in the order of the scene.
SURFACES: dict[int, str] = {101: "floor", 102: "wall", 103: "ramp", 104: "shelf"}
_TYPES = {name: number for number, name in SURFACES.items()}
#: Rebound on and friction with the furniture, multiplied by the object's. What comes over a ramp or a shelf rolls or
#: slides and does not hop.
_ELASTICITY = {"floor": 1.0, "wall": 1.0, "ramp": 0.05, "shelf": 0.05}
_FRICTION = {"floor": 1.0, "wall": 0.6, "ramp": 1.0, "shelf": 0.3}
#: All objects weigh the same.
_MASS = 1.0


@dataclass(frozen=True)
class Contact:
    """A blow that is heard.

    ``time`` in seconds, ``place`` (x, y) in pixels, ``impact`` the normal impulse per unit of mass divided by
    ``FULL_IMPACT``, ``thing`` the object's number in the scene, ``other`` the other object's number or the name of a
    surface.
    """

    time: float
    place: tuple[float, float]
    impact: float
    thing: int
    other: int | str


@dataclass(frozen=True)
class Roll:
    """Rolling (a ball) or sliding (anything else) on a surface from step ``first`` to step ``last`` of the simulation,
    inclusive; ``speeds`` are the pixels per second at each of these steps."""

    first: int
    last: int
    thing: int
    surface: str
    speeds: np.ndarray

    @property
    def time(self) -> float:
        return self.first * STEP

    @property
    def until(self) -> float:
        return self.last * STEP


@dataclass(frozen=True)
class Motion:
    """What happened.

    Attributes:
        path: float64 ``(objects, STEPS, 3)``: x, y, angle at the times ``k * STEP``.
        contacts: in order of time.
        rolls: in order of time.
    """

    path: np.ndarray
    contacts: tuple[Contact, ...]
    rolls: tuple[Roll, ...]

    @property
    def states(self) -> np.ndarray:
        """``(objects, FRAMES, 3)``: x, y, angle at the frames' times."""
        return self.path[:, : FRAMES * STEPS_PER_FRAME : STEPS_PER_FRAME]


def simulate(scene: Scene) -> Motion:
    """Let the scene run for the length of a clip."""
    space = pymunk.Space()
    space.gravity = (0.0, GRAVITY)
    for surface, a, b, thickness in _furniture(scene):
        segment = pymunk.Segment(space.static_body, a, b, thickness)
        segment.elasticity, segment.friction = _ELASTICITY[surface], _FRICTION[surface]
        segment.collision_type = _TYPES[surface]
        space.add(segment)

    bodies = [_body(thing, number) for number, thing in enumerate(scene.things)]
    starts = [round(thing.enters / STEP) for thing in scene.things]
    path = np.empty((len(bodies), STEPS, 3))
    touching = np.zeros((len(bodies), STEPS), dtype=np.int16)
    speeds = np.zeros((len(bodies), STEPS))
    blows: list[Contact] = []
    now = 0

    def touched(arbiter: pymunk.Arbiter, _space: pymunk.Space, pair: tuple[int, int | str, int]) -> None:
        number, other, surface = pair
        impulse = arbiter.total_impulse
        if surface and now < STEPS:
            touching[number, now] = surface
            speeds[number, now] = bodies[number].velocity.length
        if impulse.length < QUIETEST_IMPACT * FULL_IMPACT * _MASS:
            return
        impact = abs(impulse.dot(arbiter.normal)) / _MASS / FULL_IMPACT
        if impact >= QUIETEST_IMPACT:
            points = arbiter.contact_point_set.points
            x = sum(p.point_a.x for p in points) / len(points)
            y = sum(p.point_a.y for p in points) / len(points)
            blows.append(Contact(now * STEP, (x, y), impact, number, other))

    for number in range(len(bodies)):
        for kind, surface in SURFACES.items():
            rolls_on = 0 if surface == "wall" else kind
            space.on_collision(number + 1, kind, post_solve=touched, data=(number, surface, rolls_on))
        for other in range(number + 1, len(bodies)):
            space.on_collision(number + 1, other + 1, post_solve=touched, data=(number, other, 0))

    for step in range(STEPS):
        for number, body in enumerate(bodies):
            if step == starts[number]:
                space.add(body, *body.waiting)
            if step >= starts[number]:
                path[number, step] = (*body.position, body.angle)
        now = step + 1
        space.step(STEP)
    for number, thing in enumerate(scene.things):
        early = (np.arange(starts[number]) - starts[number]) * STEP
        path[number, : starts[number]] = _before(thing, early)
    contacts = _merge([blow for blow in blows if blow.time < STEPS * STEP and 0 <= blow.place[0] <= WIDTH])
    rolls = [
        roll
        for number, thing in enumerate(scene.things)
        for roll in _rolls(number, thing, path[number], touching[number], speeds[number])
    ]
    return Motion(path, contacts, tuple(sorted(rolls, key=lambda roll: roll.first)))


def moment_of_inertia(thing: Thing) -> float:
    """Moment of inertia of an object of mass 1, which all have, in square pixels.

    The mass sits at the corners (of a ball: at the rim): such objects turn more slowly than solid ones, which keeps
    bounces legible at 16 frames per second.
    """
    corners = thing.corners()
    return float((corners**2).sum(axis=1).mean()) if len(corners) else (thing.size / 2) ** 2


class _Waiting(pymunk.Body):
    """A body that has not entered yet, with the shapes that will enter with it."""

    waiting: list[pymunk.Shape]


def _body(thing: Thing, number: int) -> _Waiting:
    body = _Waiting(_MASS, moment_of_inertia(thing))
    body.position, body.angle, body.angular_velocity = thing.place, thing.angle, thing.spin
    # Chipmunk moves with the speed at a step's beginning; half a step of gravity ahead puts positions on the parabola.
    body.velocity = (thing.velocity[0], thing.velocity[1] + GRAVITY * STEP / 2)
    material = MATERIALS[thing.material]
    body.waiting = [
        pymunk.Poly(body, part.tolist()) if len(part) else pymunk.Circle(body, thing.size / 2)
        for part in _convex_parts(thing)
    ]
    for shape in body.waiting:
        shape.elasticity, shape.friction, shape.collision_type = material.elasticity, material.friction, number + 1
    return body


def _convex_parts(thing: Thing) -> list[np.ndarray]:
    corners = thing.corners()
    if thing.shape != "star":
        return [corners]
    inner = corners[1::2]
    return [inner, *(np.stack([corners[k - 1], corners[k], corners[(k + 1) % 10]]) for k in range(0, 10, 2))]


def _furniture(scene: Scene) -> list[tuple[str, tuple[float, float], tuple[float, float], float]]:
    """Surface, both ends of its middle line, and half its thickness: thick enough that nothing passes in one step."""
    thick = 20.0
    pieces = [("floor", (-200.0, FLOOR_LINE + thick), (WIDTH + 200.0, FLOOR_LINE + thick), thick)]
    if scene.walls[0]:
        pieces.append(("wall", (WALL_LEFT - thick, -400.0), (WALL_LEFT - thick, float(HEIGHT)), thick))
    if scene.walls[1]:
        pieces.append(("wall", (WALL_RIGHT + thick, -400.0), (WALL_RIGHT + thick, float(HEIGHT)), thick))
    for surface, line in (("ramp", scene.ramp), ("shelf", scene.shelf)):
        if line is not None:
            x0, y0, x1, y1 = line
            length = math.hypot(x1 - x0, y1 - y0)
            # Half the plank's thickness below its surface, and as much short of its end, where it is round.
            side = math.copysign(1.0, x1 - x0)
            nx, ny = -side * (y1 - y0) / length * PLANK / 2, side * (x1 - x0) / length * PLANK / 2
            ex, ey = (x1 - x0) / length * PLANK / 2, (y1 - y0) / length * PLANK / 2
            pieces.append((surface, (x0 + nx, y0 + ny), (x1 + nx - ex, y1 + ny - ey), PLANK / 2))
    return pieces


def _before(thing: Thing, time: np.ndarray) -> np.ndarray:
    """Where an object that has not entered is said to be (``time`` < 0 from when it does): it comes in a straight line
    from outside the picture; ``(len(time), 3)``."""
    (x, y), (u, v) = thing.place, thing.velocity
    return np.stack([x + u * time, y + v * time, thing.angle + thing.spin * time], axis=1)


def _merge(blows: list[Contact]) -> tuple[Contact, ...]:
    """One contact for each cluster of blows: the time of its first, the place and impact of its strongest."""
    merged: list[Contact] = []
    last: dict[tuple[int, int | str], int] = {}
    for blow in blows:
        key = (blow.thing, blow.other)
        if key in last and blow.time - merged[last[key]].time < SAME_CONTACT:
            before = merged[last[key]]
            if blow.impact > before.impact:
                merged[last[key]] = Contact(before.time, blow.place, blow.impact, blow.thing, blow.other)
        else:
            last[key] = len(merged)
            merged.append(blow)
    return tuple(merged)


def _rolls(number: int, thing: Thing, path: np.ndarray, touching: np.ndarray, speeds: np.ndarray) -> list[Roll]:
    """The times at which an object in the picture moves on a surface that it keeps touching."""
    left, right = thing.reach(path[:, 2])
    inside = (path[:, 0] + right > 0) & (path[:, 0] - left < WIDTH)
    steps = np.flatnonzero((touching > 0) & (speeds >= ROLL_SPEED) & inside)
    found = []
    breaks = (np.diff(steps) > ROLL_GAP / STEP) | (np.diff(touching[steps]) != 0)
    for run in np.split(steps, np.flatnonzero(breaks) + 1):
        if len(run) and (run[-1] - run[0]) * STEP >= SHORTEST_ROLL:
            every = np.interp(np.arange(run[0], run[-1] + 1), run, speeds[run])
            found.append(Roll(int(run[0]), int(run[-1]), number, SURFACES[int(touching[run[0]])], every))
    return found
