"""The episodes of one connection: one, or as many as a message has pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..interfaces import ChunkPolicy, Observation, Request
from ..policies import ActingOptions, Policy
from ..policies.seeds import derived_seed
from .batching import Batcher

__all__ = ["Episodes"]


class Episodes:
    """Row i of a connection's messages belongs to episode i, with seeds and ensembling of its own.

    Args:
        policy: what everybody shares.
        batcher: who asks it.
        acting: how chunks are used; its seed is that of row 0, those of other rows are hashes of it.
    """

    def __init__(self, policy: ChunkPolicy, batcher: Batcher, acting: ActingOptions) -> None:
        self.about = policy.about
        self._policy, self._batcher, self._acting = policy, batcher, acting
        self._rows = [Policy(policy, acting)]

    @property
    def executed(self) -> int:
        """Actions of a chunk that are meant to be carried out before the next question."""
        return self._rows[0].executed

    def reset(self, seed: int | None = None) -> None:
        """Start all episodes anew; see :meth:`selfflow_robotics.policies.Policy.reset`.

        Raises:
            UserError: a seed out of range.
        """
        if seed is not None:
            acting = replace(self._acting, seed=seed)  # checks the seed
            self._acting = acting
        for row, episode in enumerate(self._rows):
            episode.reset(None if seed is None else _row_seed(seed, row))

    async def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """``(B, H, D)`` float32, row i for ``observations[i]`` of episode i.

        Raises:
            UserError: an observation that the policy does not take.
            Exception: what the policy raised.
        """
        for row in range(len(self._rows), len(observations)):
            acting = replace(self._acting, seed=_row_seed(self._acting.seed, row))
            self._rows.append(Policy(self._policy, acting))
        episodes = self._rows[: len(observations)]
        requests = [episode.request(seen) for episode, seen in zip(episodes, observations, strict=True)]
        chunks = await self.ask(requests)
        return np.stack([episode.answer(chunk) for episode, chunk in zip(episodes, chunks, strict=True)])

    async def ask(self, requests: Sequence[Request]) -> np.ndarray:
        """``(B, H, D)`` of the policy itself, which no episode remembers.

        Raises:
            UserError, Exception: as :meth:`act`.
        """
        futures = [asyncio.wrap_future(future) for future in self._batcher.submit(requests)]
        try:
            return np.stack(await asyncio.gather(*futures))
        finally:
            for future in futures:  # of the others, where one failed or the client went away
                future.cancel()


def _row_seed(seed: int, row: int) -> int:
    return seed if row == 0 else derived_seed("row of a connection", seed, row)
