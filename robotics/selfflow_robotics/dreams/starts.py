"""Where dreams begin: pictures with instructions, by number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from selfflow_mm.errors import UserError

from ..files import BadEpisode
from ..interfaces import Observation
from ..sources import RobotFiles, open_episodes

__all__ = ["Starts"]

_TRIES = 100  # draws from a data set that lacks files, before giving up


class Starts:
    """Pictures in memory, or the first pictures of a data set's episodes.

    Args:
        images: ``(N, H, W, 3)`` uint8 or N pictures ``(H, W, 3)``; or a data set: its folder, or opened by
            :func:`selfflow_robotics.sources.open_episodes` (which takes a split and a layout).
        instruction: of pictures in memory; episodes bring their own.
        camera: of episodes; their first one unless given.

    Raises:
        UserError: nothing to begin from, or something that is no picture.
    """

    def __init__(
        self,
        images: np.ndarray | Sequence[np.ndarray] | RobotFiles | Path | str,
        instruction: str = "",
        camera: str | None = None,
    ) -> None:
        self._images = open_episodes(images) if isinstance(images, (str, Path)) else images
        self._instruction, self._camera = instruction, camera
        if len(self._images) == 0:
            raise UserError("there is no picture to begin a dream from")
        if not isinstance(self._images, RobotFiles):
            for image in self._images:
                Observation(image, instruction)  # refuses what is no picture, now and not in the middle of a run

    def __len__(self) -> int:
        return len(self._images)

    def read(self, number: int) -> tuple[np.ndarray, str]:
        """Picture ``(H, W, 3)`` uint8 and instruction of start ``number``.

        Raises:
            UserError: there is none of that number, its episode is damaged, or it lacks the camera.
        """
        if not 0 <= number < len(self):
            raise UserError(f"there is no start {number}; there are {len(self)}, counted from 0")
        if not isinstance(self._images, RobotFiles):
            return self._images[number], self._instruction
        episode = self._images.read(*self._images.locate(number))
        camera = self._camera or next(iter(episode.images), "")
        if camera not in episode.images:
            known = ", ".join(episode.images) or "no camera at all"
            raise UserError(f"episode {episode.id} has no camera '{camera}'; it has {known}")
        return episode.images[camera].read([0])[0], episode.instruction

    def draw(self, generator: np.random.Generator) -> tuple[np.ndarray, str]:
        """One of them, all with the same odds; episodes that cannot be read are passed over.

        Raises:
            UserError: none of many draws can be read.
        """
        for _ in range(_TRIES):
            try:
                return self.read(int(generator.integers(len(self))))
            except BadEpisode as error:
                reason = error
        raise UserError(f"{_TRIES} episodes that were drawn cannot be read; the last: {reason}")
