"""One figure per clip for the model and its rivals: means, paired differences, and a sentence about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .resampling import mean_of

__all__ = ["BASELINES", "REFERENCE", "compare", "verdict"]

#: The film that is judged, and those it must beat.
REFERENCE = "model"
BASELINES = {
    "copy_last_frame": "copying the first picture",
    "shuffled_actions": "itself with another clip's actions",
    "zero_actions": "itself with no motion",
}


def compare(values: Mapping[str, np.ndarray], episodes: Sequence[str], seed: int) -> dict[str, Any]:
    """Film -> mean with its interval, and ``minus``: baseline -> mean of the paired differences, model - baseline.

    Args:
        values: film -> ``(n,)``, one per clip, NaN where the clip does not count.
        episodes: of each clip; intervals are over episodes.
        seed: of the bootstrap.
    """
    result: dict[str, Any] = {film: mean_of(value, episodes, seed).to_dict() for film, value in values.items()}
    if REFERENCE in values:
        result["minus"] = {
            film: mean_of(values[REFERENCE] - values[film], episodes, seed).to_dict()
            for film in BASELINES
            if film in values
        }
    return result


def verdict(minus: Mapping[str, Mapping[str, Any]], unit: str = "dB") -> dict[str, str]:
    """Baseline -> a sentence on the paired difference, where more is better."""
    return {film: _sentence(difference, BASELINES[film], unit) for film, difference in minus.items()}


def _sentence(difference: Mapping[str, Any], rival: str, unit: str) -> str:
    value, low, high = (difference[key] for key in ("value", "low", "high"))
    if value is None:
        return f"no clip to tell it from {rival}"
    if low is None or high is None:
        return f"{value:+.2f} {unit} against {rival}; too few episodes ({difference['episodes']}) to tell"
    how = "better than" if low > 0 else "worse than" if high < 0 else "not told apart from"
    return f"{how} {rival}: {value:+.2f} {unit} [{low:+.2f}, {high:+.2f}]"
