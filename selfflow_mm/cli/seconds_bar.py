"""The progress bar of ``encode`` and ``decode``: seconds of medium, with rate and time left."""

from __future__ import annotations

from typing import Any


class SecondsBar:
    """One bar for each medium, called with its name, the seconds done and the seconds in all (None: unknown)."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._medium = ""
        self._bar: Any = None

    def __call__(self, medium: str, seconds: float, whole: float | None) -> None:
        from tqdm import tqdm

        if medium != self._medium:
            self._close()
            self._medium = medium
            known = "{l_bar}{bar}| {n:.1f}/{total:.1f} s [{elapsed}<{remaining}, {rate_fmt}]"
            unknown = "{desc}: {n:.1f} s [{elapsed}, {rate_fmt}]"
            form = known if whole else unknown
            self._bar = tqdm(total=whole, desc=f"{self._what} {medium}", bar_format=form, unit="s")
        # What a header states may be a little less than there is.
        self._bar.update(min(seconds, whole or seconds) - self._bar.n)

    def __enter__(self) -> SecondsBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
