"""What every scripted solution is made of: going somewhere, taking hold of something, letting go."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..actions.rotations import matrix_to_axis_angle
from . import measures as m
from .hand import REST
from .things import Thing, turned
from .world import World

#: At most this far per control step, metres and radians: the pace of RT-1's demonstrations.
PACE, TURN_PACE = 0.08, 0.25
_CLOSE_ENOUGH, _STRAIGHT_ENOUGH = 0.004, 0.03
_MANY = 40  # steps of one movement before it is given up
#: What the palm needs above a thing, and the fingertips above the table.
_PALM_ROOM = -m.PALM_HEIGHT - m.PALM_RADIUS - 0.006
_TIP_ROOM = m.FINGER_HEIGHTS[0] + m.FINGER_RADIUS + 0.003

Actions = Iterator[np.ndarray]


class Motions:
    """Movements of the gripper as iterators of actions ``(7,)``, each drawn for the state that the world is in then.

    ``noise`` and ``rng`` vary them; ``phase`` is what is being done, in one word.
    """

    def __init__(self, world: World, noise: float, rng: np.random.Generator) -> None:
        self.world = world
        self.noise = noise
        self.rng = rng
        self.phase = "begin"

    def go(self, place: np.ndarray, turn: np.ndarray, phase: str, fine: bool = True, pace: float = PACE) -> Actions:
        """Move the tool to a place and rotation; ``fine`` waits until it is there, else passing by is enough."""
        self.phase = phase
        hand = self.world.hand
        speed, stuck, last = 0.0, 0, math.inf
        for _ in range(_MANY):
            way, lean = place - hand.place, matrix_to_axis_angle(turn @ hand.turn.T)
            far, angle = float(np.linalg.norm(way)), float(np.linalg.norm(lean))
            # Something is in the way: what follows has to do with the place it has come to.
            stuck = stuck + 1 if far + 0.1 * angle > last - 1e-3 else 0
            last = far + 0.1 * angle
            if stuck == 4:
                return
            if far < (_CLOSE_ENOUGH if fine else 0.03) and angle < (_STRAIGHT_ENOUGH if fine else 0.2):
                return
            # Speed up over two or three steps, slow down towards the end.
            speed = min(pace, speed + pace / 2, 0.65 * far + 0.006)
            action = np.zeros(7)
            action[:3] = way * min(speed / max(far, 1e-9), 1.0)
            action[3:6] = lean * min(min(TURN_PACE, 0.6 * angle + 0.02) / max(angle, 1e-9), 1.0)
            if far > 0.04:
                action[:3] += self.rng.normal(0.0, 0.003, 3) * self.noise
                action[3:6] += self.rng.normal(0.0, 0.01, 3) * self.noise
            yield action

    def grip(self, change: float, steps: int, phase: str) -> Actions:
        self.phase = phase
        for step in range(steps):
            action = np.zeros(7)
            action[6] = change if step == 0 else 0.0
            yield action

    def let_go(self, back: np.ndarray) -> Actions:
        """Open the gripper and move away by ``back``."""
        yield from self.grip(-1.0, 2, "open")
        hand = self.world.hand
        yield from self.go(hand.place + back, hand.turn.copy(), "retreat", fine=False)

    def lift(self, height: float) -> Actions:
        hand = self.world.hand
        yield from self.go(hand.place + np.array([0.0, 0.0, height]), hand.turn.copy(), "lift", fine=False)

    def grasp(self, thing: Thing, over: float = 0.0) -> Actions:
        """Take hold of a thing from above, coming at a height of ``over`` or more; a miss is tried again."""
        world = self.world
        for _ in range(5):
            if thing.place[2] < m.TABLE_TOP:  # on the floor, out of reach
                return
            turn = turned(self._yaw(thing)) @ REST
            off = np.clip(self.rng.normal(0.0, 0.004, 2) * self.noise, -0.012, 0.012)
            middle = np.array([thing.place[0] + off[0], thing.place[1] + off[1], 0.0])
            low = max(thing.place[2], thing.top - _PALM_ROOM, thing.bottom + _TIP_ROOM)
            if world.closed > 0:
                yield from self.grip(-1.0, 2, "open")
            above = middle + np.array([0.0, 0.0, max(thing.top + 0.08, low + 0.10)])
            if world.hand.place[2] < above[2] - 0.02:
                up = np.array([world.hand.place[0], world.hand.place[1], above[2]])
                yield from self.go(up, world.hand.turn.copy(), "up", fine=False)
            bend = np.append(self.rng.normal(0.0, 0.02, 2) * self.noise, abs(self.rng.normal(0.0, 0.02)) * self.noise)
            half_way = (world.hand.place + above) / 2 + bend
            half_way[2] = max(half_way[2], above[2], over)
            yield from self.go(half_way, turn, "above", fine=False)
            if over > above[2]:
                yield from self.go(np.array([above[0], above[1], over]), turn, "above", fine=False)
            yield from self.go(above, turn, "above", fine=True)
            yield from self.go(middle + np.array([0.0, 0.0, low]), turn, "down", pace=0.06)
            self.phase = "close"
            for step in range(4):
                if world.held is thing:
                    return
                action = np.zeros(7)
                action[6] = 1.0 if step == 0 else 0.0
                yield action
            if world.held is thing:
                return

    def _yaw(self, thing: Thing) -> float:
        """Rotation of the hand that lays the fingers on the thing's narrow sides, the nearest of the two."""
        footprint = thing.footprint
        if not footprint.b:
            return 0.0
        angle = math.atan2(footprint.sin, footprint.cos)
        if footprint.a < footprint.b:
            angle += math.pi / 2
        return (angle + math.pi / 2) % math.pi - math.pi / 2  # across the long side, fingers at 90 degrees to it
