"""The hand meets the table, the cabinet and the free things: they give way, or the hand does."""

from __future__ import annotations

import math

import numpy as np

from . import measures as m
from .contacts import Log
from .hand import FINGERS, Hand
from .heap import Heap
from .things import Thing

_NEAR = 1e-6
_ROUNDS = 3
#: A drawer gives way to a push whose direction is mostly along its rails.
_ALONG = 0.6
#: How far a shut drawer's handle stands out.
_HANDLE = 2 * m.PANEL_HALF[0] + m.HANDLE_OUT + m.HANDLE_HALF[0]


class Touching:
    """Resolves what the hand and the thing in it overlap with."""

    def __init__(self, hand: Hand, heap: Heap, log: Log) -> None:
        self.hand = hand
        self.heap = heap
        self.log = log
        self._spheres = np.zeros((0, 4))

    def resolve(self, squeezed: Thing | None, speed: float, meets_cabinet: bool) -> float:
        """One sub-step's contacts; ``squeezed`` is between closing fingers and is not pushed by them.

        Returns:
            How deep the hand is still in the cabinet: above 0 where it is wedged and no way out was found.
        """
        self._spheres = self.hand.spheres()
        met = False
        for turn in range(_ROUNDS):
            self._meet_table(speed)
            shifted = self._meet_cabinet(speed) if meets_cabinet else False
            met |= shifted
            shifted |= self._meet_things(squeezed, speed, last=turn == _ROUNDS - 1)
            if not shifted:
                break
        self._meet_table(speed)
        return max(float(self._into_cabinet()[2].max()), 0.0) if met else 0.0

    def _shift(self, x: float, y: float, z: float) -> None:
        change = np.array([x, y, z])
        self.hand.place += change
        self._spheres[:, :3] += change

    def _holder(self, row: int) -> tuple[str, str]:
        """Name and material of what a sphere belongs to."""
        held = self.heap.held
        if held is not None and row >= FINGERS + len(m.PALM_SIDES):
            return held.name, held.kind.material
        return "gripper", "rubber"

    def _meet_table(self, speed: float) -> None:
        low = self._spheres[:, 2] - self._spheres[:, 3]
        row = int(low.argmin())
        depth = m.TABLE_TOP - float(low[row])
        if depth > _NEAR:
            name, material = self._holder(row)
            self.log.touch((name, "table"), (material, "wood"), self._spheres[row, :3], speed)
        if depth > 0:
            self._shift(0.0, 0.0, depth)

    def _meet_cabinet(self, speed: float) -> bool:
        cabinet = self.heap.cabinet
        if cabinet is None:
            return False
        x, y, z = self.hand.place.tolist()
        # The hand is within 14 cm of its origin, what it holds within 12 cm more.
        reach = 0.26 if len(self.hand.load) else 0.14
        if (
            x + reach < cabinet.front - max(cabinet.opening) - _HANDLE
            or abs(y - cabinet.side) > reach + m.CABINET_HALF_WIDTH
            or z - reach > m.TABLE_TOP + m.CABINET_HEIGHT
        ):
            return False
        shifted = False
        for _ in range(4):
            away, distance, depths = self._into_cabinet()
            row, box = divmod(int(depths.argmax()), depths.shape[1])
            depth = float(depths[row, box])
            if depth <= _NEAR:
                break
            if distance[row, box] > 1e-9:
                normal = away[row, box] / distance[row, box]
            else:
                normal, depth = _out_of_box(self._spheres[row], cabinet.low[box], cabinet.high[box])
            owner = int(cabinet.owner[box])
            name, material = self._holder(row)
            other = "cabinet" if owner < 0 else f"drawer:{m.DRAWERS[owner]}"
            self.log.touch((name, other), (material, "wood"), self._spheres[row, :3], speed)
            if owner >= 0 and abs(normal[0]) > _ALONG:
                happened = self.heap.slide(owner, depth / normal[0], speed)
                depth -= happened * float(normal[0])
            if depth > _NEAR:
                self._shift(*(depth * normal).tolist())
            shifted = True
        return shifted

    def _into_cabinet(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each sphere and box: ``(s, b, 3)`` from the box to the sphere's centre, how far, and how deep."""
        cabinet = self.heap.cabinet
        assert cabinet is not None
        centres, radii = self._spheres[:, None, :3], self._spheres[:, 3]
        away = centres - np.minimum(np.maximum(centres, cabinet.low), cabinet.high)
        distance = np.sqrt(np.einsum("sbk,sbk->sb", away, away))
        return away, distance, radii[:, None] - distance

    def _meet_things(self, squeezed: Thing | None, speed: float, last: bool) -> bool:
        shifted = False
        middle = self.hand.place + self.hand.turn[:, 2] * (m.PALM_HEIGHT / 2)
        reach = 0.12 + (0.10 if len(self.hand.load) else 0.0)
        for thing in self.heap.free:
            around = math.hypot(thing.footprint.radius, thing.half_height)
            if math.dist(thing.place, middle) > reach + around:
                continue
            start = FINGERS if thing is squeezed else 0
            for row in range(start, len(self._spheres)):
                shifted |= self._meet(thing, row, speed, last)
        return shifted

    def _meet(self, thing: Thing, row: int, speed: float, last: bool) -> bool:
        """One sphere and one thing; whether anything moved."""
        x, y, z, radius = self._spheres[row].tolist()
        rise = z - thing.place[2]
        over = abs(rise) - thing.half_height
        if over >= radius:
            return False
        aside, u, v = thing.footprint.distance(x - thing.place[0], y - thing.place[1])
        if aside >= radius:
            return False
        if thing.kind.form == "sphere":
            both = radius + thing.half_height
            flat = aside + thing.half_height
            if flat * flat + rise * rise >= both * both:
                return False
            push = math.sqrt(both * both - rise * rise) - flat
            lift = math.sqrt(max(both * both - flat * flat, 0.0)) - abs(rise)
        else:
            push = math.sqrt(radius * radius - max(over, 0.0) ** 2) - aside
            lift = math.sqrt(radius * radius - max(aside, 0.0) ** 2) - over
        if push <= _NEAR or lift <= _NEAR:
            return False
        name, material = self._holder(row)
        self.log.touch((name, thing.name), (material, thing.kind.material), thing.place, speed)
        if rise > 0 and lift < push and not thing.fall:  # it stands on something: the hand cannot go down
            self._shift(0.0, 0.0, lift)
            return True
        if last:  # it has been pushed and could not go: the hand gives way
            self._shift(push * u, push * v, 0.0)
            return True
        low, high = max(z - radius, thing.bottom), min(z + radius, thing.top)
        if thing.upright and m.FRICTION * ((low + high) / 2 - thing.bottom) > thing.kind.size[0]:
            self.heap.topple(thing, -u, -v)
        else:
            self.heap.shove(thing, -push * u, -push * v)
        return True


def _out_of_box(sphere: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, float]:
    """Direction and length of the shortest way out for a sphere whose centre is in the box."""
    ways = np.concatenate([sphere[:3] - low, high - sphere[:3]])
    side = int(ways.argmin())
    normal = np.zeros(3)
    normal[side % 3] = -1.0 if side < 3 else 1.0
    return normal, float(ways[side]) + float(sphere[3])
