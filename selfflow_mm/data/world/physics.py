"""The mechanics of a clip: rigid bodies in two dimensions, stepped by pymunk (Chipmunk2D)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pymunk

from .constants import (
    FLOOR_LINE,
    FRAMES,
    FULL_IMPACT,
    GRAVITY,
    HEIGHT,
    QUIETEST_IMPACT,
    SAME_CONTACT,
    SECONDS,
    STEP,
    STEPS_PER_FRAME,
    WALL_LEFT,
    WALL_RIGHT,
    WIDTH,
)
from .materials import MATERIALS
from .scene import Body, Scene

#: Collision types: bodies are 1, 2, 3 in the order of the scene.
_FLOOR, _WALL = 101, 102
_NAMES = {_FLOOR: "floor", _WALL: "wall"}
#: All objects weigh the same.
_MASS = 1.0


@dataclass(frozen=True)
class Contact:
    """A blow that is heard: ``time`` in seconds, ``place`` (x, y) in pixels, ``impact`` the normal impulse per unit of
    mass divided by ``FULL_IMPACT``, ``body`` the object's number in the scene, ``other`` "floor" or "wall"."""

    time: float
    place: tuple[float, float]
    impact: float
    body: int
    other: str


@dataclass(frozen=True)
class Motion:
    """What happened: ``states`` float64 ``(objects, FRAMES, 3)`` (x, y, angle) at the frames' times ``k / FPS``, and
    the ``contacts`` in order of time."""

    states: np.ndarray
    contacts: tuple[Contact, ...]


def simulate(scene: Scene) -> Motion:
    """Let the scene run for the length of a clip."""
    space = pymunk.Space()
    space.gravity = (0.0, GRAVITY)
    material = MATERIALS[scene.material]
    thick = 20.0  # pixels: nothing passes through a boundary in one step
    boundaries = (
        (_FLOOR, (-200.0, FLOOR_LINE + thick), (WIDTH + 200.0, FLOOR_LINE + thick)),
        (_WALL, (WALL_LEFT - thick, -400.0), (WALL_LEFT - thick, float(HEIGHT))),
        (_WALL, (WALL_RIGHT + thick, -400.0), (WALL_RIGHT + thick, float(HEIGHT))),
    )
    for kind, a, b in boundaries:
        segment = pymunk.Segment(space.static_body, a, b, thick)
        segment.elasticity, segment.friction, segment.collision_type = material.elasticity, material.friction, kind
        space.add(segment)

    bodies = [_add_body(space, body, number) for number, body in enumerate(scene.bodies)]
    blows: list[Contact] = []
    now = 0.0

    def heard(arbiter: pymunk.Arbiter, _space: pymunk.Space, _data: object) -> None:
        body, other = arbiter.shapes
        normal = arbiter.normal
        impulse = arbiter.total_impulse
        impact = abs(impulse.dot(normal)) / _MASS / FULL_IMPACT
        if impact >= QUIETEST_IMPACT:
            points = arbiter.contact_point_set.points
            x = sum(p.point_a.x for p in points) / len(points)
            y = sum(p.point_a.y for p in points) / len(points)
            blows.append(Contact(now, (x, y), impact, body.collision_type - 1, _NAMES[other.collision_type]))

    for number in range(len(bodies)):
        for kind in (_FLOOR, _WALL):
            space.on_collision(number + 1, kind, post_solve=heard)

    states = np.empty((len(bodies), FRAMES, 3))
    for frame in range(FRAMES):
        for number, body in enumerate(bodies):
            states[number, frame] = (*body.position, body.angle)
        if frame < FRAMES - 1:
            first = frame * STEPS_PER_FRAME
            for step in range(first + 1, first + STEPS_PER_FRAME + 1):
                now = step * STEP
                space.step(STEP)
    # The last frame is shown for a while after the last state: what is heard then is simulated too.
    for step in range((FRAMES - 1) * STEPS_PER_FRAME + 1, FRAMES * STEPS_PER_FRAME):
        now = step * STEP
        space.step(STEP)
    return Motion(states, _merge([blow for blow in blows if blow.time < SECONDS]))


def _add_body(space: pymunk.Space, thing: Body, number: int) -> pymunk.Body:
    corners = thing.corners()
    body = pymunk.Body(_MASS, moment_of_inertia(thing))
    body.position = thing.place
    body.angle = thing.angle
    # Chipmunk moves with the speed at a step's beginning; half a step of gravity ahead puts positions on the parabola.
    body.velocity = (thing.velocity[0], thing.velocity[1] + GRAVITY * STEP / 2)
    body.angular_velocity = thing.spin
    shape: pymunk.Shape = pymunk.Poly(body, corners.tolist()) if len(corners) else pymunk.Circle(body, thing.size / 2)
    shape.elasticity, shape.friction, shape.collision_type = 1.0, 1.0, number + 1
    space.add(body, shape)
    return body


def moment_of_inertia(thing: Body) -> float:
    """Moment of inertia of an object of mass 1, which all have, in square pixels.

    The mass sits at the corners (of a ball: at the rim): such objects turn more slowly than solid ones, which keeps
    bounces legible at 16 frames per second.
    """
    corners = thing.corners()
    return float((corners**2).sum(axis=1).mean()) if len(corners) else (thing.size / 2) ** 2


def _merge(blows: list[Contact]) -> tuple[Contact, ...]:
    """One contact for each cluster of blows: the time of its first, the place and impact of its strongest."""
    merged: list[Contact] = []
    last: dict[tuple[int, str], int] = {}
    for blow in blows:
        key = (blow.body, blow.other)
        if key in last and blow.time - merged[last[key]].time < SAME_CONTACT:
            before = merged[last[key]]
            if blow.impact > before.impact:
                merged[last[key]] = Contact(before.time, blow.place, blow.impact, blow.body, blow.other)
        else:
            last[key] = len(merged)
            merged.append(blow)
    return tuple(merged)
