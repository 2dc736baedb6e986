"""The free things: they rest, fall, land, and push one another aside.

Quasi-static: a thing moves sideways only while it is pushed, and stops at once. Falling is exact: constant
acceleration over each sub-step, landings timed within it.
"""

from __future__ import annotations

import math

from . import measures as m
from .cabinet import Cabinet
from .contacts import Log
from .footprints import Footprint, overlap
from .things import Thing, lying

_NEAR = 1e-6
#: A thing that sinks into its support by less than this is lifted onto it; by more, it is beside it.
_SINK = 0.02
_TABLE = Footprint((m.TABLE_X[1] - m.TABLE_X[0]) / 2, (m.TABLE_Y[1] - m.TABLE_Y[0]) / 2)
_TABLE_MIDDLE = (sum(m.TABLE_X) / 2, sum(m.TABLE_Y) / 2)
_SUPPORT_MATERIAL = {"table": "wood", "floor": "wood", "cabinet": "wood"}


class Heap:
    """All things but the held one, and the cabinet they may lie in or on."""

    def __init__(self, things: list[Thing], cabinet: Cabinet | None, log: Log) -> None:
        self.things = things
        self.cabinet = cabinet
        self.log = log
        self.held: Thing | None = None

    @property
    def free(self) -> list[Thing]:
        return [thing for thing in self.things if thing is not self.held]

    def wake(self) -> None:
        """Let everything look for its support again."""
        for thing in self.things:
            thing.awake = True

    def fall(self, seconds: float) -> None:
        """One sub-step of gravity."""
        for thing in self.free:
            if thing.awake:
                self._drop(thing, seconds)

    def shove(self, thing: Thing, x: float, y: float, chain: tuple[Thing, ...] = ()) -> None:
        """Move a thing sideways; what is in its way goes ahead of it, and where that cannot, the thing stays back."""
        thing.place[0] += x
        thing.place[1] += y
        self.wake()
        self._clear(thing)
        chain = (*chain, thing)
        for other in self.free:
            if other in chain or other.top <= thing.bottom + _NEAR or thing.top <= other.bottom + _NEAR:
                continue
            depth, u, v = self._overlap(thing, other)
            if depth <= _NEAR:
                continue
            self.log.touch((thing.name, other.name), (thing.kind.material, other.kind.material), other.place, 0.1)
            self.shove(other, depth * u, depth * v, chain)
            depth, u, v = self._overlap(thing, other)
            if depth > _NEAR:
                thing.place[0] -= depth * u
                thing.place[1] -= depth * v

    def release(self, thing: Thing) -> None:
        """A thing that the gripper let go of becomes a free one: out of what it overlaps, then it falls."""
        self._enter(thing)
        self._clear(thing)
        self.shove(thing, 0.0, 0.0)

    def topple(self, thing: Thing, u: float, v: float) -> None:
        """An upright cylinder falls over along (u, v): it rolls over the edge of its base and comes to lie."""
        radius, half = thing.kind.size
        thing.turn = lying(math.atan2(v, u))
        thing.settle()
        self.log.touch((thing.name, "table"), (thing.kind.material, "wood"), thing.place, 0.8)
        self.shove(thing, (radius + half) * u, (radius + half) * v)

    def slide(self, drawer: int, change: float, speed: float) -> float:
        """Move a drawer with what is in it, pushing aside what stands before it; the change that happened."""
        cabinet = self.cabinet
        assert cabinet is not None
        inside = [thing for thing in self.free if thing.inside == drawer]
        if change < 0:
            # What sticks out above the panel does not go under the drawer or board above.
            for thing in inside:
                if thing.top > cabinet.height(drawer) + m.PANEL_HALF[2]:
                    change = max(change, min(thing.place[0] + thing.footprint.reach(1.0, 0.0) - cabinet.front, 0.0))
        before = cabinet.opening[drawer]
        happened = cabinet.slide(drawer, change)
        if happened:
            name = f"drawer:{m.DRAWERS[drawer]}"
            now = cabinet.opening[drawer]
            if now in (0.0, m.TRAVEL) and before != now:
                self.log.blow((name, "cabinet"), ("wood", "wood"), cabinet.handle(drawer), speed, self.log.now)
            for thing in inside:
                thing.place[0] -= happened
            for thing in self.free:
                if thing.inside != drawer:
                    self.shove(thing, 0.0, 0.0)
            self.wake()
        return float(happened)

    def _overlap(self, thing: Thing, other: Thing) -> tuple[float, float, float]:
        x, y = other.place[0] - thing.place[0], other.place[1] - thing.place[1]
        if thing.kind.form == "sphere" and other.kind.form == "sphere":
            # At different heights two balls touch later than their outlines do.
            reach = thing.kind.size[0] + other.kind.size[0]
            rise = other.place[2] - thing.place[2]
            _, u, v = thing.footprint.distance(x, y)
            return math.sqrt(max(reach * reach - rise * rise, 0.0)) - math.hypot(x, y), u, v
        return overlap(thing.footprint, other.footprint, x, y)

    def _clear(self, thing: Thing) -> None:
        """Move a thing out of the cabinet's walls and off the table's edge."""
        if thing.inside >= 0:
            self._keep_inside(thing)
            return
        if thing.bottom < m.TABLE_TOP - _SINK and thing.top > m.TABLE_TOP - m.TABLE_THICKNESS:
            x, y = thing.place[0] - _TABLE_MIDDLE[0], thing.place[1] - _TABLE_MIDDLE[1]
            depth, u, v = overlap(_TABLE, thing.footprint, x, y)
            if depth > 0:
                thing.place[0] += depth * u
                thing.place[1] += depth * v
        if self.cabinet is None:
            return
        for low_x, high_x, low_y, high_y, low, high in self.cabinet.walls():
            if thing.top <= low + _NEAR or thing.bottom >= high - _NEAR:
                continue
            box = Footprint((high_x - low_x) / 2, (high_y - low_y) / 2)
            x, y = thing.place[0] - (low_x + high_x) / 2, thing.place[1] - (low_y + high_y) / 2
            depth, u, v = overlap(box, thing.footprint, x, y)
            if depth > 0:
                thing.place[0] += depth * u
                thing.place[1] += depth * v

    def _keep_inside(self, thing: Thing) -> None:
        assert self.cabinet is not None
        near, back, low, high = self.cabinet.inside(thing.inside)
        x, y = thing.footprint.reach(1.0, 0.0), thing.footprint.reach(0.0, 1.0)
        # Above an open drawer's rim is air, but nothing reaches under the board above.
        far = min(back, self.cabinet.front) if thing.place[0] < self.cabinet.front else back
        thing.place[0] = min(max(thing.place[0], near + x), max(far - x, near + x))
        thing.place[1] = min(max(thing.place[1], low + y), high - y)

    def _support(self, thing: Thing) -> tuple[float, str, str]:
        """Height, name and material of what a thing would land on."""
        x, y = thing.place[0], thing.place[1]
        limit = thing.bottom + _SINK
        best = (0.0, "floor", "wood")
        if m.TABLE_X[0] < x < m.TABLE_X[1] and m.TABLE_Y[0] < y < m.TABLE_Y[1] and limit >= m.TABLE_TOP:
            best = (m.TABLE_TOP, "table", "wood")
        cabinet = self.cabinet
        if cabinet is not None:
            low, high = cabinet.carcass
            if low[0] <= x <= high[0] and low[1] <= y <= high[1] and limit >= high[2]:
                best = (high[2], "cabinet", "wood")
            for drawer in range(3):
                if thing.inside == drawer or cabinet.over(drawer, x, y):
                    within = thing.inside == drawer or cabinet.takes(drawer, thing.footprint)
                    height = cabinet.floor(drawer) if within else cabinet.rim(drawer)
                    if best[0] < height <= limit:
                        best = (height, f"drawer:{m.DRAWERS[drawer]}", "wood")
        for other in self.free:
            if other is not thing and other.flat and best[0] < other.top <= limit and not other.fall:
                if other.footprint.holds(x - other.place[0], y - other.place[1]):
                    best = (other.top, other.name, other.kind.material)
        return best

    def _drop(self, thing: Thing, seconds: float) -> None:
        height, name, material = self._support(thing)
        gap = thing.bottom - height
        way = thing.fall * seconds + m.GRAVITY * seconds * seconds / 2
        if gap <= _NEAR:
            thing.place[2] = height + thing.half_height
            thing.fall, thing.awake = 0.0, False
        elif way >= gap:
            speed = math.sqrt(thing.fall * thing.fall + 2 * m.GRAVITY * gap)
            time = self.log.now - seconds + (speed - thing.fall) / m.GRAVITY
            thing.place[2] = height + thing.half_height
            thing.fall, thing.awake = 0.0, False
            if speed > 0.15:
                self.log.blow((thing.name, name), (thing.kind.material, material), thing.place, speed, time)
        else:
            thing.place[2] -= way
            thing.fall += m.GRAVITY * seconds
        self._enter(thing)
        if gap > _NEAR:
            self._step_aside(thing)

    def _enter(self, thing: Thing) -> None:
        """Notice that a thing is in a drawer, or out again."""
        cabinet = self.cabinet
        if cabinet is None:
            return
        if thing.inside >= 0:
            return
        for drawer in range(3):
            if cabinet.floor(drawer) - _SINK < thing.bottom < cabinet.rim(drawer) - 0.002:
                if cabinet.over(drawer, thing.place[0], thing.place[1]) and cabinet.takes(drawer, thing.footprint):
                    thing.inside = drawer
                    return

    def _step_aside(self, thing: Thing) -> None:
        """A falling thing glides off what it cannot stand on."""
        self._clear(thing)
        for other in self.free:
            if other is thing or other.top <= thing.bottom + _NEAR or thing.top <= other.bottom + _NEAR:
                continue
            depth, u, v = self._overlap(other, thing)
            if depth > _NEAR:
                thing.place[0] += depth * u
                thing.place[1] += depth * v
                thing.awake = True
        self._clear(thing)
