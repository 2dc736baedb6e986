"""Rankings against hand calculations, scipy, and what SIMPLER's own functions give of SIMPLER's own tables."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from scipy import stats

from selfflow_mm.errors import UserError
from selfflow_robotics.simpler.published import REAL, SCOREBOARD, SIMULATED
from selfflow_robotics.simpler.ranking import as_plain, as_text, rank, ranked
from tests.robotics.simpler.rows import of_task, rows, settings, write_run

#: Task -> MMRV and r that mean_maximum_rank_violation and pearson_correlation of simpler_env/utils/metrics.py (commit
#: 4ab7178), called with (SIMPLER_PERF, REAL_PERF), give for all policies of the task.
SIMPLERS_OWN = {
    "pick_coke_can": (0.0313, 0.9754),
    "move_near": (0.1110, 0.8561),
    "open_drawer": (0.0000, 0.9832),
    "close_drawer": (0.1233, 0.7712),
    "place_apple_in_closed_top_drawer": (0.0000, 0.9692),
    "spoon_on_towel": (0.0000, 0.8269),
    "carrot_on_plate": (0.1113, 0.5714),
    "stack_cube": (0.0000, 1.0000),
    "put_eggplant_in_basket": (0.0000, 0.9894),
}


@pytest.mark.parametrize("task", SIMPLERS_OWN)
def test_simplers_own_table_ranks_as_simplers_own_functions_say(task: str) -> None:
    line = ranked("visual matching", task, REAL[task], SIMULATED[task])
    assert (line.mmrv, line.pearson.value) == pytest.approx(SIMPLERS_OWN[task], abs=5e-5)


def test_move_near_of_simplers_table_by_hand() -> None:
    """Real: rt-2-x .733, converged .633, 15pct .583, rt-1-x .450, begin .017, octo .350.
    Simulated: .779, .442, .354, .317, .050, .042. Only begin and octo-base change places: both are violated by
    .350 - .017 = .333, the other four by nothing: 2 x .333 / 6 = .111."""
    assert ranked("", "", REAL["move_near"], SIMULATED["move_near"]).mmrv == pytest.approx(2 * 0.333 / 6)


def runs_of(tmp_path: Path, task: str, successes: dict[str, int], suite: str = "google-visual-matching"):  # type: ignore[no-untyped-def]
    found = of_task(suite, task)
    return {
        policy: write_run(tmp_path / f"{policy}-{task}", rows(found, lambda i, n=n: i < n), settings(suite, policy))  # type: ignore[misc]
        for policy, n in successes.items()
    }


def test_runs_by_hand(tmp_path: Path) -> None:
    """Real: rt-1-x .760, octo-base .293, rt-1-begin .133. Ours, of 300: 90, 120, 30, so .3, .4, .1.
    rt-1-x and octo-base change places: violations .467, .467, 0, so MMRV = .934 / 3. (With the sides exchanged it
    would be (.1 + .1) / 3.)
    Pearson: real less its mean .395333: .364667, -.102333, -.262333; ours less .266667: .033333, .133333, -.166667.
    Products .012156 - .013644 + .043722 = .042233; squares .132982 + .010472 + .068819 = .212273 and .001111 +
    .017778 + .027778 = .046667; r = .042233 / sqrt(.212273 x .046667) = .4243.
    Spearman: ranks 3 2 1 and 2 3 1: 1 - 6 (1 + 1) / (3 x 8) = .5."""
    (line,) = rank(runs_of(tmp_path, "pick_coke_can", {"rt-1-x": 90, "octo-base": 120, "rt-1-begin": 30}))
    assert (line.setting, line.task) == ("visual matching", "pick_coke_can")
    assert line.policies == ("rt-1-x", "octo-base", "rt-1-begin")
    assert line.real == (0.760, 0.293, 0.133) and line.simulated == pytest.approx((0.3, 0.4, 0.1))
    assert line.mmrv == pytest.approx(0.934 / 3)
    assert line.pearson.value == pytest.approx(0.4243, abs=1e-4) and line.spearman.value == pytest.approx(0.5)
    assert math.isnan(line.pearson.low)  # of three policies there is no interval
    assert as_plain([line])[0]["pearson"]["low"] is None and "NaN" not in json.dumps(as_plain([line]))
    text = as_text([line])
    assert "too few policies for an interval" in text and "0.311" in text and "76.0%" in text


def test_the_interval_of_four_policies_is_scipys(tmp_path: Path) -> None:
    successes = {"rt-1-x": 90, "octo-base": 120, "rt-1-begin": 30, "rt-2-x": 280}
    (line,) = rank(runs_of(tmp_path, "pick_coke_can", successes))
    theirs = stats.pearsonr(line.real, line.simulated)
    assert line.pearson.value == pytest.approx(theirs.statistic)
    interval = theirs.confidence_interval()
    assert (line.pearson.low, line.pearson.high) == pytest.approx((interval.low, interval.high))


def test_means_over_tasks_use_the_same_weights_on_both_sides(tmp_path: Path) -> None:
    runs = {}
    for policy, share in (("rt-1-x", 0.5), ("octo-base", 0.25)):
        found = [
            one
            for task in ("pick_coke_can", "move_near", "open_drawer", "close_drawer")
            for trials in [of_task("google-visual-matching", task)]
            for one in rows(trials, lambda i, trials=trials: i < share * len(trials))  # type: ignore[misc]  # noqa: B023
        ]
        runs[policy] = write_run(tmp_path / policy, found, settings("google-visual-matching", policy))
    lines = {line.task: line for line in rank(runs)}
    mean = lines["mean of 3 tasks (pick_coke_can, move_near, drawers)"]
    # rt-1-x: (.760 + .450 + (.519 + .741) / 2) / 3; octo-base: (.293 + .350 + (.148 + .519) / 2) / 3
    assert mean.real == pytest.approx((1.84 / 3, 0.9765 / 3))
    assert mean.simulated == pytest.approx((0.5, 0.25)) and mean.mmrv == 0
    assert not any(name.startswith("mean of 4") for name in lines)


def test_what_cannot_be_ranked_is_refused(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, "pick_coke_can", {"rt-1-x": 3})
    with pytest.raises(UserError, match="two runs at least"):
        rank(runs)
    with pytest.raises(UserError, match="no real rates of 'mine' are published; there are rt-2-x"):
        rank({"mine": runs["rt-1-x"]})
    # The tabletop has tasks of the same names, of which the real robot knows nothing.
    tabletop = runs_of(tmp_path, "move_near", {"rt-1-x": 3, "octo-base": 4}, "tabletop")
    with pytest.raises(UserError, match="two runs at least"):
        rank(tabletop)


def test_published_means_are_those_of_their_parts() -> None:
    printed = {
        "RT-1-X": 49.4, "OpenVLA 7B": 45.8, "pi0": 58.8, "pi0-FAST": 61.9, "SpatialVLA 4B": 73.8, "CogACT 7B": 82.7,
        "StarVLA-OFT": 79.7, "open-pi-zero 2.6B (RT-1 data only)": 79.6, "Self-Flow 625M": 47.0,
    }  # fmt: skip
    assert {score.policy: round(100 * score.share, 1) for score in SCOREBOARD} == printed
    assert [score.share for score in SCOREBOARD] == sorted((score.share for score in SCOREBOARD), reverse=True)
    assert all(score.source for score in SCOREBOARD)
    rt = SIMULATED["pick_coke_can"]["rt-1-x"], SIMULATED["move_near"]["rt-1-x"]
    parts = next(score.parts for score in SCOREBOARD if score.policy == "RT-1-X")
    assert (parts["pick_coke_can"], parts["move_near"]) == pytest.approx(rt)
