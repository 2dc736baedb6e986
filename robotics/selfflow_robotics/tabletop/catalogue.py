"""The objects that tasks speak of: one row each; to add one, add a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .shapes import Look


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        name: as instructions say it.
        form: the solid that physics sees.
        size: (radius,) of a sphere, (radius, half height) of a cylinder, half extents (x, y, z) of a box.
        material: what it sounds like, a key of ``sound.MATERIALS``.
        look: its surface.
        neck: of bottles: (radius, half height) of the narrower upper part, within ``size``; only seen.
        top: colour of cap, lid or stem.
        lies: whether a pick task may also show it lying on its side.
    """

    name: str
    form: Literal["sphere", "cylinder", "box"]
    size: tuple[float, ...]
    material: str
    look: Look
    neck: tuple[float, float] | None = None
    top: tuple[float, float, float] | None = None
    lies: bool = False


_ALUMINIUM = (0.62, 0.63, 0.65)

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "coke can",
            "cylinder",
            (0.033, 0.061),
            "metal",
            Look((0.62, 0.02, 0.02), "label", (0.9, 0.88, 0.85), 0.5),
            top=_ALUMINIUM,
            lies=True,
        ),
        Kind(
            "pepsi can",
            "cylinder",
            (0.033, 0.061),
            "metal",
            Look((0.02, 0.06, 0.42), "label", (0.8, 0.1, 0.1), 0.5),
            top=_ALUMINIUM,
            lies=True,
        ),
        Kind(
            "7up can",
            "cylinder",
            (0.033, 0.061),
            "metal",
            Look((0.03, 0.40, 0.10), "label", (0.9, 0.9, 0.9), 0.5),
            top=_ALUMINIUM,
            lies=True,
        ),
        Kind(
            "redbull can",
            "cylinder",
            (0.027, 0.066),
            "metal",
            Look((0.55, 0.58, 0.66), "stripes", (0.04, 0.10, 0.45), 0.5),
            top=_ALUMINIUM,
            lies=True,
        ),
        Kind(
            "water bottle",
            "cylinder",
            (0.031, 0.085),
            "plastic",
            Look((0.45, 0.66, 0.80), "label", (0.92, 0.95, 0.98), 0.6),
            neck=(0.014, 0.022),
            top=(0.05, 0.2, 0.6),
            lies=True,
        ),
        Kind(
            "green bottle",
            "cylinder",
            (0.029, 0.080),
            "plastic",
            Look((0.05, 0.30, 0.12), "label", (0.85, 0.80, 0.35), 0.6),
            neck=(0.013, 0.022),
            top=(0.7, 0.65, 0.1),
            lies=True,
        ),
        Kind(
            "apple",
            "sphere",
            (0.037,),
            "fruit",
            Look((0.50, 0.05, 0.03), "speckle", (0.62, 0.34, 0.08), 0.4),
            top=(0.16, 0.09, 0.03),
        ),
        Kind(
            "orange",
            "sphere",
            (0.036,),
            "fruit",
            Look((0.85, 0.30, 0.02), "speckle", (0.75, 0.22, 0.01), 0.3),
            top=(0.10, 0.22, 0.05),
        ),
        Kind(
            "sponge",
            "box",
            (0.046, 0.031, 0.021),
            "foam",
            Look((0.75, 0.62, 0.06), "speckle", (0.6, 0.5, 0.03), 0.0),
            top=(0.05, 0.30, 0.12),
        ),
        Kind("tea box", "box", (0.030, 0.024, 0.047), "paper", Look((0.10, 0.32, 0.28), "stripes", (0.8, 0.76, 0.5))),
        Kind(
            "pudding box",
            "box",
            (0.043, 0.033, 0.019),
            "paper",
            Look((0.33, 0.16, 0.07), "checker", (0.72, 0.55, 0.36)),
        ),
        Kind(
            "chocolate bar",
            "box",
            (0.058, 0.021, 0.012),
            "paper",
            Look((0.16, 0.05, 0.30), "stripes", (0.75, 0.65, 0.15)),
        ),
    )
}

#: Objects that one hand can put into a drawer (its inside is 7 cm high).
FITS_DRAWER = ("apple", "orange", "sponge", "pudding box", "chocolate bar")
