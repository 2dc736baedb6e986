"""Trying again where a file system may come back: a full disk, a share that is gone for a minute."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

#: The longest pause between two attempts, in seconds.
LONGEST_PAUSE = 60.0


def pauses(seconds: float) -> Iterator[float]:
    """1, 2, 4, ... seconds, each at most ``LONGEST_PAUSE``, as many as make ``seconds`` in all.

    They hang on no clock, so that processes that fail together also give up together.
    """
    pause = 1.0
    while seconds > 0:
        yield min(pause, seconds)
        seconds -= pause
        pause = min(2 * pause, LONGEST_PAUSE)


def retrying(
    action: Callable[[], T],
    *,
    seconds: float,
    what: str,
    errors: tuple[type[Exception], ...] = (OSError,),
    sleep: Callable[[float], object] | None = None,
) -> T:
    """What ``action()`` returns, called again after each of the ``errors`` with growing pauses.

    Args:
        action: must be able to begin afresh after it has failed half-way.
        seconds: of waiting in all; 0 tries once.
        what: is being done, for the one warning that is given when waiting begins.
        errors: worth another attempt; any other goes through at once.
        sleep: waits for so many seconds; ``time.sleep`` unless given.

    Raises:
        one of ``errors``: the last one, when the time is up.
    """
    warned = False
    for pause in pauses(seconds):
        try:
            return action()
        except errors as error:
            if not warned:
                warnings.warn(f"{what} failed ({error}); trying again for {seconds:g} s", stacklevel=2)
                warned = True
        (sleep or time.sleep)(pause)
    return action()
