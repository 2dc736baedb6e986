"""Policies in imagination, and their ranking, where everything can be counted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import Observation, Request
from selfflow_robotics.policies import ActingOptions
from selfflow_robotics.report_card.films import Imagining
from selfflow_robotics.report_card.held_out import View
from selfflow_robotics.report_card.imagined_episodes import Ended, NoisyPolicy, Start, imagine_episodes
from selfflow_robotics.report_card.policies_ranked import Contestant, rank_policies
from selfflow_robotics.report_card.ranking import mmrv
from selfflow_robotics.rollouts import EpisodeResult
from tests.robotics.report_card.toys import HEIGHT, WIDTH, AtRightEdge, Model, Pusher, draw

VIEW = View(HEIGHT, WIDTH)
HOW = Imagining(seed=0, batch=4)
JUDGES = {"pick": AtRightEdge()}
#: The square has 26 - column pixels to go.
STARTS = [
    Start("pick", n, 100 + n, draw(90, 5, column, True), "pick it") for n, column in enumerate((2, 8, 14, 20, 23))
]


def act(pixels: int, model: Model | None = None, how: Imagining = HOW, limit: int = 8, **acting: int) -> list[Ended]:
    options = ActingOptions(**acting)  # type: ignore[arg-type]
    return imagine_episodes(
        model or Model(), VIEW, Pusher(pixels), STARTS, JUDGES, how=how, acting=options, limit=limit
    )


@pytest.mark.parametrize("executed", [1, 3, 4])
def test_steps_to_success_by_hand(executed: int) -> None:
    """2 pixels a step: 24, 18, 12, 6 and 3 pixels take 12, 9, 6, 3 and 2 steps, of which 8 are allowed."""
    expected = [Ended(False, 8), Ended(False, 8), Ended(True, 6), Ended(True, 3), Ended(True, 2)]
    assert act(2, executed=executed) == expected


def test_who_does_nothing_never_succeeds_and_a_wrong_model_deceives() -> None:
    assert not any(one.success for one in act(0))
    assert not any(one.success for one in act(9, Model("copies")))


def test_batches_do_not_matter() -> None:
    model = Model("ignores")
    assert act(1, model, Imagining(seed=3, batch=1), 30) == act(1, model, Imagining(seed=3, batch=5), 30)
    assert any(one.success for one in act(1, model, Imagining(seed=3), 60))


def test_policies_that_cannot_dream() -> None:
    def refused(policy: Pusher) -> None:
        imagine_episodes(Model(), VIEW, policy, STARTS, JUDGES, how=HOW, acting=ActingOptions(), limit=8)

    with pytest.raises(UserError, match="needs the robot's state, which nobody knows"):
        refused(Pusher(1, needs=True))

    class Wheels(Pusher):
        @property
        def about(self):  # type: ignore[no-untyped-def]
            return dataclasses.replace(super().about, action_names=("left", "right"))

    with pytest.raises(UserError, match="gives left, right; the world model takes x, y"):
        refused(Wheels(1))


def test_noise_has_the_size_asked_for_and_spares_the_gripper() -> None:
    low, high = Model().about.action_low, Model().about.action_high
    noisy = NoisyPolicy(Pusher(2), 0.5, low, high)
    requests = [Request(Observation(STARTS[0].image, "pick it"), seed) for seed in range(500)]
    chunks = noisy.chunks(requests)
    assert chunks[..., 0].mean() == pytest.approx(0.02, abs=0.002) and not chunks[..., 6].any()
    assert chunks[..., :6].std(axis=(0, 1)) == pytest.approx(0.5 * 0.04, rel=0.1)
    assert np.array_equal(noisy.chunks(requests[7:8])[0], chunks[7])
    assert np.array_equal(NoisyPolicy(Pusher(2), 0, low, high).chunks(requests), Pusher(2).chunks(requests))
    with pytest.raises(UserError, match="range of all 7 actions"):
        NoisyPolicy(Pusher(2), 0.5, (), ())


def results(verdicts: list[bool], steps: int = 5, task: str = "pick") -> tuple[EpisodeResult, ...]:
    return tuple(
        EpisodeResult(task, n, 100 + n, steps, done, done, ("pick it",), 1, 0.0) for n, done in enumerate(verdicts)
    )


def contest(real: dict[int, list[bool]]) -> list[Contestant]:
    return [
        Contestant(f"push {pixels}", Pusher(pixels), ActingOptions(), results(verdicts), tuple(STARTS))
        for pixels, verdicts in real.items()
    ]


def test_a_ranking_by_hand() -> None:
    """In imagination, 8 steps of 0, 1, 2, 3 pixels reach the edge in 0, 2, 3 and 5 of the five episodes."""
    no, yes = False, True
    real = {0: [no] * 5, 1: [no, no, no, yes, yes], 2: [yes] * 5, 3: [no, no, yes, yes, yes]}
    found = rank_policies(Model(), VIEW, contest(real), JUDGES, how=HOW, limit=8)
    rates = [(policy["real"], policy["imagined"]) for policy in found["policies"].values()]
    assert rates == [(0, 0), (0.4, 0.4), (1, 0.6), (0.6, 1)]
    assert found["mmrv"] == pytest.approx((0.4 + 0.4) / 4) == mmrv(*zip(*rates, strict=True))
    assert found["pearson"]["value"] == pytest.approx(np.corrcoef(np.array(rates).T)[0, 1])
    assert found["spearman"]["value"] == pytest.approx(0.8)
    counts = found["agreement"]
    assert [counts[name] for name in ("both", "only_real", "only_imagined", "neither")] == [8, 2, 2, 8]
    assert counts["kappa"] == pytest.approx(0.6) and counts["episodes"] == 20
    assert "of 4 policies" in found["verdict"] and "not told apart from chance" in found["verdict"]


def test_a_real_success_that_came_too_late_counts_as_none() -> None:
    late = [
        Contestant(name, Pusher(0), ActingOptions(), results([True] * 5, steps=steps), tuple(STARTS))
        for name, steps in (("late", 9), ("in time", 8))
    ]
    found = rank_policies(Model(), VIEW, late, JUDGES, how=HOW, limit=8)["policies"]
    assert (found["late"]["real"], found["in time"]["real"]) == (0, 1)


def test_what_cannot_be_ranked() -> None:
    alone = contest({1: [True] * 5})
    with pytest.raises(UserError, match="two policies at least"):
        rank_policies(Model(), VIEW, alone, JUDGES, how=HOW, limit=8)
    other = Contestant("other", Pusher(1), ActingOptions(), results([True] * 5, task="place_in_drawer"), tuple(STARTS))
    with pytest.raises(UserError, match="other has no real episode of pick"):
        rank_policies(Model(), VIEW, [*alone, other], JUDGES, how=HOW, limit=8)
