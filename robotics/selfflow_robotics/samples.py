"""Training samples from a stream of episodes: windows, resized and normalised, in an order that resumes exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from selfflow_mm.errors import UserError

from .actions.transform import Transform
from .resizing import Fit, resize
from .robot_episode import RobotEpisode
from .windows import Window, WindowSpec, cut, starts

__all__ = ["EpisodeSource", "RobotSample", "RobotSamples"]

STATE_VERSION = 1


class EpisodeSource(Protocol):
    """What samples need of :class:`selfflow_robotics.stream.EpisodeStream`.

    ``epoch`` is that of the episode that comes next; ``exclude`` leaves out an episode whose pictures do not decode.
    """

    epoch: int

    def __iter__(self) -> Iterator[RobotEpisode]: ...

    def exclude(self, episode: RobotEpisode, reason: str) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True, eq=False)
class RobotSample:
    """What a model is trained on: a window with everything as it enters the model.

    A, F, D, S and the times and masks are those of :class:`selfflow_robotics.windows.Window`.

    Attributes:
        episode: its id.
        epoch: in which it was drawn.
        start: step of the episode at which the present is.
        robot: its name.
        control_rate: steps per second.
        instruction: what the robot was told.
        present: second of the start.
        video: ``(F, H, W, 3)`` uint8.
        frame_times, frame_mask: ``(F,)`` float64 and bool.
        actions: ``(A, D)`` float32, normalised if ``actions_normalised``, else in raw units.
        action_times, action_mask: ``(A,)`` float64 and bool.
        terminate: ``(A,)`` bool.
        states: ``(A, S)`` float32, normalised if ``states_normalised``.
        state_mask: ``(A,)`` bool.
        actions_normalised, states_normalised: whether they were.
    """

    episode: str
    epoch: int
    start: int
    robot: str
    control_rate: float
    instruction: str
    present: float
    video: np.ndarray
    frame_times: np.ndarray
    frame_mask: np.ndarray
    actions: np.ndarray
    action_times: np.ndarray
    action_mask: np.ndarray
    terminate: np.ndarray
    states: np.ndarray
    state_mask: np.ndarray
    actions_normalised: bool
    states_normalised: bool


class RobotSamples:
    """Samples for as long as the stream gives episodes.

    Which windows of an episode come, and in which order, is a pure function of (seed, epoch, episode id): the same
    whatever came before, on however many processes. An episode one of whose pictures cannot be decoded is reported to
    the stream, which leaves it out from then on.

    Args:
        stream: of episodes.
        spec: of the windows.
        actions: how actions are normalised (:func:`selfflow_robotics.actions.normalise.normaliser`, or any transform
            that works step by step). None leaves them raw, which has to be said: there is no default.
        states: the same for states.
        size: (height, width) of the pictures; as stored unless given.
        fit: how they are brought to that size.
        windows: how many windows to draw from each episode, without repeats; None for all.
        seed: of the draws.

    Raises:
        UserError: a setting out of range; while iterating, an episode lacks the camera.
    """

    def __init__(
        self,
        stream: EpisodeSource,
        spec: WindowSpec,
        *,
        actions: Transform | None,
        states: Transform | None,
        size: tuple[int, int] | None = None,
        fit: Fit = "pad",
        windows: int | None = 1,
        seed: int = 0,
    ) -> None:
        if windows is not None and windows < 1:
            raise UserError(f"at least one window is drawn from each episode, not {windows}")
        self.stream, self.spec, self.actions, self.states = stream, spec, actions, states
        self.size, self.fit, self.windows, self.seed = size, fit, windows, seed
        self._before: dict[str, Any] = stream.state_dict()  # the stream's place before the present episode
        self._given = 0  # windows of the present episode that were given

    def __iter__(self) -> Iterator[RobotSample]:
        """Go on from the present place. One iterator at a time: they would share the place."""
        if self._given:
            self.stream.load_state_dict(self._before)  # an iterator was left within an episode; read that one again
        episodes = iter(self.stream)
        fruitful = self.stream.epoch  # the last epoch that gave a sample
        while True:
            self._before, epoch = self.stream.state_dict(), self.stream.epoch
            if epoch > fruitful + 1:
                raise UserError(f"no episode of a whole epoch is long enough for a window of {self.spec}")
            episode = next(episodes, None)
            if episode is None:
                return
            for start in self._starts(episode, epoch)[self._given :]:
                try:
                    window = cut(episode, int(start), self.spec)
                except UserError as error:
                    if self.spec.camera is not None and self.spec.camera not in episode.images:
                        raise  # a wrong setting, not a damaged episode
                    self.stream.exclude(episode, str(error))
                    break
                self._given += 1
                fruitful = epoch
                yield self._sample(episode, epoch, window)
            self._given = 0

    def state_dict(self) -> dict[str, Any]:
        """The place: the sample after the last one given comes next wherever this is loaded."""
        return {
            "version": STATE_VERSION,
            "stream": self._before if self._given else self.stream.state_dict(),
            "given": self._given,
            "seed": self.seed,
            "windows": self.windows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken.

        Raises:
            UserError: other settings, other data, or another version.
        """
        if state.get("version") != STATE_VERSION:
            raise UserError(f"the state of the samples has version {state.get('version')}, not {STATE_VERSION}")
        for name in ("seed", "windows"):
            if state[name] != getattr(self, name):
                raise UserError(f"the run was stopped with {name} {state[name]}, now it is {getattr(self, name)}")
        self.stream.load_state_dict(state["stream"])
        self._before, self._given = state["stream"], int(state["given"])

    def describe(self) -> str:
        """One line for a log; it tells whether anything is normalised."""
        parts = [f"{self.spec.actions} actions and {self.spec.frames} frames"]
        for name, transform in (("actions", self.actions), ("states", self.states)):
            parts.append(f"{name} {'raw, not normalised' if transform is None else 'normalised'}")
        return ", ".join(parts)

    def _starts(self, episode: RobotEpisode, epoch: int) -> np.ndarray:
        possible = starts(len(episode), self.spec, episode.control_rate)
        key = hashlib.blake2b(f"{self.seed}/{epoch}/{episode.id}".encode(), digest_size=16).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
        return generator.permutation(possible)[: self.windows]

    def _sample(self, episode: RobotEpisode, epoch: int, window: Window) -> RobotSample:
        actions, states = window.actions, window.states
        return RobotSample(
            episode=episode.id,
            epoch=epoch,
            start=window.start,
            robot=episode.robot,
            control_rate=episode.control_rate,
            instruction=episode.instruction,
            present=window.present,
            video=window.video if self.size is None else resize(window.video, self.size, self.fit),
            frame_times=window.frame_times,
            frame_mask=window.frame_mask,
            actions=actions if self.actions is None else self.actions.forward(actions).astype(np.float32),
            action_times=window.action_times,
            action_mask=window.action_mask,
            terminate=window.terminate,
            states=states if self.states is None else self.states.forward(states).astype(np.float32),
            state_mask=window.state_mask,
            actions_normalised=self.actions is not None,
            states_normalised=self.states is not None,
        )
