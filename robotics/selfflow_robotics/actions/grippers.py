"""Gripper conventions, each to and from the house's (absolute target, 1 open, 0 closed), for whole episodes.

For data: :data:`CONVENTIONS`. For control, one step at a time: :mod:`selfflow_robotics.actions.gripper_control`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from selfflow_mm.errors import UserError

__all__ = [
    "CONVENTIONS",
    "THRESHOLD",
    "AffineGripper",
    "GripperConvention",
    "RelativeClosing",
    "from_house",
    "gripper_convention",
    "to_house",
]

THRESHOLD = 0.1


class GripperConvention(Protocol):
    """``to_house`` and ``from_house`` take and give ``(T, ...)``; time is the first axis.

    float32 stays float32, everything else becomes float64.
    """

    @property
    def name(self) -> str: ...

    def to_house(self, values: ArrayLike) -> np.ndarray: ...

    def from_house(self, opening: ArrayLike) -> np.ndarray: ...


@dataclass(frozen=True)
class AffineGripper:
    """``opening = (value - closed) / (open - closed)``, step by step.

    Exact both ways for values that are open, closed or half way; others to within one rounding. Nothing is clipped or
    made binary.

    Attributes:
        name: of the convention.
        open: the value that means open.
        closed: the value that means closed.
    """

    name: str
    open: float
    closed: float

    def to_house(self, values: ArrayLike) -> np.ndarray:
        array = _floats(values)
        return ((array.astype(np.float64) - self.closed) / (self.open - self.closed)).astype(array.dtype)

    def from_house(self, opening: ArrayLike) -> np.ndarray:
        array = _floats(opening)
        return (array.astype(np.float64) * (self.open - self.closed) + self.closed).astype(array.dtype)


@dataclass(frozen=True)
class RelativeClosing:
    """RT-1's ``gripper_closedness_action``: +1 begins to close, -1 begins to open, 0 leaves the gripper as it is.

    ``to_house`` is Open-X's ``rel2abs_gripper_actions``: a value above ``threshold`` is a closing event, one below
    ``-threshold`` an opening event (NaN is neither); each event holds until the next; before the first event the
    gripper is taken to be in the opposite state (the first event is assumed not to be redundant), and open throughout
    an episode without events. It needs the whole episode, because its first state is told by its first event.

    ``from_house`` writes an event where the opening, taken as open above 0.5, changes, and one at step 0 of an episode
    that is closed throughout. ``to_house(from_house(a)) == a`` for every binary ``a``. The other way round the sizes of
    the values, those under the threshold and repeated events are lost.
    """

    name: str = "relative_closing"
    threshold: float = THRESHOLD

    def to_house(self, values: ArrayLike) -> np.ndarray:
        array = _floats(values)
        events = np.where(array < -self.threshold, 1, np.where(array > self.threshold, -1, 0))
        if len(events) == 0:
            return array.copy()
        first = np.take_along_axis(events, np.argmax(events != 0, axis=0)[None], axis=0)
        start = np.where(first == 0, 1, -first)
        steps = np.arange(len(events)).reshape(-1, *[1] * (events.ndim - 1))
        latest = np.maximum.accumulate(np.where(events != 0, steps, -1), axis=0)
        held = np.take_along_axis(events, np.maximum(latest, 0), axis=0)
        return (np.where(latest < 0, start, held) / 2 + 0.5).astype(array.dtype)

    def from_house(self, opening: ArrayLike) -> np.ndarray:
        array = _floats(opening)
        if len(array) == 0:
            return array.copy()
        is_open = (array > 0.5).astype(np.int64)
        events = -np.diff(is_open, axis=0, prepend=is_open[:1])
        events[0] = ~is_open.any(axis=0)
        return events.astype(array.dtype)


CONVENTIONS: dict[str, GripperConvention] = {
    convention.name: convention
    for convention in (
        AffineGripper("absolute_opening", open=1, closed=0),  # the house's; Bridge
        AffineGripper("absolute_closing", open=0, closed=1),
        AffineGripper("signed_opening", open=1, closed=-1),  # SIMPLER's WidowX
        AffineGripper("signed_closing", open=-1, closed=1),
        RelativeClosing(),  # RT-1
    )
}


def gripper_convention(name: str) -> GripperConvention:
    """The convention of that name.

    Raises:
        UserError: there is none; the sentence lists them.
    """
    if name not in CONVENTIONS:
        raise UserError(f"there is no gripper convention '{name}'; there are {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def to_house(values: ArrayLike, convention: str) -> np.ndarray:
    """A gripper's commands ``(T, ...)`` in the named convention -> absolute, 1 open, 0 closed."""
    return gripper_convention(convention).to_house(values)


def from_house(opening: ArrayLike, convention: str) -> np.ndarray:
    """Absolute openings ``(T, ...)`` -> the named convention's commands."""
    return gripper_convention(convention).from_house(opening)


def _floats(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim == 0:
        raise UserError("gripper values need a time axis; this is a single number")
    return array if array.dtype == np.float32 else array.astype(np.float64)
