"""The tabletop's physics: a gripper that follows its commands, and things that are held, pushed, dropped.

Quasi-static and deterministic: no mass, no bouncing; nothing moves but what is commanded, pushed or falls. The arm
behind the hand meets nothing.
"""

from __future__ import annotations

import math

import numpy as np

from ..actions.rotations import axis_angle_to_matrix
from . import measures as m
from .cabinet import Cabinet
from .contacts import Contact, Log
from .grasping import Grip, find_grip
from .hand import Hand
from .heap import Heap
from .things import Thing
from .touching import Touching

#: In one control step a gripped handle forgives this much pull aside (metres) or turn (radians) before it slips.
_SLIP = 0.05
_SLIP_TURN = 0.4
#: A solid may be this much too wide for the gap and still be taken to lie between the fingers.
_SQUEEZE = 0.004
#: A hand that is deeper than this in the cabinet after all contacts were resolved is wedged.
_WEDGED = 0.002


class World:
    """Everything that moves.

    Attributes:
        hand: the tool's place, rotation and gap.
        closed: what the gripper was told, 0 open to 1 closed.
        things: all objects; ``held`` is the one in the gripper, or None.
        handle: the drawer whose handle is in the gripper, or -1.
        seconds: since the beginning.
    """

    def __init__(self, things: list[Thing], cabinet: Cabinet | None, start: tuple[float, float, float]) -> None:
        self.log = Log()
        self.things = things
        self.cabinet = cabinet
        self.heap = Heap(things, cabinet, self.log)
        self.hand = Hand(np.array(start))
        self.closed = 0.0
        self.handle = -1
        self._touching = Touching(self.hand, self.heap, self.log)
        self._held_place = np.zeros(3)
        self._held_turn = np.eye(3)
        self._slip = 0.0

    @property
    def held(self) -> Thing | None:
        return self.heap.held

    @property
    def seconds(self) -> float:
        return self.log.now

    def step(self, move: np.ndarray, turn: np.ndarray, gripper: float) -> list[Contact]:
        """One control step of 1/3 s; its contacts.

        Args:
            move: ``(3,)`` metres by which the tool is to go in the base frame; longer ones are cut to ``MAX_MOVE``.
            turn: ``(3,)`` rotation vector in the base frame, about the tool's origin; cut to ``MAX_TURN``.
            gripper: added to ``closed``: 1 closes, -1 opens, 0 keeps.
        """
        move, turn = _shorten(move, m.MAX_MOVE), _shorten(turn, m.MAX_TURN)
        length, angle = math.hypot(*move), math.hypot(*turn)
        self.closed = min(max(self.closed + gripper, 0.0), 1.0)
        # The palm's far end is 13 cm from the point that the hand turns about.
        count = max(m.FEWEST_SUBSTEPS, math.ceil((length + 0.13 * angle) / m.FINEST_MOVE))
        seconds = m.STEP / count
        rotation = axis_angle_to_matrix(turn / count) if angle > 1e-12 else None
        start = self.log.now
        self.log.contacts.clear()
        self._slip = 0.0
        speed = (length + 0.1 * angle) / m.STEP
        wedged = 0.0
        for index in range(count):
            self.log.advance(start + (index + 1) * seconds - self.log.now)
            squeezed = self._move_fingers(seconds)
            place, tilt = self.hand.place.copy(), self.hand.turn
            self._move_tool(move / count, rotation, angle / count, speed)
            stuck = self._touching.resolve(squeezed, speed, self.handle < 0)
            if stuck > _WEDGED and stuck > wedged:  # no way out: the hand stays where it was
                self.hand.place[:], self.hand.turn = place, tilt
            wedged = stuck
            self._carry()
            self.heap.fall(seconds)
        if rotation is not None:
            self.hand.turn = _orthonormal(self.hand.turn)
            self._carry()
        return list(self.log.contacts)

    def _move_tool(self, move: np.ndarray, rotation: np.ndarray | None, angle: float, speed: float) -> None:
        hand = self.hand
        if self.handle >= 0:
            self._slip += math.hypot(move[1], move[2]) / _SLIP + angle / _SLIP_TURN
            if self._slip > 1:
                self.handle = -1
                hand.gap -= 1e-3  # the bar is behind the pads now: closing does not catch it again
            else:
                reach = math.hypot(hand.place[0] + move[0], hand.place[1])
                if m.REACH[0] < reach < m.REACH[1]:
                    hand.place[0] -= self.heap.slide(self.handle, -move[0], speed)
                return
        place = hand.place + move
        reach = math.hypot(place[0], place[1])
        allowed = min(max(reach, m.REACH[0]), m.REACH[1])
        if reach != allowed:
            place[:2] *= allowed / max(reach, 1e-9)
        place[0] = max(place[0], 0.1)  # never behind the robot
        place[2] = min(place[2], m.CEILING)
        hand.place[:] = place
        if rotation is not None:
            turned = rotation @ hand.turn
            if -turned[2, 2] >= math.cos(m.MAX_TILT):
                hand.turn = turned

    def _move_fingers(self, seconds: float) -> Thing | None:
        """Open or close by one sub-step; the thing that the fingers are centring, if any."""
        hand, target = self.hand, (1 - self.closed) * m.GAP
        way = m.FINGER_SPEED * seconds
        if target > hand.gap:
            hand.gap = min(target, hand.gap + way)
            self.handle = -1
            self._release()
            return None
        if target == hand.gap or self.held is not None or self.handle >= 0:
            return None
        gap = max(target, hand.gap - way)
        found = self._between()
        if found is None:
            hand.gap = gap
            return None
        what, grip, place = found
        aside = abs(place[1])
        if gap / 2 <= grip.half:
            gap = min(2 * grip.half, hand.gap)
            if grip.holds:
                self._take(what, grip, place)
        elif gap / 2 < grip.half + aside:
            # One finger has touched and pushes the thing to the middle; a handle stays and the hand gives way.
            side = math.copysign(aside - (gap / 2 - grip.half), place[1]) * hand.turn[:, 1]
            if isinstance(what, Thing):
                self.log.touch(("gripper", what.name), ("rubber", what.kind.material), what.place, way / seconds)
                self.heap.shove(what, -side[0], -side[1])
            else:
                hand.place += side
        hand.gap = gap
        return what if isinstance(what, Thing) else None

    def _between(self) -> tuple[Thing | int, Grip, np.ndarray] | None:
        """The nearest thing or handle (its drawer's number) between the fingers."""
        hand, best = self.hand, None
        nearest = math.inf
        for thing in self.heap.free:
            if math.dist(thing.place, hand.place) < 0.15:
                place = hand.to_tool(thing.place)
                grip = find_grip(thing.kind.form, thing.kind.size, place, hand.turn.T @ thing.turn)
                # A round thing that is not held slips out sideways: the fingers push it like any other.
                if grip and (grip.holds or thing.kind.form == "box") and self._fits(grip, place):
                    distance = float(place @ place)
                    if distance < nearest:
                        nearest, best = distance, (thing, grip, place)
        if self.cabinet is not None:
            for drawer in range(3):
                bar = self.cabinet.handle(drawer)
                if math.dist(bar, hand.place) < 0.08:
                    place = hand.to_tool(bar)
                    grip = find_grip("cylinder", (m.HANDLE_HALF[0], m.HANDLE_HALF[2]), place, hand.turn.T)
                    if grip and grip.holds and self._fits(grip, place) and float(place @ place) < nearest:
                        return drawer, grip, place
        return best

    def _fits(self, grip: Grip, place: np.ndarray) -> bool:
        return abs(place[1]) + grip.half <= self.hand.gap / 2 + _SQUEEZE

    def _take(self, what: Thing | int, grip: Grip, place: np.ndarray) -> None:
        hand = self.hand
        if isinstance(what, Thing):
            self._held_place = np.array([place[0], 0.0, place[2]])
            self._held_turn = grip.turn
            spheres = what.spheres.copy()
            spheres[:, :3] = spheres[:, :3] @ grip.turn.T + self._held_place
            hand.load = spheres
            self.heap.held = what
            what.inside, what.fall = -1, 0.0
            self.log.touch(("gripper", what.name), ("rubber", what.kind.material), what.place, m.FINGER_SPEED)
            self.heap.wake()
        else:
            hand.place += place[1] * hand.turn[:, 1]
            self.handle = what
            self.log.touch(("gripper", f"drawer:{m.DRAWERS[what]}"), ("rubber", "metal"), hand.place, m.FINGER_SPEED)

    def _carry(self) -> None:
        thing = self.held
        if thing is not None:
            thing.place[:] = (self.hand.place + self.hand.turn @ self._held_place).tolist()
            thing.turn = self.hand.turn @ self._held_turn

    def _release(self) -> None:
        thing = self.held
        if thing is None:
            return
        self.heap.held = None
        self.hand.load = np.zeros((0, 4))
        thing.settle()
        thing.fall = 0.0
        self.heap.wake()
        self.heap.release(thing)


def _shorten(vector: np.ndarray, limit: float) -> np.ndarray:
    vector = np.asarray(vector, dtype=np.float64)
    length = math.hypot(*vector)
    return vector if length <= limit else vector * (limit / length)


def _orthonormal(turn: np.ndarray) -> np.ndarray:
    """Rounding errors of many small rotations taken out (Gram-Schmidt)."""
    z = turn[:, 2] / math.sqrt(float(turn[:, 2] @ turn[:, 2]))
    y = turn[:, 1] - z * float(z @ turn[:, 1])
    y /= math.sqrt(float(y @ y))
    x = np.array([y[1] * z[2] - y[2] * z[1], y[2] * z[0] - y[0] * z[2], y[0] * z[1] - y[1] * z[0]])
    return np.stack([x, y, z], axis=1)
