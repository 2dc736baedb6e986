"""Normalisation of actions and states: an affine map per dimension from raw units to what a model sees, and back.

    seen = (raw - shift) / scale          raw = seen * scale + shift

All kinds are this one formula and differ in where shift and scale come from:

- ``quantile``: q01 becomes -1 and q99 becomes 1. What nearly everybody uses for RT-1. Values outside the quantiles lie
  outside [-1, 1] and come back as they were.
- ``gaussian``: mean 0, standard deviation 1.
- ``bounds``: min becomes -1 and max becomes 1. One wild value spoils it: y of RT-1 goes from -5.5 to 22 where the
  quantiles are -0.148 and 0.149, so that 98 % of what the robot does would lie within 0.022 of the 2 there are.
- ``unit``: [0, 1] becomes [-1, 1], without statistics.
- ``identity``: left as it is.

A gripper is ``unit`` unless asked otherwise: the noise of a flow model has a deviation of 1, and so have openings of
0 and 1 brought to -1 and 1. (OpenVLA leaves it at 0 and 1: ``gripper="identity"``.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from selfflow_mm.errors import UserError

from ..statistics import ColumnStatistics, missing_statistics

__all__ = ["RT1_PUBLISHED", "Kind", "Normaliser", "normaliser"]

Kind = Literal["quantile", "gaussian", "bounds", "unit", "identity"]
_NEEDS = {"quantile": ("q01", "q99"), "bounds": ("min", "max"), "gaussian": ("mean", "std")}

# What published RT-1 policies were trained with (OpenVLA's dataset_statistics.json; open-pi-zero has the same
# quantiles), for their checkpoints and for comparisons. For data at hand compute your own.
RT1_PUBLISHED: Mapping[str, Any] = {
    "source": "fractal20220817_data 0.1.0, 87,212 episodes, 3,786,400 steps, as published with OpenVLA",
    "names": ("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
    "q01": (
        -0.22453527510166169,
        -0.14820013284683228,
        -0.231589707583189,
        -0.3517994859814644,
        -0.4193011274933815,
        -0.43643461108207704,
        0.0,
    ),
    "q99": (
        0.17824687153100965,
        0.14938379630446405,
        0.21842354819178575,
        0.5892666035890578,
        0.35272657424211445,
        0.44796681255102094,
        1.0,
    ),
}


@dataclass(frozen=True)
class Normaliser:
    """``forward``: raw -> seen; ``inverse``: seen -> raw; both ``(..., D)``, float32 to float32, else float64.

    Computed in float64. Kept in float64, ``inverse(forward(x))`` gives every float32 back bit for bit unless it is
    under 1e-8 of its dimension's shift and scale; ``seen`` stored as float32 gives it back to within
    2**-24 (|x - shift| + |x|).

    Attributes:
        names: of the D dimensions.
        kinds: one per dimension.
        shift, scale: one each per dimension, in raw units; scale > 0.
        clip: ``seen`` is limited to [-clip, clip]; None for no limit. What was clipped does not come back.
        constant: dimensions whose values do not vary in the statistics (by more than float32 resolves); their scale is
            1: the constant becomes 0, and anything else its raw distance from it.
    """

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    clip: float | None = None
    constant: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.kinds) == len(self.shift) == len(self.scale):
            raise UserError("a normaliser needs as many names, kinds, shifts and scales as there are dimensions")
        for name, shift, scale in zip(self.names, self.shift, self.scale, strict=True):
            if not (math.isfinite(shift) and math.isfinite(scale) and scale > 0):
                raise UserError(f"'{name}' cannot be normalised with shift {shift} and scale {scale}")
        if self.clip is not None and not self.clip > 0:
            raise UserError(f"clip is the largest size of a normalised value, above 0, not {self.clip}")

    def forward(self, values: ArrayLike) -> np.ndarray:
        """Raw units -> what the model sees."""
        array, dtype = self._checked(values)
        seen = (array - np.array(self.shift)) / np.array(self.scale)
        return (seen if self.clip is None else np.clip(seen, -self.clip, self.clip)).astype(dtype)

    def inverse(self, seen: ArrayLike) -> np.ndarray:
        """What the model gives -> raw units; never clipped."""
        array, dtype = self._checked(seen)
        return (array * np.array(self.scale) + np.array(self.shift)).astype(dtype)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; they come back bit for bit."""
        return {"transform": "normalise", **{name: _listed(value) for name, value in asdict(self).items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Normaliser:
        """The inverse of :meth:`to_dict`."""
        try:
            clip, listed = data["clip"], {name: tuple(data[name]) for name in ("names", "kinds", "shift", "scale")}
        except KeyError as error:
            raise UserError(f"a normaliser lacks {error}") from error
        return cls(**listed, clip=clip, constant=tuple(data.get("constant", ())))

    def _checked(self, values: ArrayLike) -> tuple[np.ndarray, type]:
        array = np.asarray(values)
        if array.ndim == 0 or array.shape[-1] != len(self.names):
            raise UserError(f"values of shape {array.shape} cannot be normalised: the last axis is {self.names}")
        return array.astype(np.float64), np.float32 if array.dtype == np.float32 else np.float64


def normaliser(
    kind: Kind | Sequence[Kind],
    statistics: ColumnStatistics | Mapping[str, Any] | None,
    *,
    gripper: Kind | None = "unit",
    clip: float | None = None,
    names: Sequence[str] | None = None,
) -> Normaliser:
    """A normaliser from statistics.

    Args:
        kind: one for all dimensions, or one each.
        statistics: ``Statistics.actions`` or ``.states``, or a dictionary with the lists that ``kind`` needs (``q01``
            and ``q99``; OpenVLA's ``action`` and openpi's ``actions`` are such).
        gripper: the kind of dimensions called "gripper"; None for no exception.
        clip: see :class:`Normaliser`.
        names: of the dimensions where the dictionary has none.

    Raises:
        UserError: there are no statistics and the kind needs some (the sentence says how to get them), or they have
            another width, or are not finite.
    """
    known: Mapping[str, Any] = asdict(statistics) if isinstance(statistics, ColumnStatistics) else statistics or {}
    lengths = [len(known[key]) for key in ("names", *sum(_NEEDS.values(), ())) if key in known]
    chosen = tuple(names if names is not None else known.get("names", ()))
    if not chosen:
        if not lengths:
            raise missing_statistics("there are no statistics of these values")
        chosen = tuple(f"dimension {index}" for index in range(lengths[0]))
    kinds = (kind,) * len(chosen) if isinstance(kind, str) else tuple(kind)
    if len(kinds) != len(chosen) or any(length != len(chosen) for length in lengths):
        raise UserError(f"{len(chosen)} dimensions ({', '.join(chosen)}) need as many kinds and statistics")
    if gripper is not None:
        kinds = tuple(gripper if name == "gripper" else own for name, own in zip(chosen, kinds, strict=True))
    places = [_shift_and_scale(own, known, index, chosen[index]) for index, own in enumerate(kinds)]
    flat = [scale <= abs(shift) * 2.0**-23 for shift, scale in places]  # also 0 <= 0
    return Normaliser(
        names=chosen,
        kinds=kinds,
        shift=tuple(shift for shift, _ in places),
        scale=tuple(1.0 if is_flat else scale for (_, scale), is_flat in zip(places, flat, strict=True)),
        clip=clip,
        constant=tuple(name for name, is_flat in zip(chosen, flat, strict=True) if is_flat),
    )


def _shift_and_scale(kind: Kind, known: Mapping[str, Any], index: int, name: str) -> tuple[float, float]:
    if kind == "identity":
        return 0.0, 1.0
    if kind == "unit":
        return 0.5, 0.5
    if kind not in _NEEDS:
        raise UserError(f"there is no normalisation '{kind}'; there are {', '.join(get_args(Kind))}")
    missing = [key for key in _NEEDS[kind] if key not in known]
    if missing:
        raise missing_statistics(f"'{kind}' normalisation of {name} needs {' and '.join(missing)}")
    low, high = (float(known[key][index]) for key in _NEEDS[kind])
    if kind == "gaussian":
        return low, high
    if high < low:
        raise UserError(f"the statistics of '{name}' are wrong: {_NEEDS[kind]} are {low} and {high}")
    return (low + high) / 2, (high - low) / 2


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
