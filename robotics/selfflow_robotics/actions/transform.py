"""Transforms of action sequences: a forward and an inverse, chained, and written as JSON into checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from selfflow_mm.errors import UserError

from .grippers import gripper_convention
from .normalise import Normaliser
from .rotations import axis_angle_to_rpy, rpy_to_axis_angle

__all__ = ["AxisAngle", "Compose", "GripperColumn", "Transform", "transform_from_dict"]


class Transform(Protocol):
    """``forward`` and ``inverse`` take and give ``(T, D)`` of one whole episode or chunk, in the same float dtype.

    ``to_dict`` gives plain values with a key ``transform``; :func:`transform_from_dict` makes the transform again.
    """

    def forward(self, values: ArrayLike) -> np.ndarray: ...

    def inverse(self, values: ArrayLike) -> np.ndarray: ...

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Compose:
    """One transform after another; the inverse undoes them from the last to the first."""

    transforms: tuple[Transform, ...]

    def forward(self, values: ArrayLike) -> np.ndarray:
        result = np.asarray(values)
        for transform in self.transforms:
            result = transform.forward(result)
        return result

    def inverse(self, values: ArrayLike) -> np.ndarray:
        result = np.asarray(values)
        for transform in reversed(self.transforms):
            result = transform.inverse(result)
        return result

    def to_dict(self) -> dict[str, Any]:
        return {"transform": "compose", "transforms": [transform.to_dict() for transform in self.transforms]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Compose:
        return cls(tuple(transform_from_dict(part) for part in data["transforms"]))


@dataclass(frozen=True)
class AxisAngle:
    """Columns ``start`` to ``start + 3``: roll, pitch, yaw <-> axis times angle (:mod:`.rotations`).

    The way back is exact up to rounding for pitches within a quarter turn, which steps of a robot are.
    """

    start: int = 3

    def forward(self, values: ArrayLike) -> np.ndarray:
        return _replaced(values, self.start, self.start + 3, rpy_to_axis_angle)

    def inverse(self, values: ArrayLike) -> np.ndarray:
        return _replaced(values, self.start, self.start + 3, axis_angle_to_rpy)

    def to_dict(self) -> dict[str, Any]:
        return {"transform": "axis_angle", "start": self.start}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AxisAngle:
        return cls(int(data["start"]))


@dataclass(frozen=True)
class GripperColumn:
    """One column: absolute opening (1 open, 0 closed) <-> a convention of :mod:`.grippers`."""

    convention: str
    column: int = 6

    def __post_init__(self) -> None:
        gripper_convention(self.convention)

    def forward(self, values: ArrayLike) -> np.ndarray:
        return _replaced(values, self.column, self.column + 1, gripper_convention(self.convention).from_house)

    def inverse(self, values: ArrayLike) -> np.ndarray:
        return _replaced(values, self.column, self.column + 1, gripper_convention(self.convention).to_house)

    def to_dict(self) -> dict[str, Any]:
        return {"transform": "gripper", "convention": self.convention, "column": self.column}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GripperColumn:
        return cls(str(data["convention"]), int(data["column"]))


_KINDS: dict[str, Callable[[Mapping[str, Any]], Transform]] = {
    "compose": Compose.from_dict,
    "normalise": Normaliser.from_dict,
    "axis_angle": AxisAngle.from_dict,
    "gripper": GripperColumn.from_dict,
}


def transform_from_dict(data: Mapping[str, Any]) -> Transform:
    """The inverse of every transform's ``to_dict``.

    Raises:
        UserError: an unknown kind, or something is missing.
    """
    kind = data.get("transform")
    if kind not in _KINDS:
        raise UserError(f"there is no transform '{kind}'; there are {', '.join(_KINDS)}")
    try:
        return _KINDS[kind](data)
    except KeyError as error:
        raise UserError(f"the transform '{kind}' lacks {error}") from error


def _replaced(values: ArrayLike, start: int, stop: int, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 2 or not 0 <= start < stop <= array.shape[1]:
        raise UserError(f"columns {start} to {stop} are changed, which values of shape {array.shape} do not have")
    result = np.array(array, dtype=array.dtype if array.dtype == np.float32 else np.float64)
    result[:, start:stop] = change(result[:, start:stop])
    return result
