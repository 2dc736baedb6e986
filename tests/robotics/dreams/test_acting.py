"""A policy in a dream, chunk by chunk."""

from __future__ import annotations

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.dreams.acting import act_in_dream
from selfflow_robotics.policies import ActingOptions, Policy
from tests.robotics.dreams.dots import PIXELS, ConstantPolicy, DotWorld, place, spot


def act(world: DotWorld, length: int, seed: int = 0, executed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    policy = Policy(ConstantPolicy(horizon=3), ActingOptions(executed=executed))
    return act_in_dream(world, policy, spot(12, 16), "push", length=length, seed=seed, steps=2, context_level=0.1)


def test_pictures_are_what_the_actions_lead_to():
    world = DotWorld(noise=False)
    actions, pictures = act(world, 5, executed=2)
    assert actions.shape == (5, 7) and pictures.shape == (5, 24, 32, 3)
    assert [call["rows"] for call in world.calls] == [1, 1, 1]
    assert world.calls[0] == {"rows": 1, "steps": 2, "level": 0.1, "instructions": ["push"]}
    np.testing.assert_array_equal(actions[0, :2], actions[1, :2])  # one chunk moves by the same amount
    expected = [12, 16] - PIXELS * np.cumsum(actions[:, :2], axis=0)
    inside = np.all((expected > 5) & (expected < (17, 26)), axis=1)
    assert inside[:2].all()
    for picture, where in zip(pictures[inside], expected[inside], strict=True):
        np.testing.assert_allclose(place(picture), where, atol=0.2)


def test_chunks_have_noise_of_their_own_and_seeds_decide():
    _, pictures = act(DotWorld(), 6)
    assert not np.array_equal(pictures[0, -1], pictures[3, -1])  # the first pictures of two chunks
    np.testing.assert_array_equal(act(DotWorld(), 6)[1], pictures)
    assert not np.array_equal(act(DotWorld(), 6, seed=1)[1][0, -1], pictures[0, -1])


def test_actions_of_another_kind_are_refused():
    with pytest.raises(UserError, match="at 3 Hz, the world model 'dots' imagines .* at 5 Hz"):
        act_in_dream(DotWorld(), Policy(ConstantPolicy(rate=3.0)), spot(12, 16), "push", length=1, seed=0)
