"""One thread that asks the policy, with everything that waits in one batch.

The event loop never computes: pings are answered and other connections served while a policy thinks. Nothing waits for
a batch to fill unless told to; a batch is what came in while the one before was computed.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import ChunkPolicy, Request

__all__ = ["Batcher"]

_log = logging.getLogger(__name__)


class Batcher:
    """Answers requests of many episodes, in its own thread, in the order in which they came.

    Args:
        policy: row i of its answer depends on request i alone, so who shares a batch changes nothing.
        max_batch: most requests in one call of the policy.
        max_wait: seconds that a request waits for others to fill the batch, at most.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, policy: ChunkPolicy, max_batch: int = 16, max_wait: float = 0.0) -> None:
        if max_batch < 1:
            raise UserError(f"a batch has at least one request, not {max_batch}")
        if not 0 <= max_wait <= 10:
            raise UserError(f"a request waits between 0 and 10 s for others, not {max_wait}")
        self._policy, self._max_batch, self._max_wait = policy, max_batch, max_wait
        self._waiting: deque[tuple[Request, Future[np.ndarray]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        # A daemon: a policy that never returns must not keep a process alive that was told to stop.
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)
        self._thread.start()

    def submit(self, requests: Sequence[Request]) -> list[Future[np.ndarray]]:
        """Each request's ``(H, D)``, later. What the policy raises for one is its future's exception.

        Raises:
            UserError: the server is stopping.
        """
        futures: list[Future[np.ndarray]] = [Future() for _ in requests]
        with self._changed:
            if self._closed:
                raise UserError("the server is stopping")
            self._waiting.extend(zip(requests, futures, strict=True))
            self._changed.notify()
        return futures

    def close(self, timeout: float | None = None) -> None:
        """Answer what waits, then end the thread; after ``timeout`` seconds leave it to itself."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)

    def _work(self) -> None:
        while batch := self._next():
            # A connection that went away cancelled its future; its request is dropped here.
            wanted = [(request, future) for request, future in batch if future.set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)

    def _next(self) -> list[tuple[Request, Future[np.ndarray]]]:
        """The next batch; empty once closed and done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._max_wait:
                self._changed.wait_for(lambda: len(self._waiting) >= self._max_batch or self._closed, self._max_wait)
            return [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]

    def _answer(self, batch: Sequence[tuple[Request, Future[np.ndarray]]]) -> None:
        try:
            chunks = self._ask([request for request, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                for one in batch:  # one bad request must not cost the others their answers
                    self._answer([one])
                return
            if not isinstance(error, UserError):
                _log.error("the policy failed", exc_info=error)
            batch[0][1].set_exception(error)
            return
        for (_, future), chunk in zip(batch, chunks, strict=True):
            future.set_result(chunk)

    def _ask(self, requests: list[Request]) -> np.ndarray:
        about = self._policy.about
        chunks = np.asarray(self._policy.chunks(requests))
        expected = (len(requests), about.horizon, len(about.action_names))
        if chunks.shape != expected:
            raise RuntimeError(f"{about.name} answered with {chunks.shape} where {expected} belongs")
        return chunks
