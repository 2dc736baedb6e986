"""Trying again what a store, a network or a disk refused, with growing pauses."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from selfflow_mm.errors import UserError

#: Seconds after which an operation is given up, unless said otherwise.
RETRY_SECONDS = 300.0
_LONGEST_PAUSE = 60.0  # seconds
#: What trying again does not change: what is asked for is not there, may not be read, or was asked for wrongly.
LASTING: tuple[type[BaseException], ...] = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ImportError,
    NotImplementedError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    MemoryError,
)
_REFUSALS = range(400, 500)  # HTTP's answers to a request that is itself wrong,
_PASSING = (408, 425, 429)  # but for: timeout, too early, too many requests

T = TypeVar("T")


class Unreachable(UserError):
    """Data are there, or should be, and cannot be had now. No fault of a sample's: it must not be left out for it."""


def retried(
    work: Callable[[], T],
    what: str,
    *,
    seconds: float = RETRY_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """The result of ``work``, tried again after 1, 2, 4, ... seconds (at most 60) while it raises what may pass.

    Args:
        work: may be called any number of times.
        what: a sentence's beginning for messages, such as ``"reading 's3://bucket/a.tar'"``.
        seconds: after so many it is given up; 0 tries once.

    Raises:
        Unreachable: it never succeeded; the sentence has the last reason.
        Exception: one of ``LASTING``, at once.
    """
    begin, pause = clock(), 1.0
    while True:
        try:
            return work()
        except Exception as error:
            if lasts(error):
                raise
            left = seconds - (clock() - begin)
            if left <= 0:
                tried = f" for {seconds:g} s" if seconds else ""
                why = f"{what} failed{tried} ({_reason(error)})"
                raise Unreachable(f"{why}; give the same command again later") from error
            wait = min(pause, left)
            print(f"{what} failed ({_reason(error)}); again in {wait:.0f} s", file=sys.stderr)
        sleep(wait)
        pause = min(2 * pause, _LONGEST_PAUSE)


def lasts(error: BaseException) -> bool:
    """Whether trying again cannot help."""
    return refused(error) or isinstance(error, LASTING)


def refused(error: BaseException) -> bool:
    """Whether a store says that this may not be read, or is asked for wrongly."""
    if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":  # botocore's
        return True
    return any(status in _REFUSALS and status not in _PASSING for status in _statuses(error))


def _statuses(error: BaseException) -> list[Any]:
    """HTTP's status codes as aiohttp, gcsfs, and httpx and requests keep them."""
    response = getattr(error, "response", None)
    return [getattr(error, "status", None), getattr(error, "code", None), getattr(response, "status_code", None)]


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
