"""Films of the first episodes, to see what a policy does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..episode import EncodedPictures
from ..look.film import FilmOptions, play
from ..robot_episode import GRIPPER, RobotEpisode
from .loop import Finished
from .tabletop import CONTROL_RATE

__all__ = ["Film", "outcome"]


@dataclass(frozen=True)
class Film:
    """Which episodes are filmed: an MP4 file each, with the instruction, the outcome, and every action over time.

    Attributes:
        folder: where the films go.
        episodes: of each task, the first so many.
    """

    folder: Path
    episodes: int

    def path(self, task: str, episode: int) -> Path:
        """Where the film of an episode lies, if it is filmed."""
        return self.folder / f"{task}-{episode:04d}.mp4"

    def forget(self) -> None:
        """Delete all films of episodes that the folder has."""
        for place in self.folder.glob("*.mp4"):
            if re.fullmatch(r"\w+-\d{4,}", place.stem):
                place.unlink()

    def write(self, done: Finished) -> None:
        """Make the film of an episode that was acted with ``filmed``.

        After the last action, which has the picture of what came of it, nothing moves; "done" marks success.
        """
        said = ", then ".join(done.moment.instructions)
        last = np.zeros((1, done.actions.shape[1]), np.float32)
        last[0, GRIPPER] = done.actions[-1, GRIPPER]
        terminate = np.zeros(len(done.frames), bool)
        terminate[-1] = done.moment.success
        episode = RobotEpisode(
            id=f"{done.job.task} {done.job.episode}",
            robot="google_robot",
            control_rate=CONTROL_RATE,
            actions=np.concatenate([done.actions, last]),
            states=np.zeros((len(done.frames), 0), np.float32),
            images={"overhead": EncodedPictures(done.frames)},
            instruction=f"{said}: {outcome(done.moment.success, done.moment.success_any, done.moment.steps)}",
            terminate=terminate,
        )
        play(self.path(done.job.task, done.job.episode), [episode], FilmOptions(crf=20))


def outcome(success: bool, success_any: bool, steps: int) -> str:
    """In words."""
    if success:
        return f"success after {steps} steps"
    return f"failed after {steps} steps" + (", reached in between" if success_any else "")
