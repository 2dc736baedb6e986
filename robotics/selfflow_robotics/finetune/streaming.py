"""Windows read and encoded while training goes on: for tokenizers that look over time, and data too large to keep."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch

from selfflow_mm.training.ranks import Ranks

from ..adapter.spec import RobotSpec
from ..samples import RobotSample, RobotSamples
from ..sources import RobotFiles
from ..stream import EpisodeStream
from ..windows import WindowSpec
from .windows import TokenWindows

__all__ = ["StreamedWindows"]


class StreamedWindows:
    """One window of each episode as the episodes come; see :class:`selfflow_robotics.samples.RobotSamples`.

    Args:
        files: the data set.
        tokenizer: of its pictures, where encoding is to happen.
        spec: of the model.
        camera: "" is each episode's first.
        seed: of the order.
        stride: steps between two starts in an episode.
        ranks: each process reads episodes of its own.
        without: (shard, index) of episodes that are not trained on.
    """

    def __init__(
        self,
        files: RobotFiles,
        tokenizer: Any,
        spec: RobotSpec,
        *,
        camera: str,
        seed: int,
        stride: int,
        ranks: Ranks,
        without: Collection[tuple[int, int]] = (),
    ) -> None:
        self.tokenizer, self.spec, self.ranks = tokenizer, spec, ranks
        window = WindowSpec(
            actions=spec.horizon,
            frames=spec.frames(spec.horizon),
            video_rate=spec.video_rate,
            stride=stride,
            camera=camera or None,
        )
        stream = EpisodeStream(files, seed=seed, rank=ranks.rank, world=ranks.world, without=without)
        self.samples = RobotSamples(
            stream,
            window,
            actions=spec.actions,
            states=spec.states,
            size=(spec.height, spec.width),
            fit=spec.fit,
            windows=1,
            seed=seed,
        )
        self.taken = 0
        self._iterator: Iterator[RobotSample] | None = None

    def take(self, count: int, actions: int, clip: bool) -> TokenWindows:
        """See :class:`.windows.WindowSource`."""
        if self._iterator is None:
            self._iterator = iter(self.samples)
        chosen = [next(self._iterator) for _ in range(count)]
        frames = self.spec.frames(actions) if clip else 1
        pictures = torch.from_numpy(np.stack([s.video[:frames] for s in chosen]))
        shape = self.tokenizer.filled(frames, self.spec.height, self.spec.width)
        video = self.tokenizer.encode_batch(torch.stack([self.tokenizer.fill(p, shape) for p in pictures]))
        world = self.ranks.world
        ids = (self.taken + np.arange(count)) * world + self.ranks.rank
        self.taken += count
        has_state = self.spec.states is not None
        return TokenWindows(
            video=video.cpu(),
            actions=torch.from_numpy(self.spec.seen_chunk(np.stack([s.actions[:actions] for s in chosen]))),
            states=torch.from_numpy(np.stack([s.states[0] for s in chosen])) if has_state else None,
            instructions=[s.instruction for s in chosen],
            ids=torch.from_numpy(ids % 2**32),
            names=[f"{s.episode}@{s.start}" for s in chosen],
        )

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken, "samples": self.samples.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place."""
        self.taken = int(state["taken"])
        self.samples.load_state_dict(state["samples"])
        self._iterator = None
