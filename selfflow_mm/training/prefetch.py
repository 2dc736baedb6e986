"""Batches made ahead of the steps, in a thread of their own, so that a step never waits for the disk."""

from __future__ import annotations

import copy
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..flow.objectives import Batch
from ..tokens import TokenStream
from .state import BatchSource


class Prefetched:
    """A :class:`~selfflow_mm.training.state.BatchSource` whose next batches are made while a step runs.

    Its place is that after the batches that were taken, whatever was made ahead, so what a checkpoint saves is what it
    would save without. What a batch raises is raised by the ``at`` that asks for it; asking again makes it again. A
    context manager; leaving it ends the thread.

    Args:
        source: makes the batches; between ``at`` and ``close`` only this object may use it.
        ahead: batches that are made ahead, at least 1. Each takes memory.
        pin: keep them in page-locked memory, from which an accelerator copies faster.
    """

    def __init__(self, source: BatchSource, ahead: int, *, pin: bool = False) -> None:
        assert ahead >= 1
        self.source, self.ahead, self.pin = source, ahead, pin
        self._place = copy.deepcopy(source.state_dict())
        self._waiting: deque[tuple[int, Future[tuple[tuple[str, str, Batch], dict[str, Any]]]]] = deque()
        self._thread = ThreadPoolExecutor(1, "batches")  # one, as the source's batches come in turn

    def at(self, step: int) -> tuple[str, str, Batch]:
        """The batch of a step; called for every step in turn, and any other call starts anew from the place."""
        if not self._waiting or self._waiting[0][0] != step:
            self._drop()
        self._ask(step)
        _, future = self._waiting.popleft()
        try:
            found, self._place = future.result()
        except BaseException:
            self._drop()
            raise
        self._ask(step + 1)
        return found

    def numbers(self, name: str, batch: Batch) -> list[Any]:
        """The batch's samples by their numbers in their source."""
        return self.source.numbers(name, batch)

    def state_dict(self) -> dict[str, Any]:
        """The place after the batches that were taken."""
        return copy.deepcopy(self._place)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place."""
        self._drop()
        self.source.load_state_dict(copy.deepcopy(state))
        self._place = copy.deepcopy(self.source.state_dict())

    def close(self) -> None:
        """End the thread and leave the source at the place."""
        self._drop()
        self._thread.shutdown()

    def __enter__(self) -> Prefetched:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, first: int) -> None:
        """See to it that ``ahead`` batches from step ``first`` on are made or being made."""
        for step in range(first + len(self._waiting), first + self.ahead):
            self._waiting.append((step, self._thread.submit(self._make, step)))

    def _drop(self) -> None:
        """Forget what was made ahead, and lead the source back to the place."""
        for _, future in self._waiting:
            future.cancel()
        for _, future in self._waiting:
            if not future.cancelled():
                future.exception()  # waits for the one that is being made
        self._waiting.clear()
        self.source.load_state_dict(copy.deepcopy(self._place))

    def _make(self, step: int) -> tuple[tuple[str, str, Batch], dict[str, Any]]:
        name, task, batch = self.source.at(step)
        if self.pin:
            batch = pinned(batch)
        return (name, task, batch), copy.deepcopy(self.source.state_dict())


def pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory."""

    def pin(stream: TokenStream) -> TokenStream:
        return replace(
            stream,
            values=stream.values.pin_memory(),
            positions=stream.positions.contiguous().pin_memory(),
            sample=stream.sample.pin_memory(),
        )

    text = batch.text.pin_memory() if isinstance(batch.text, Tensor) else pin(batch.text)
    streams = {m: pin(s) for m, s in batch.streams.items()}
    weights = None if batch.weights is None else batch.weights.pin_memory()
    return replace(batch, streams=streams, text=text, ids=batch.ids.pin_memory(), weights=weights)
