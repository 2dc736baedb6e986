"""Stopping a run from outside: SIGTERM and Ctrl-C let the step in hand finish and be saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """The run was asked to stop and has saved itself."""


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that fills when SIGTERM or Ctrl-C arrives; the caller looks at it after each step."""
    asked: list[int] = []
    old = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            old[number] = signal.signal(number, lambda n, frame: asked.append(n))
        except ValueError:  # not the main thread: the caller keeps its own handling
            pass
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
