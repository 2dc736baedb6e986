"""Planning through a world whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import Observation, Request
from selfflow_robotics.planning import (
    CEM,
    MPPI,
    Aim,
    BestOfK,
    Bounds,
    GoalImageCost,
    ImaginedCost,
    PlanningPolicy,
    ScoreCost,
)
from selfflow_robotics.policies.seeds import derived_seed
from tests.robotics.dreams.dots import HIGH, LOW, PIXELS, ConstantPolicy, DotWorld, place, spot

GOALS = {"up": spot(8, 16), "left": spot(12, 9)}


def request(instruction: str = "up", seed: int = 0, image: np.ndarray | None = None) -> Request:
    return Request(Observation(spot(12, 16) if image is None else image, instruction), seed)


@pytest.mark.parametrize("planner", [CEM(64, 8, 8), MPPI(64, 8)])
def test_a_plan_reaches_the_goal_picture(planner):
    world = DotWorld(noise=False)
    policy = PlanningPolicy(ImaginedCost(world, GoalImageCost(GOALS)), planner, horizon=3)
    chunks = policy.chunks([request("up"), request("left", seed=1)])
    assert chunks.shape == (2, 3, 7) and chunks.dtype == np.float32
    assert np.all(chunks >= np.float32(LOW)) and np.all(chunks <= np.float32(HIGH))
    for chunk, wanted in zip(chunks, ([4, 0], [0, 7]), strict=True):  # pixels to move: the sum over the chunk decides
        np.testing.assert_allclose(PIXELS * chunk[:, :2].sum(axis=0), wanted, atol=0.6)
    reached = world.imagine(spot(12, 16)[None], chunks[:1], seeds=[9])[0, -1]
    np.testing.assert_allclose(place(reached), [8, 16], atol=0.6)


def test_every_candidate_of_a_request_is_imagined_with_one_seed_and_batches_change_nothing():
    images, seeds = [spot(12, 16), spot(10, 14)], [3, 4]
    candidates = np.random.default_rng(0).uniform(-0.2, 0.2, (2, 5, 3, 7))
    pictures: list[np.ndarray] = []

    def judged(batch: int) -> np.ndarray:
        def look(futures, actions, aim):
            pictures.append(futures)
            return futures[:, -1, -1].mean(axis=(1, 2)) + actions[:, 0, 0]

        cost = ImaginedCost(DotWorld(), look, batch=batch)
        return cost(images, candidates, [Aim(), Aim()], seeds)

    whole = judged(32)
    for futures, seed in zip(pictures, seeds, strict=True):
        noise = np.random.default_rng([seed, 0]).integers(0, 256, (32, 3))
        assert all(np.array_equal(future[0, -1], noise) for future in futures)
    for batch in (1, 3, 7):
        np.testing.assert_array_equal(judged(batch), whole)


def test_settings_and_instructions_reach_the_model_and_pictures_may_have_any_size():
    world = DotWorld()
    judge = ImaginedCost(
        world, ScoreCost(lambda image, words: float(image.mean())), batch=8, steps=5, context_level=0.2
    )
    policy = PlanningPolicy(judge, CEM(4, 1, 2), horizon=2)
    policy.chunks([request("up"), request("left", image=np.full((48, 64, 3), 80, np.uint8))])
    assert [call["rows"] for call in world.calls] == [8]
    assert world.calls[0] == {"rows": 8, "steps": 5, "level": 0.2, "instructions": ["up"] * 4 + ["left"] * 4}


def test_a_row_is_a_function_of_its_request():
    policy = PlanningPolicy(ImaginedCost(DotWorld(), GoalImageCost(GOALS)), CEM(8, 2, 3))
    requests = [request("up", 5), request("left", 5), request("up", 6)]
    together = policy.chunks(requests)
    for row, one in zip(together, requests, strict=True):
        np.testing.assert_array_equal(policy.chunks([one])[0], row)
    assert not np.array_equal(together[0], together[2])
    assert policy.about.horizon == 4 and policy.chunks([]).shape == (0, 4, 7)


def test_a_proposal_is_where_the_search_begins():
    proposal = ConstantPolicy(horizon=5)
    judge = ImaginedCost(DotWorld(noise=False), ScoreCost(lambda image, words: 0.0))
    policy = PlanningPolicy(judge, CEM(4, 1, 2), horizon=3, proposal=proposal)  # all cost the same: the start stays
    np.testing.assert_array_equal(policy.chunks([request(seed=2)]), proposal.chunks([request(seed=2)])[:, :3])
    assert PlanningPolicy(judge, CEM(), proposal=ConstantPolicy(needs_state=True)).about.needs_state


def test_bounds_can_be_narrowed():
    judge = ImaginedCost(DotWorld(), GoalImageCost(GOALS))
    policy = PlanningPolicy(judge, CEM(8, 2, 3), bounds=Bounds(np.full(7, -0.01), np.full(7, 0.01)))
    assert np.abs(policy.chunks([request()])).max() <= np.float32(0.01)


def test_best_of_k_takes_the_chunk_whose_true_future_is_nearest():
    proposer = ConstantPolicy(horizon=3)
    judge = ImaginedCost(DotWorld(noise=False), GoalImageCost(GOALS))
    requests = [request("up", seed) for seed in range(6)] + [request("left", 7)]
    found = BestOfK(proposer, judge, k=6).chunks(requests)
    better = 0
    for chunk, one in zip(found, requests, strict=True):
        seeds = [one.seed, *(derived_seed("chunk", one.seed, n) for n in range(1, 6))]
        wanted = np.array([4.0, 0.0]) if one.observation.instruction == "up" else np.array([0.0, 7.0])
        misses = [np.linalg.norm(3 * PIXELS * ConstantPolicy.move(seed) - wanted) for seed in seeds]
        assert any(np.allclose(chunk[0, :2], ConstantPolicy.move(seed)) for seed in seeds)
        # Far from the goal the spots do not overlap and pictures tell less than distances: near ones must be found.
        if min(misses) < 3:
            assert np.linalg.norm(3 * PIXELS * chunk[0, :2] - wanted) == pytest.approx(min(misses), abs=1e-5)
            better += misses[0] > min(misses)
    assert better >= 2


def test_best_of_one_is_the_policy_itself_and_imagines_nothing():
    proposer, world = ConstantPolicy(), DotWorld()
    best = BestOfK(proposer, ImaginedCost(world, GoalImageCost(GOALS)), k=1)
    np.testing.assert_array_equal(best.chunks([request(seed=3)]), ConstantPolicy().chunks([request(seed=3)]))
    assert not world.calls


def test_ties_go_to_what_the_policy_would_do_and_rows_do_not_depend_on_others():
    judge = ImaginedCost(DotWorld(), ScoreCost(lambda image, words: 1.0))
    requests = [request(seed=1), request(seed=2)]
    best = BestOfK(ConstantPolicy(), judge, k=4)
    np.testing.assert_array_equal(best.chunks(requests), ConstantPolicy().chunks(requests))
    assert best.about.name == "constant, best of 4" and best.about.extra["best_of"] == 4
    noisy = BestOfK(ConstantPolicy(), ImaginedCost(DotWorld(), GoalImageCost(GOALS)), k=4)
    np.testing.assert_array_equal(noisy.chunks(requests)[1], noisy.chunks(requests[1:])[0])


def test_mistakes_are_told():
    judge = ImaginedCost(DotWorld(), GoalImageCost(GOALS))
    with pytest.raises(UserError, match="at 3 Hz, the world model 'dots' imagines .* at 5 Hz"):
        BestOfK(ConstantPolicy(rate=3.0), judge)
    with pytest.raises(UserError, match="at 3 Hz"):
        PlanningPolicy(judge, CEM(), proposal=ConstantPolicy(rate=3.0))
    with pytest.raises(UserError, match="k = 0"):
        BestOfK(ConstantPolicy(), judge, k=0)
    with pytest.raises(UserError, match="a batch of 0"):
        ImaginedCost(DotWorld(), GoalImageCost(), batch=0)
    with pytest.raises(UserError, match="no goal picture for the instruction 'down'"):
        PlanningPolicy(judge, CEM(4, 1, 2)).chunks([request("down")])
    with pytest.raises(UserError, match="takes actions of 7, got 3"):
        judge([spot(9, 9)], np.zeros((1, 2, 3, 3)), [Aim()], [0])


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_goal_pictures_are_brought_to_the_models_size_as_the_model_brings_what_it_sees(fit):
    class Still(DotWorld):
        def imagine(self, images, actions, instructions=None, **rest):
            return np.repeat(images[:, None], actions.shape[1], axis=1)

    camera = np.random.default_rng(0).integers(0, 256, (60, 40, 3), np.uint8)
    for cost, aim in ((GoalImageCost(camera), Aim()), (GoalImageCost(), Aim("", camera))):
        judge = ImaginedCost(Still(fit=fit), cost)
        assert judge([camera], np.zeros((1, 2, 3, 7)), [aim], [0]).tolist() == [[0, 0]]  # it is there already
