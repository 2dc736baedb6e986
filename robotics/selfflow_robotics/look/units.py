"""Numbers with their units, as sheets, films and tables show them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..robot_episode import ACTION_NAMES
from .instruments import ROTATION, TRANSLATION


def display_unit(name: str, names: Sequence[str]) -> tuple[float, str]:
    """(factor, unit) that a column is shown in: centimetres and degrees in the house's convention, else as it is."""
    if tuple(names) == ACTION_NAMES:
        if name in TRANSLATION:
            return 100.0, "cm"
        if name in ROTATION:
            return 180 / math.pi, "°"
    return 1.0, ""


def shown(value: float, name: str, names: Sequence[str]) -> str:
    """``1.9 cm``, ``4.1°``: three digits and the unit."""
    factor, unit = display_unit(name, names)
    text = f"{value * factor:.3g}"
    return f"{text}{unit}" if unit in ("", "°") else f"{text} {unit}"


def bytes_text(size: float) -> str:
    """Decimal units, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def duration_text(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.3g} h"
    return f"{seconds / 60:.3g} min" if seconds >= 120 else f"{seconds:.3g} s"
