"""A progress bar for work that counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Bar:
    """Called with what is done and planned; a context manager, for the terminal's last line.

    Shown on stderr, so that what is printed can go into a file, and only when the work takes more than a second.
    """

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._bar: Any = None

    def __call__(self, done: int, planned: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=planned, desc=self._what, unit=f" {self._unit}", delay=1.0, leave=False)
        self._bar.total = planned
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def bars() -> Callable[[str, int, int], None]:
    """A bar for each kind of work, one after another; called with what it is, done and planned."""
    shown: dict[str, Bar] = {}

    def progress(what: str, done: int, planned: int) -> None:
        if what not in shown:
            for bar in shown.values():
                bar.__exit__()
            shown.clear()
            shown[what] = Bar(what, "")
        shown[what](done, planned)

    return progress
