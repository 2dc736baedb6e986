"""Ensembling against its formulas written out, and what must hold of any average."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from selfflow_robotics.policies.ensembling import adaptive_weights, blend, overlap, temporal_weights

NAMES = ("x", "y", "gripper")


def test_overlap_is_what_older_chunks_say_about_the_newests_steps():
    new, old, oldest = (np.full((4, 1), float(start)) + np.arange(4)[:, None] for start in (0, 10, 20))
    members, present = overlap([new, old, oldest], 2)
    np.testing.assert_array_equal(members[0, :, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(members[1, :2, 0], [12, 13])  # asked 2 steps earlier: its rows 2 and 3
    np.testing.assert_array_equal(present, [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])


def test_temporal_weights_are_acts():
    """Three chunks reach step 0, two step 1; the oldest there has i = 0."""
    present = np.array([[1, 1], [1, 1], [1, 0]], bool)
    m = 0.3
    weights = temporal_weights(present, m)
    total = 1 + math.exp(-m) + math.exp(-2 * m)
    np.testing.assert_allclose(weights[:, 0], [math.exp(-2 * m) / total, math.exp(-m) / total, 1 / total])
    np.testing.assert_allclose(weights[:, 1], [math.exp(-m) / (1 + math.exp(-m)), 1 / (1 + math.exp(-m)), 0])


def test_temporal_ensembling_is_that_of_acts_loop():
    """ACT's inference as it is written there: all predictions in one table by query and step, a query at every step."""
    rng = np.random.default_rng(0)
    horizon, m, steps = 5, 0.01, 12
    chunks = rng.normal(size=(steps, horizon, 2))
    table = np.full((steps, steps + horizon, 2), np.nan)
    for t in range(steps):
        table[t, t : t + horizon] = chunks[t]
        there = table[: t + 1, t]
        there = there[~np.isnan(there).any(axis=1)]
        weights = np.exp(-m * np.arange(len(there)))
        expected = ((weights / weights.sum())[:, None] * there).sum(axis=0)
        members, present = overlap([chunks[q] for q in range(t, -1, -1)][:horizon], 1)
        ours = blend(members, temporal_weights(present, m), ("x", "y"))
        np.testing.assert_allclose(ours[0], expected)


def test_adaptive_weights_are_cogacts():
    """Equal, at right angles, opposite, and zero: cosines 1, 0, -1 and 0."""
    members = np.array([[[2.0, 0.0]], [[5.0, 0.0]], [[0.0, 3.0]], [[-1.0, 0.0]], [[0.0, 0.0]]])
    weights = adaptive_weights(members, np.ones((5, 1), bool), 0.7)
    expected = np.exp(0.7 * np.array([1.0, 1.0, 0.0, -1.0, 0.0]))
    np.testing.assert_allclose(weights[:, 0], expected / expected.sum())


def test_the_gripper_is_voted_on():
    def result(openings, weights):
        members = np.zeros((len(openings), 1, 3))
        members[:, 0, 2] = openings
        return blend(members, np.array(weights)[:, None], NAMES)[0, 2]

    assert result([1, 0, 0], [0.2, 0.4, 0.4]) == 0
    assert result([1, 0, 0], [0.6, 0.2, 0.2]) == 1
    assert result([1, 0], [0.5, 0.5]) == 1 and result([0, 1], [0.5, 0.5]) == 0  # a tie: the newest
    np.testing.assert_allclose(result([0.9, 0.7, 0.1], [0.25, 0.25, 0.5 - 1e-6]), 0.8)  # the winners' mean
    np.testing.assert_allclose(result([0.9], [1.0]), 0.9)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_an_average_lies_between_what_is_averaged(data):
    horizon = data.draw(st.integers(1, 6))
    shift = data.draw(st.integers(1, horizon))
    count = data.draw(st.integers(1, -(-horizon // shift)))
    floats = st.floats(-3, 3, width=32)
    chunks = [data.draw(hn.arrays(np.float64, (horizon, 3), elements=floats)) for _ in range(count)]
    members, present = overlap(chunks, shift)
    for weights in (temporal_weights(present, 0.5), adaptive_weights(members, present, 0.5)):
        np.testing.assert_allclose(weights.sum(axis=0), 1)
        assert not weights[~present].any()
        result = blend(members, weights, NAMES)
        for row in range(horizon):
            there = members[present[:, row], row]
            assert (result[row] >= there.min(axis=0) - 1e-9).all() and (result[row] <= there.max(axis=0) + 1e-9).all()
        alone = present.sum(axis=0) == 1
        np.testing.assert_array_equal(result[alone], chunks[0][alone])
