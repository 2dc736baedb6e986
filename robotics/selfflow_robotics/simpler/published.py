"""Published success rates, to stand beside ours.

What others report is theirs: other checkpoints, seeds and numbers of episodes, and mostly no interval. A difference of
ten points to a published figure may be chance.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["REAL", "SCOREBOARD", "SIMPLER_SOURCE", "SIMULATED", "Score"]

#: Where :data:`REAL` and :data:`SIMULATED` are from.
SIMPLER_SOURCE = "SimplerEnv at commit 4ab7178 (2025-03-28), simpler_env/utils/metrics.py"

_GOOGLE = ("rt-2-x", "rt-1-converged", "rt-1-15pct", "rt-1-x", "rt-1-begin", "octo-base")
_WIDOWX = ("rt-1-x", "octo-base", "octo-small")


def _table(names: tuple[str, ...], rates: dict[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    return {task: dict(zip(names, row, strict=True)) for task, row in rates.items()}


#: Task -> policy -> success rate of the real robot.
REAL: dict[str, dict[str, float]] = _table(
    _GOOGLE,
    {
        "pick_coke_can": (0.907, 0.853, 0.920, 0.760, 0.133, 0.293),
        "move_near": (0.733, 0.633, 0.583, 0.450, 0.017, 0.350),
        "open_drawer": (0.333, 0.815, 0.704, 0.519, 0.000, 0.148),
        "close_drawer": (0.630, 0.926, 0.889, 0.741, 0.000, 0.519),
        "place_apple_in_closed_top_drawer": (0.074, 0.185, 0.185, 0.407, 0.000, 0.000),
    },
) | _table(
    _WIDOWX,
    {
        "spoon_on_towel": (0.000, 0.333, 0.417),
        "carrot_on_plate": (0.000, 0.250, 0.083),
        "stack_cube": (0.000, 0.000, 0.125),
        "put_eggplant_in_basket": (0.000, 0.250, 0.400),
    },
)

#: Task -> policy -> success rate in SIMPLER, visual matching.
SIMULATED: dict[str, dict[str, float]] = _table(
    _GOOGLE,
    {
        "pick_coke_can": (0.787, 0.857, 0.710, 0.567, 0.027, 0.170),
        "move_near": (0.779, 0.442, 0.354, 0.317, 0.050, 0.042),
        "open_drawer": (0.157, 0.601, 0.463, 0.296, 0.000, 0.009),
        "close_drawer": (0.343, 0.861, 0.667, 0.891, 0.278, 0.444),
        "place_apple_in_closed_top_drawer": (0.037, 0.065, 0.130, 0.213, 0.000, 0.000),
    },
) | _table(
    _WIDOWX,
    {
        "spoon_on_towel": (0.000, 0.125, 0.472),
        "carrot_on_plate": (0.042, 0.083, 0.097),
        "stack_cube": (0.000, 0.000, 0.042),
        "put_eggplant_in_basket": (0.000, 0.431, 0.569),
    },
)


@dataclass(frozen=True)
class Score:
    """A published mean of the Google robot in visual matching.

    Attributes:
        policy: its name.
        share: of successes: the mean of coke can, move near and drawers, unless ``groups`` are four.
        groups: 3, or 4 for the mean of four groups, the apple among them, on the paper's trials.
        parts: the shares that it is the mean of, and the apple's, as far as they are published.
        source: where the figure is from.
    """

    policy: str
    share: float
    source: str
    groups: int = 3
    parts: dict[str, float] = field(default_factory=dict)


_STARVLA = "the StarVLA project's table of published SimplerEnv figures"


def _score(policy: str, source: str, coke: float, near: float, drawers: float, apple: float | None = None) -> Score:
    """Percent as they are printed."""
    parts = {"pick_coke_can": coke, "move_near": near, "drawers": drawers}
    share = round(sum(parts.values()) / 3, 1) / 100
    if apple is not None:
        parts["place_apple_in_closed_top_drawer"] = apple
    return Score(policy, share, source, parts={name: value / 100 for name, value in parts.items()})


#: The Google robot in visual matching, best first.
SCOREBOARD: tuple[Score, ...] = (
    _score("CogACT 7B", f"Li et al. 2024 (CogACT), as in {_STARVLA}", 91.3, 85.0, 71.8, 50.9),
    _score("StarVLA-OFT", _STARVLA, 95.3, 75.0, 68.8, 66.1),
    _score(
        "open-pi-zero 2.6B (RT-1 data only)",
        "README of allenzren/open-pi-zero at commit d55d2c3: Fractal-Beta, float32, 10 runs; close 75.0, open 49.5",
        97.9, 78.7, 62.25, 46.6,
    ),
    _score("SpatialVLA 4B", f"Qu et al. 2025 (SpatialVLA), as in {_STARVLA}", 86.0, 77.9, 57.4),
    _score("pi0-FAST", f"as in {_STARVLA}", 75.3, 67.5, 42.9),
    _score("pi0", f"as in {_STARVLA}", 72.7, 65.3, 38.3),
    _score("RT-1-X", f"as in {_STARVLA}", 56.7, 31.7, 59.7, 21.3),
    Score("Self-Flow 625M", 0.47, "the Self-Flow paper, app. E: groups of 15, 18, 10 and 7 trials, twice", groups=4),
    _score("OpenVLA 7B", f"as in {_STARVLA}", 18.0, 56.3, 63.0, 0.0),
)  # fmt: skip
