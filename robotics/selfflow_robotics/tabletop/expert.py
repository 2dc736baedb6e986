"""A scripted expert that looks at the physics' state instead of pictures."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np

from ..actions.rotations import axis_angle_to_matrix
from . import measures as m
from .env import TabletopEnv
from .hand import FINGERS, REST
from .motions import Actions, Motions
from .tasks import CloseDrawer, MoveNear, OpenDrawer, Pick, PlaceInDrawer
from .things import turned

#: How far the hand leans forward at drawers.
_LEAN = math.radians(65)
_STREAM = 0x65787074


class Expert(Motions):
    """Solves an episode from where it is now; make a new one after each reset.

    Args:
        env: made by ``gymnasium.make("selfflow/Tabletop-v0")``, wrapped or not.
        noise: 0 always does the same; about 1 varies the way, the places of grasps and every step (3 mm and 0.01 rad
            times ``noise``) as different people would, and sometimes misses.
        seed: of the noise.

    Attributes:
        done: whether the expert thinks that the task is over: RT-1's terminate action.
        phase: what it is doing, in one word.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], noise: float = 0.0, seed: int | None = None) -> None:
        base = env.unwrapped
        assert isinstance(base, TabletopEnv)
        # A stream of its own: an environment with the layout of the same number would draw the very same numbers, and
        # what the expert makes up would depend on where things stand.
        super().__init__(base.task.world, noise, np.random.default_rng(None if seed is None else [seed, _STREAM]))
        self.env = base
        self.done = False
        self._actions = self._solve()

    def act(self) -> np.ndarray:
        """The next action ``(7,)`` float32, for the state that the environment is in now; zeros once done.

        Where a task has two instructions it calls ``advance_to_next_subtask`` when the first is done.
        """
        action = next(self._actions, None)
        if action is None:
            self.done = True
            self.phase = "done"
            return np.zeros(7, np.float32)
        return action.astype(np.float32)

    def wander(self) -> Actions:
        """Before :meth:`act`: go to a place above the table that has nothing to do with the task, and perhaps close the
        gripper there, so that what follows shows the way from anywhere and not only from where episodes begin.
        """
        low, high = (0.45, -0.35, m.TABLE_TOP + 0.04), (0.85, 0.35, m.TABLE_TOP + 0.35)
        place, turn = self.rng.uniform(low, high), turned(self.rng.uniform(-math.pi / 2, math.pi / 2)) @ REST
        yield from self.go(place, turn, "wander", fine=False, pace=0.2)
        if self.rng.random() < 0.5:
            yield from self.grip(1.0, 2, "wander")

    def _solve(self) -> Actions:
        task = self.env.task
        if isinstance(task, Pick):
            among = [thing.top for thing in task.world.things if thing is not task.thing]
            yield from self.grasp(task.thing, over=max(among) + 0.06 if among else 0.0)
            yield from self.lift(0.10)
        elif isinstance(task, MoveNear):
            yield from self._move_near(task)
        elif isinstance(task, CloseDrawer):
            yield from self._close_drawer(task)
        elif isinstance(task, OpenDrawer):
            yield from self._open_drawer(task.drawer)
        elif isinstance(task, PlaceInDrawer):
            yield from self._open_drawer(task.drawer)
            # The hand is still on the handle, as it is wherever the second instruction comes: letting go belongs to it.
            self.env.advance_to_next_subtask()
            yield from self.let_go(np.array([-0.09, 0.0, 0.0]))
            yield from self._place_in_drawer(task)

    def _move_near(self, task: MoveNear) -> Actions:
        world, source = task.world, task.source
        for _ in range(3):
            clear = max(other.top for other in (task.target, task.other)) + 0.04
            yield from self.grasp(source, over=clear + 0.02)
            if world.held is not source:
                return
            hand = world.hand
            under = hand.place[2] - source.bottom  # what hangs below the tool's origin
            high = max(clear + under, hand.place[2] + 0.05)
            x, y = self._spot(task)
            turn = hand.turn.copy()
            yield from self.go(np.array([hand.place[0], hand.place[1], high]), turn, "lift", fine=False)
            yield from self.go(np.array([x, y, high]), turn, "carry")
            yield from self.go(np.array([x, y, m.TABLE_TOP + under + 0.002]), turn, "down", pace=0.06)
            yield from self.let_go(np.array([0.0, 0.0, 0.10]))
            if task.evaluate():
                return

    def _spot(self, task: MoveNear) -> tuple[float, float]:
        """A free place beside the target, on the side from which the source comes where possible."""
        source, target, other = task.source, task.target, task.other
        best, cost = (target.place[0], target.place[1]), math.inf
        for index in range(48):
            angle = index * 2 * math.pi / 48
            u, v = math.cos(angle), math.sin(angle)
            away = source.footprint.radius + target.footprint.reach(u, v) + 0.06
            x, y = target.place[0] + u * away, target.place[1] + v * away
            if not (0.40 < math.hypot(x, y) < 0.92 and x > 0.44 and abs(y) < 0.6):
                continue
            room = math.dist((x, y), other.place[:2]) - source.footprint.radius - other.footprint.radius
            if room > 0.06 and math.dist((x, y), other.place[:2]) > away + 0.03:
                way = math.dist((x, y), source.place[:2]) - 0.5 * min(room, 0.2)
                if way < cost:
                    best, cost = (x, y), way
        return best

    def _open_drawer(self, drawer: int) -> Actions:
        world, cabinet = self.world, self.world.cabinet
        assert cabinet is not None
        turn = axis_angle_to_matrix(np.array([0.0, -_LEAN, 0.0])) @ REST
        for _ in range(4):
            handle = np.array(cabinet.handle(drawer))
            if world.closed > 0:
                yield from self.grip(-1.0, 2, "open")
            off = np.clip(self.rng.normal(0.0, 0.004, 3) * self.noise, -0.012, 0.012) * np.array([0.3, 1.0, 1.0])
            yield from self.go(handle + np.array([-0.11, 0.0, 0.0]) + off, turn, "reach")
            yield from self.go(handle + off, turn, "reach", pace=0.05)
            self.phase = "close"
            for step in range(4):
                if world.handle == drawer:
                    break
                action = np.zeros(7)
                action[6] = 1.0 if step == 0 else 0.0
                yield action
            for _ in range(12):
                left = 0.2 - cabinet.opening[drawer]
                if world.handle != drawer or left < 0.003:
                    break
                self.phase = "pull"
                action = np.zeros(7)
                action[0] = -min(0.05, 0.65 * left + 0.006)
                action[1:3] = self.rng.normal(0.0, 0.002, 2) * self.noise
                yield action
            if cabinet.opening[drawer] >= 0.19:
                return
            yield from self.let_go(np.array([-0.08, 0.0, 0.0]))

    def _close_drawer(self, task: CloseDrawer) -> Actions:
        world, cabinet, drawer = task.world, task.cabinet, task.drawer
        turn = axis_angle_to_matrix(np.array([0.0, -_LEAN, 0.0])) @ REST
        side = math.copysign(0.05, world.hand.place[1] - cabinet.side) + float(self.rng.normal(0, 0.005)) * self.noise
        for _ in range(3):
            x, y, z = cabinet.handle(drawer)
            before = np.array([x - 0.07, y + side, z])
            yield from self.grip(1.0, 1, "close")
            yield from self.go(before, turn, "reach")
            for _ in range(14):
                if cabinet.opening[drawer] < 0.004:
                    break
                self.phase = "push"
                action = np.zeros(7)
                action[0] = 0.05
                action[1:3] = self.rng.normal(0.0, 0.002, 2) * self.noise
                yield action
            if cabinet.opening[drawer] < 0.03:
                return
            yield from self.go(world.hand.place + np.array([-0.08, 0.0, 0.0]), turn, "retreat", fine=False)

    def _place_in_drawer(self, task: PlaceInDrawer) -> Actions:
        world, cabinet, thing = task.world, task.cabinet, task.thing
        hand = world.hand
        for _ in range(3):
            high = cabinet.height(task.drawer) + m.PANEL_HALF[2] + 0.06
            yield from self.go(np.array([min(hand.place[0], 0.5), hand.place[1], high]), hand.turn.copy(), "up", False)
            yield from self.grasp(thing, over=high)
            if world.held is not thing:
                return
            under = float(hand.place[2] - _lowest(task))
            carry = cabinet.rim(task.drawer) + under + 0.05
            # The drawer's middle, but clear of the handles above it.
            x = cabinet.front - max(cabinet.opening[task.drawer] * 0.58, 0.105)
            turn = hand.turn.copy()
            yield from self.go(np.array([hand.place[0], hand.place[1], carry]), turn, "lift", fine=False)
            yield from self.go(np.array([x, cabinet.side, carry]), turn, "carry")
            yield from self.go(np.array([x, cabinet.side, carry - 0.06]), turn, "down", pace=0.05)
            yield from self.grip(-1.0, 2, "open")
            if thing.inside == task.drawer:
                return


def _lowest(task: PlaceInDrawer) -> float:
    """z of the lowest point of the held thing."""
    spheres = task.world.hand.spheres()[FINGERS + len(m.PALM_SIDES) :]
    return float((spheres[:, 2] - spheres[:, 3]).min())
