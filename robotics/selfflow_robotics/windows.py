"""Training windows: a stretch of an episode with its pictures at one rate and its actions and states at another.

Second 0 is the window's first frame. Frame j stands at second j / video_rate and shows the camera's nearest *earlier*
picture, never one from the future; action k stands at second k / control_rate and acts from that time on; state k was
measured then. What lies outside the episode is padded (the nearest picture and state again, the robot holding still)
and masked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from selfflow_mm.errors import UserError

from .actions.chunks import padded
from .robot_episode import RobotEpisode

__all__ = ["Window", "WindowSpec", "cut", "starts"]

# A frame's time in control steps is a quotient of rates: 3 must not come out as 2.9999999 and show the picture before.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class WindowSpec:
    """What a window holds.

    Attributes:
        actions: H, actions from the window's start on, at the control rate.
        frames: F, pictures.
        video_rate: pictures per second; the episode's control rate unless given. A higher one repeats pictures.
        history: control steps before the start that the window holds as well: it then begins that much earlier, and has
            ``history + actions`` actions and states. Frames are not added.
        stride: control steps between the starts that :func:`starts` lists.
        padding: False lists only starts whose window lies wholly in the episode.
        camera: which pictures; the episode's first camera unless given.
    """

    actions: int
    frames: int
    video_rate: float | None = None
    history: int = 0
    stride: int = 1
    padding: bool = True
    camera: str | None = None

    def __post_init__(self) -> None:
        least = {"actions": 1, "frames": 1, "history": 0, "stride": 1}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise UserError(f"a window's '{name}' is at least {smallest}, not {getattr(self, name)}")
        if self.video_rate is not None and not (math.isfinite(self.video_rate) and self.video_rate > 0):
            raise UserError(f"video_rate is in pictures per second, above 0, not {self.video_rate}")

    def frame_steps(self, control_rate: float) -> np.ndarray:
        """``(F,)`` control steps after the window's beginning at which its pictures were taken."""
        steps_per_frame = control_rate / (self.video_rate or control_rate)
        return np.floor(np.arange(self.frames) * steps_per_frame + _ROUNDING).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Window:
    """A cut. A = history + actions of its spec; times in seconds from the window's first frame.

    Attributes:
        start: step of the episode at which the present is; the window begins ``history`` steps earlier.
        present: second of the start, ``history / control_rate``.
        video: ``(F, H, W, C)`` uint8.
        frame_steps: ``(F,)`` steps of the episode whose pictures are shown (inside it, also where masked).
        frame_times: ``(F,)`` float64.
        frame_mask: ``(F,)`` bool, True where the picture is the episode's own at its time.
        actions: ``(A, D)`` float32.
        action_times: ``(A,)`` float64; those of the states too.
        action_mask: ``(A,)`` bool.
        states: ``(A, S)`` float32.
        state_mask: ``(A,)`` bool.
        terminate: ``(A,)`` bool; beyond the episode's end, that of its last step.
    """

    start: int
    present: float
    video: np.ndarray
    frame_steps: np.ndarray
    frame_times: np.ndarray
    frame_mask: np.ndarray
    actions: np.ndarray
    action_times: np.ndarray
    action_mask: np.ndarray
    states: np.ndarray
    state_mask: np.ndarray
    terminate: np.ndarray


def starts(length: int, spec: WindowSpec, control_rate: float) -> np.ndarray:
    """The steps at which windows start in an episode of ``length`` steps, ``spec.stride`` apart; may be none."""
    first, stop = 0, length
    if not spec.padding:
        first = spec.history
        reach = max(spec.actions - 1, int(spec.frame_steps(control_rate)[-1]) - spec.history)
        stop = length - reach
    return np.arange(first, max(stop, first), spec.stride)


def cut(episode: RobotEpisode, start: int, spec: WindowSpec) -> Window:
    """The window that starts at step ``start``: a function of its three arguments and nothing else.

    Only the distinct pictures that it shows are decoded.

    Args:
        episode: with at least one step.
        start: any integer; a window that misses the episode altogether is all padding.
        spec: what to cut.

    Raises:
        UserError: the episode is empty, has no such camera, or one of its pictures cannot be decoded.
    """
    length = len(episode)
    if length == 0:
        raise UserError(f"episode {episode.id} has no steps to cut a window from")
    rate = episode.control_rate
    begin = start - spec.history
    shown = begin + spec.frame_steps(rate)
    acted = begin + np.arange(spec.history + spec.actions)
    frame_steps, action_steps = np.clip(shown, 0, length - 1), np.clip(acted, 0, length - 1)
    action_mask = acted == action_steps
    return Window(
        start=start,
        present=spec.history / rate,
        video=_pictures(episode, spec.camera, frame_steps),
        frame_steps=frame_steps,
        frame_times=np.arange(spec.frames) / (spec.video_rate or rate),
        frame_mask=shown == frame_steps,
        actions=padded(np.asarray(episode.actions, np.float32), acted, episode.action_names),
        action_times=np.arange(len(acted)) / rate,
        action_mask=action_mask,
        states=np.asarray(episode.states, np.float32)[action_steps],
        state_mask=action_mask.copy(),
        terminate=np.asarray(episode.terminate, bool)[action_steps],
    )


def _pictures(episode: RobotEpisode, camera: str | None, steps: np.ndarray) -> np.ndarray:
    if not episode.images:
        raise UserError(f"episode {episode.id} has no pictures")
    chosen = next(iter(episode.images)) if camera is None else camera
    if chosen not in episode.images:
        raise UserError(f"episode {episode.id} has no camera '{chosen}'; it has {', '.join(episode.images)}")
    distinct, place = np.unique(steps, return_inverse=True)
    return episode.images[chosen].read([int(step) for step in distinct])[place]
