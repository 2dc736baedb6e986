"""The physics' state as bodies that can be seen: what never moves, and what may."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from functools import cache

import numpy as np

from . import measures as m
from .cabinet import Cabinet
from .catalogue import KINDS, Kind
from .hand import Hand
from .shapes import Body, Look
from .things import Thing, turned
from .variants import Setting
from .world import World

_ROBOT = Look((0.62, 0.63, 0.65), gloss=0.4)
_JOINT = Look((0.20, 0.21, 0.23), gloss=0.4)
_FINGER = Look((0.08, 0.08, 0.09), gloss=0.1)
_STEEL = Look((0.55, 0.56, 0.58), gloss=0.7)
_INSIDE = Look((0.50, 0.44, 0.36))

_SHOULDER = np.array([0.05, -0.24, 1.02])
_UPPER, _FORE = 0.56, 0.56
_RIGHT = np.array([0.0, -1.0, -0.25])
_LEVEL = np.eye(3)
_WRIST = 0.20  # from the tool's origin back to the wrist

Part = tuple[str, tuple[float, ...], tuple[float, float, float], Look]


def static_bodies(cabinet: Cabinet | None, setting: Setting, still: Collection[int] = ()) -> tuple[Body, ...]:
    """Table, floor, wall, carcass, extras, and the drawers in ``still`` as they are.

    Made once and handed on unchanged, so that a renderer can keep what it knows.
    """
    x, y = m.TABLE_X, m.TABLE_Y
    half = ((x[1] - x[0]) / 2, (y[1] - y[0]) / 2, m.TABLE_THICKNESS / 2)
    middle = (sum(x) / 2, sum(y) / 2)
    bodies = [
        _box("floor", (3.0, 3.0, 0.02), (1.0, 0.0, -0.02), setting.floor),
        _box("wall", (0.02, 3.0, 1.5), (2.1, 0.0, 1.5), setting.wall),
        _box("table", half, (*middle, m.TABLE_TOP - half[2]), setting.table),
    ]
    legs = (m.TABLE_TOP - m.TABLE_THICKNESS) / 2
    for dx in (-1, 1):
        for dy in (-1, 1):
            place = (middle[0] + dx * (half[0] - 0.04), middle[1] + dy * (half[1] - 0.04), legs)
            bodies.append(_box("table", (0.025, 0.025, legs), place, _JOINT))
    if cabinet is not None:
        bodies += _carcass(cabinet, setting.cabinet)
        for drawer in still:
            bodies += _drawer(cabinet, drawer, setting.cabinet)
    for name, px, py, yaw in setting.extras:
        kind = KINDS[name]
        thing = Thing(kind, [px, py, 0.0], turned(yaw))
        thing.place[2] = m.TABLE_TOP + thing.half_height
        bodies += _thing(thing)
    return tuple(bodies)


def moving_bodies(world: World, setting: Setting, still: Collection[int] = ()) -> list[Body]:
    """Objects, drawers but those in ``still``, arm and gripper as they are now."""
    bodies = [body for thing in world.things for body in _thing(thing)]
    if world.cabinet is not None:
        for drawer in range(3):
            if drawer not in still:
                bodies += _drawer(world.cabinet, drawer, setting.cabinet)
    return bodies + _gripper(world.hand) + _arm(world.hand)


@cache
def _parts(kind: Kind) -> tuple[Part, ...]:
    """The solids that show a kind, in its own frame."""
    size, look = kind.size, kind.look
    top = Look(kind.top, gloss=look.gloss) if kind.top else look
    if kind.form == "sphere":
        return (
            ("sphere", size, (0.0, 0.0, 0.0), look),
            ("capsule", (0.0028, 0.005), (0.0, 0.0, size[0] + 0.001), top),
        )
    if kind.form == "box":
        if kind.top is None:
            return (("box", size, (0.0, 0.0, 0.0), look),)
        thin = size[2] / 4
        return (
            ("box", (size[0], size[1], size[2] - thin), (0.0, 0.0, -thin), look),
            ("box", (size[0], size[1], thin), (0.0, 0.0, size[2] - thin), top),
        )
    radius, half = size
    if kind.neck is not None:
        neck, long = kind.neck
        return (
            ("cylinder", (radius, half - long), (0.0, 0.0, -long), look),
            ("cylinder", (neck, long * 0.6), (0.0, 0.0, half - 1.4 * long), look),
            ("cylinder", (neck * 1.15, long * 0.4), (0.0, 0.0, half - 0.4 * long), top),
        )
    lid = 0.004
    return (
        ("cylinder", (radius, half - 2 * lid), (0.0, 0.0, 0.0), look),
        ("cylinder", (radius * 0.88, lid), (0.0, 0.0, half - lid), top),
        ("cylinder", (radius * 0.88, lid), (0.0, 0.0, lid - half), top),
    )


def _thing(thing: Thing) -> list[Body]:
    place = np.array(thing.place)
    return [
        Body(thing.name, form, size, place + thing.turn @ np.array(offset), thing.turn, look)  # type: ignore[arg-type]
        for form, size, offset, look in _parts(thing.kind)
    ]


def _carcass(cabinet: Cabinet, look: Look) -> list[Body]:
    """Boards around the drawers; open at the front."""
    low, high = np.array(cabinet.carcass[0]), np.array(cabinet.carcass[1])
    board = 0.012
    x, y, z = (low + high) / 2
    hx, hy, hz = (high - low) / 2
    bodies = [
        _box("cabinet", (hx, hy, board / 2), (x, y, high[2] - board / 2), look),
        _box("cabinet", (hx, board / 2, hz - board / 2), (x, low[1] + board / 2, z - board / 2), look),
        _box("cabinet", (hx, board / 2, hz - board / 2), (x, high[1] - board / 2, z - board / 2), look),
        _box("cabinet", (board / 2, hy - board, hz - board / 2), (high[0] - board / 2, y, z - board / 2), look),
    ]
    for drawer in range(2):  # boards between the drawers
        height = cabinet.height(drawer) - m.DRAWER_PITCH / 2
        bodies.append(_box("cabinet", (hx - board, hy - board, 0.003), (x, y, height), look))
    return bodies


def _drawer(cabinet: Cabinet, drawer: int, look: Look) -> list[Body]:
    """Front, handle and, where it is open, the box behind the front."""
    name = f"drawer:{m.DRAWERS[drawer]}"
    panel, bar, *inside = np.flatnonzero(cabinet.owner == drawer)
    bodies = [_between(name, cabinet.low[panel], cabinet.high[panel], look)]
    # The handle is seen as one fin from the bar to the front; fingers take hold of it from the sides.
    end = np.array([cabinet.low[panel][0], *cabinet.high[bar][1:]])
    bodies.append(_between(name, cabinet.low[bar], end, _STEEL))
    if cabinet.opening[drawer] > 0:
        boards = [_between(name, cabinet.low[row], cabinet.high[row], _INSIDE) for row in inside]
        bottom = min(boards, key=lambda board: board.size[2])  # its shadow covers those of the others
        bodies += [board if board is bottom else replace(board, shadow=False) for board in boards]
    return bodies


def _between(name: str, low: np.ndarray, high: np.ndarray, look: Look, shadow: bool = True) -> Body:
    return Body(name, "box", tuple(((high - low) / 2).tolist()), (low + high) / 2, _LEVEL, look, shadow)


def _gripper(hand: Hand) -> list[Body]:
    def part(form: str, size: tuple[float, ...], offset: tuple[float, float, float], look: Look) -> Body:
        return Body("gripper", form, size, hand.place + hand.turn @ np.array(offset), hand.turn, look)  # type: ignore[arg-type]

    tip, root = m.FINGER_HEIGHTS[0] + m.FINGER_RADIUS, m.PALM_HEIGHT + m.PALM_RADIUS
    fingers = [
        part(
            "box", (m.PAD[0], 0.008, (tip - root) / 2), (0.0, sign * (hand.gap / 2 + 0.008), (tip + root) / 2), _FINGER
        )
        for sign in (1, -1)
    ]
    return [
        *fingers,
        part("box", (0.03, 0.066, 0.03), (0.0, 0.0, m.PALM_HEIGHT), _ROBOT),
        part("cylinder", (0.026, 0.03), (0.0, 0.0, m.PALM_HEIGHT - 0.06), _JOINT),
    ]


def _arm(hand: Hand) -> list[Body]:
    """Two links from the shoulder to the wrist, the elbow out to the right; only seen."""
    wrist = hand.place - hand.turn[:, 2] * _WRIST
    line = wrist - _SHOULDER
    length = math.hypot(*line)
    along = line / max(length, 1e-6)
    near = min(length, _UPPER + _FORE - 1e-3)
    # Triangle with sides _UPPER, _FORE and near; equal links put the elbow half-way.
    out = math.sqrt(max(_UPPER * _UPPER - near * near / 4, 0.0))
    side = _RIGHT - along * float(_RIGHT @ along)
    elbow = _SHOULDER + line / 2 + side / max(math.hypot(*side), 1e-6) * out
    return [
        _link(_SHOULDER, elbow, 0.042, _ROBOT),
        _link(elbow, wrist, 0.03, _ROBOT),
        Body("arm", "sphere", (0.046,), elbow, _LEVEL, _JOINT),
    ]


def _link(start: np.ndarray, end: np.ndarray, radius: float, look: Look) -> Body:
    (x0, y0, z0), (x1, y1, z1) = start.tolist(), end.tolist()
    length = max(math.hypot(x1 - x0, y1 - y0, z1 - z0), 1e-6)
    a, b, c = (x1 - x0) / length, (y1 - y0) / length, (z1 - z0) / length
    # Any two axes across will do for a round body; numpy's cross product would take longer than the picture's edges.
    across = (0.0, -c, b) if abs(a) < 0.9 else (c, 0.0, -a)
    size = math.hypot(*across)
    u, v, w = across[0] / size, across[1] / size, across[2] / size
    turn = np.array([[u, b * w - c * v, a], [v, c * u - a * w, b], [w, a * v - b * u, c]])
    return Body("arm", "capsule", (radius, length / 2), (start + end) / 2, turn, look)


def _box(name: str, half: tuple[float, ...], place: tuple[float, ...], look: Look) -> Body:
    return Body(name, "box", tuple(float(value) for value in half), np.array(place, dtype=np.float64), _LEVEL, look)
