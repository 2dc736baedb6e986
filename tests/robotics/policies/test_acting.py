"""An episode's seeds, its memory, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import Observation, PolicyAbout
from selfflow_robotics.policies import ActingOptions, Policy
from selfflow_robotics.policies.seeds import derived_seed

IMAGE = np.zeros((4, 6, 3), np.uint8)


class Counting:
    """Answers query q with 100 q + row in x, and keeps what it was asked."""

    def __init__(self, horizon=4, **about):
        self.about = PolicyAbout(name="counting", horizon=horizon, control_rate=3, **about)
        self.asked = []

    def chunks(self, requests):
        self.asked += requests
        result = np.zeros((len(requests), self.about.horizon, 7), np.float32)
        for i, request in enumerate(requests):
            result[i, :, 0] = 100 * request.query + np.arange(self.about.horizon)
        return result


def test_without_ensembling_the_chunk_is_the_policys():
    policy = Policy(Counting())
    assert policy.executed == 4
    for query in range(3):
        chunk = policy.act(IMAGE, "go")
        assert chunk.dtype == np.float32
        np.testing.assert_array_equal(chunk[:, 0], 100 * query + np.arange(4))


def test_temporal_ensembling_by_hand():
    """Executed 1, equal weights (decay 0): step s is the mean of what the last chunks say about it."""
    policy = Policy(Counting(), ActingOptions(executed=1, ensemble="temporal", decay=0))
    for query in range(6):
        x = policy.act(IMAGE, "go")[:, 0]
        for row in range(4):
            members = [100 * q + (query - q + row) for q in range(query + 1) if query - q + row < 4]
            assert x[row] == pytest.approx(np.mean(members))


def test_memory_limits_how_far_back():
    policy = Policy(Counting(), ActingOptions(executed=1, ensemble="temporal", decay=0, memory=1))
    chunks = [policy.act(IMAGE, "go")[:, 0] for _ in range(4)]
    np.testing.assert_allclose(chunks[3], [(300 + 201) / 2, (301 + 202) / 2, (302 + 203) / 2, 303])


def test_what_was_planned_for_another_instruction_is_forgotten():
    policy = Policy(Counting(), ActingOptions(executed=2, ensemble="adaptive"))
    policy.act(IMAGE, "open the drawer")
    mixed = policy.act(IMAGE, "open the drawer")
    assert not np.array_equal(mixed[:, 0], [100, 101, 102, 103])
    np.testing.assert_array_equal(policy.act(IMAGE, "place the apple")[:, 0], [200, 201, 202, 203])


def test_reset_forgets_and_counts_queries_anew():
    chunks = Counting()
    policy = Policy(chunks, ActingOptions(executed=1, ensemble="temporal"))
    for _ in range(2):
        policy.act(IMAGE, "go")
    policy.reset()
    np.testing.assert_array_equal(policy.act(IMAGE, "go")[:, 0], np.arange(4))
    assert [request.query for request in chunks.asked] == [0, 1, 0]


def test_seeds_are_functions_of_seed_episode_and_query():
    def seeds(policy, queries):
        found = []
        for _ in range(queries):
            policy.act(IMAGE, "go")
            found.append(policy.chunks.asked[-1].seed)
        return found

    policy = Policy(Counting(), ActingOptions(seed=7))
    policy.reset()  # nothing was asked yet: still the first episode
    first, second = seeds(policy, 3), (policy.reset(), seeds(policy, 3))[1]
    assert len({*first, *second}) == 6 and all(0 <= seed < 2**63 for seed in first)
    policy.reset(seed=7)
    assert seeds(policy, 3) == first
    assert (policy.reset(), seeds(policy, 3))[1] == second
    assert seeds(Policy(Counting(), ActingOptions(seed=8)), 3) != first


def test_a_request_stays_until_it_is_answered():
    policy = Policy(Counting())
    seen = Observation(IMAGE, "go")
    one, two = policy.request(seen), policy.request(seen)
    assert (one.seed, one.query) == (two.seed, two.query) == (one.seed, 0)
    policy.answer(policy.chunks.chunks([one])[0])
    assert policy.request(seen).query == 1


def test_derived_seeds_tell_zeros_and_purposes_apart():
    found = {derived_seed(p, *numbers) for p in ("a", "b") for numbers in ((5,), (5, 0), (0, 5), (5, 0, 0))}
    assert len(found) == 8
    assert derived_seed("a", 2**62) != derived_seed("a", 2**62 + 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"executed": 0}, "at least one action"),
        ({"ensemble": "median"}, "'temporal' or 'adaptive'"),
        ({"memory": 0}, "at least one past chunk"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"seed": -1}, "below 2\\*\\*63"),
        ({"seed": 1.5}, "a seed is a whole number"),
        ({"executed": 5}, "too few to carry out 5"),
        ({"ensemble": "temporal"}, "nothing to average"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(UserError, match=words):
        Policy(Counting(), ActingOptions(**options))


def test_states_and_answers_that_do_not_fit():
    needy = Policy(Counting(state_names=("a", "b"), needs_state=True))
    with pytest.raises(UserError, match="needs the robot's state"):
        needy.act(IMAGE, "go")
    with pytest.raises(UserError, match="a state of 2 numbers"):
        needy.act(IMAGE, "go", np.zeros(3))
    needy.act(IMAGE, "go", [1, 2])
    seen = needy.chunks.asked[-1].observation.state
    assert seen.dtype == np.float32 and seen.tolist() == [1, 2]
    for asked, words in (
        ((None, "go", [1, 2]), "image is \\(height, width, 3\\) of uint8"),
        (([[1]], "go", [1, 2]), "image is \\(height, width, 3\\) of uint8"),
        ((IMAGE, None, [1, 2]), "an instruction is a text, got NoneType"),
        ((IMAGE, "go", ["a", "b"]), "a state is \\(S,\\) numbers, got list"),
    ):
        with pytest.raises(UserError, match=words):
            needy.act(*asked)
    policy = Policy(Counting())
    with pytest.raises(UserError, match="chunk of shape"):
        policy.answer(np.zeros((3, 7)))
    with pytest.raises(UserError, match="not finite"):
        policy.answer(np.full((4, 7), np.inf))


def test_a_trained_policy_from_its_folder(tiny_robot_model):
    policy = Policy.from_pretrained(tiny_robot_model.model, options=ActingOptions(executed=1, seed=3), steps=2)
    image, state = np.full((40, 60, 3), 90, np.uint8), np.full(8, 0.5, np.float32)
    chunk = policy.act(image, "go left", state)
    assert chunk.shape == (policy.about.horizon, 7) and policy.executed == 1
    policy.reset(seed=3)
    np.testing.assert_array_equal(policy.act(image, "go left", state), chunk)
    assert not np.array_equal(policy.act(image, "go left", state), chunk)  # the next question has another seed
