"""Policies that look at nothing: what a result has to beat, and what shows that acting itself works.

To add one, write a class and a line in :data:`selfflow_robotics.policies.loading.BASELINES`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from selfflow_mm.errors import UserError

from ..actions.chunks import padded
from ..interfaces import PolicyAbout, Request
from ..robot_episode import ACTION_NAMES, GRIPPER
from ..sources import RobotFiles, open_episodes
from ..statistics import Statistics, missing_statistics
from .seeds import derived_seed

__all__ = ["MeanPolicy", "RandomPolicy", "ReplayPolicy", "ZeroPolicy"]

_HORIZON, _RATE = 8, 3.0
_MAX_HORIZON = 10_000  # a number that does not fit the memory is told before anybody asks


class RandomPolicy:
    """Every number uniform and independent, the gripper open or closed with even odds at every step.

    Args:
        statistics: (or their file) between whose q01 and q99 the numbers lie; without them between -1 and 1, the whole
            box of the tabletop's actions, which is far more than any robot does.
        horizon: actions in a chunk.
        control_rate: actions per second; that of the statistics unless given, or 3.
    """

    def __init__(
        self, statistics: Statistics | Path | str | None = None, horizon: int = _HORIZON, control_rate: float = 0.0
    ) -> None:
        known = _loaded(statistics)
        self.about = _about("random", known, horizon, control_rate)
        width = len(self.about.action_names)
        self._low = np.full(width, -1.0) if known is None else np.array(known.actions.q01)
        self._high = np.full(width, 1.0) if known is None else np.array(known.actions.q99)

    def chunks(self, requests: Sequence[Request]) -> np.ndarray:
        return np.stack([self._chunk(request.seed) for request in requests])

    def _chunk(self, seed: int) -> np.ndarray:
        shape = (self.about.horizon, len(self.about.action_names))
        drawn = np.random.default_rng(derived_seed("random policy", seed)).random(shape)
        chunk = self._low + (self._high - self._low) * drawn
        if "gripper" in self.about.action_names:
            column = self.about.action_names.index("gripper")
            chunk[:, column] = drawn[:, column] < 0.5
        return chunk.astype(np.float32)


class ZeroPolicy:
    """Holds still with an open gripper.

    Args:
        horizon: actions in a chunk.
        control_rate: actions per second.
    """

    def __init__(self, horizon: int = _HORIZON, control_rate: float = _RATE) -> None:
        self.about = _about("zero", None, horizon, control_rate)

    def chunks(self, requests: Sequence[Request]) -> np.ndarray:
        result = np.zeros((len(requests), self.about.horizon, len(ACTION_NAMES)), np.float32)
        result[..., GRIPPER] = 1
        return result


class MeanPolicy:
    """The mean action of a data set, always: of all that look at nothing, the one with the least squared error.

    Args:
        statistics: (or their file) of the data set.
        horizon: actions in a chunk.
        control_rate: actions per second; that of the statistics unless given.

    Raises:
        UserError: no statistics.
    """

    def __init__(
        self, statistics: Statistics | Path | str | None = None, horizon: int = _HORIZON, control_rate: float = 0.0
    ) -> None:
        known = _loaded(statistics)
        if known is None:
            raise missing_statistics("the policy 'mean' takes the mean of a data set's statistics, and none are given")
        self.about = _about("mean", known, horizon, control_rate)
        self._mean = np.array(known.actions.mean, np.float32)

    def chunks(self, requests: Sequence[Request]) -> np.ndarray:
        return np.broadcast_to(self._mean, (len(requests), self.about.horizon, len(self._mean))).copy()


class ReplayPolicy:
    """Does what was recorded, whatever it sees: question n is answered with the actions from step n * executed on.

    After the episode's end it holds still with the last gripper. Which episode: ``episode``; or, for None, one of those
    with the observation's instruction, and of all where there is none, chosen by a hash of ``seed`` and of the
    instruction.

    Args:
        data: folder of robot data, or data that are open.
        episode: number of the episode in the split, or None.
        executed: actions that are carried out between questions; the whole chunk unless given.
        horizon: actions in a chunk.
        split: of the data set.
        layout: file or name, as for :func:`selfflow_robotics.sources.open_episodes`.
        first: how many episodes of the split are considered where ``episode`` is None.
        seed: of the choice.

    Raises:
        UserError: no such data or episode.
    """

    def __init__(
        self,
        data: Path | str | RobotFiles | None = None,
        episode: int | None = None,
        executed: int | None = None,
        horizon: int = _HORIZON,
        split: str | None = None,
        layout: Path | str | None = None,
        first: int = 200,
        seed: int = 0,
    ) -> None:
        if data is None:
            raise UserError(
                "the policy 'replay' does what was recorded, and no data are given; name their folder ('data')"
            )
        if seed < 0:
            raise UserError(f"a seed is at least 0, got {seed}")
        self._source = data if isinstance(data, RobotFiles) else open_episodes(data, layout, split)
        self._seed = seed
        self._executed = horizon if executed is None else executed
        chosen = range(min(first, len(self._source))) if episode is None else [episode]
        if len(chosen) == 0:
            raise UserError(f"{self._source.files.folder} has no episode to replay")
        self._actions: list[np.ndarray] = []
        self._numbers: dict[str, list[int]] = {}  # instruction -> places in the list of actions
        names: tuple[str, ...] = ACTION_NAMES
        for place, number in enumerate(chosen):
            recorded = self._source.read(*self._source.locate(number))
            names = recorded.action_names
            self._actions.append(np.asarray(recorded.actions, np.float32))
            self._numbers.setdefault(recorded.instruction, []).append(place)
        self.about = PolicyAbout(
            name="replay",
            horizon=_checked(horizon),
            control_rate=self._source.control_rate,
            action_names=names,
            executed=self._executed,
            extra={
                "data": str(self._source.files.folder),
                "split": self._source.files.split,
                "episodes": [chosen[0], chosen[-1]],
                "seed": seed,
            },
        )

    def chunks(self, requests: Sequence[Request]) -> np.ndarray:
        return np.stack([self._chunk(request) for request in requests])

    def _chunk(self, request: Request) -> np.ndarray:
        said = request.observation.instruction
        matching = self._numbers.get(said) or range(len(self._actions))
        drawn = derived_seed("replay", self._seed, *said.encode())
        actions = self._actions[matching[drawn % len(matching)]]
        steps = request.query * self._executed + np.arange(self.about.horizon)
        return padded(actions, steps, self.about.action_names)


def _loaded(statistics: Statistics | Path | str | None) -> Statistics | None:
    return Statistics.load(statistics) if isinstance(statistics, Path | str) else statistics


def _about(name: str, statistics: Statistics | None, horizon: int, rate: float) -> PolicyAbout:
    known = statistics.control_rates if statistics else ()
    rate = rate or (known[0] if len(known) == 1 else _RATE)
    if not 0 < rate < math.inf:
        raise UserError(f"a control rate is a number of actions per second above 0, not {rate}")
    names = statistics.actions.names if statistics else ACTION_NAMES
    extra = {"statistics": statistics.digest} if statistics else {}
    return PolicyAbout(name=name, horizon=_checked(horizon), control_rate=rate, action_names=names, extra=extra)


def _checked(horizon: int) -> int:
    if horizon < 1:
        raise UserError(f"a chunk has at least one action, not {horizon}")
    if horizon > _MAX_HORIZON:
        raise UserError(f"a chunk has at most {_MAX_HORIZON} actions, not {horizon}")
    return horizon
