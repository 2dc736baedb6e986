"""A policy whose answers say what it was asked, and that fails on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import PolicyAbout, Request

HORIZON = 4


class Telling:
    """Column 0 is the picture's mean, 1 the instruction's length, 2 the state's sum, 3 and 4 the seed, 5 the query.

    Instructions that begin with ``fail`` or ``mistake`` raise, ``shape`` answers too little; ``delay`` seconds pass in
    each call. ``batches`` says how many requests each call had.
    """

    def __init__(self, states: int = 0, needs_state: bool = False, delay: float = 0.0) -> None:
        names = tuple(f"s{i}" for i in range(states))
        self.about = PolicyAbout("telling", HORIZON, 5.0, state_names=names, needs_state=needs_state, extra={"a": [1]})
        self.delay = delay
        self.batches: list[int] = []
        self.threads: set[str] = set()

    def chunks(self, requests: Sequence[Request]) -> np.ndarray:
        self.batches.append(len(requests))
        self.threads.add(threading.current_thread().name)
        time.sleep(self.delay)
        said = [request.observation.instruction for request in requests]
        if any(text.startswith("fail") for text in said):
            raise RuntimeError("/secret/path is broken")
        if any(text.startswith("mistake") for text in said):
            raise UserError("say something else")
        if any(text.startswith("shape") for text in said):
            return np.zeros((len(requests), 1, 1), np.float32)
        return np.stack([told(request) for request in requests])


def told(request: Request) -> np.ndarray:
    """What :class:`Telling` answers to one request, ``(HORIZON, 7)``."""
    seen = request.observation
    state = 0.0 if seen.state is None else float(seen.state.sum())
    seed = (request.seed % 1000, request.seed // 1000 % 1000)
    row = [seen.image.mean(), len(seen.instruction), state, *seed, request.query, 0]
    return np.float32(row) + np.arange(HORIZON, dtype=np.float32)[:, None] / 8
