"""Motions from the step before and from the chunk's beginning: one is the other's sum, and comes back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from selfflow_robotics.actions.relative import from_start, from_step, reach

STEPS = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=4, max_side=9), elements=st.floats(-2, 2, allow_nan=False)
)


@given(STEPS, st.integers(0, 9), st.floats(1, 4))
def test_sums_are_the_places_that_a_loop_comes_to(steps, motions, scale):
    path = from_start(steps, motions, scale)
    moving = min(motions, steps.shape[-1])
    here = np.zeros((*steps.shape[:-2], moving))
    for k in range(steps.shape[-2]):
        here = here + steps[..., k, :moving]
        np.testing.assert_allclose(path[..., k, :moving], here / scale, atol=1e-12)
    np.testing.assert_array_equal(path[..., moving:], steps[..., moving:])
    np.testing.assert_allclose(from_step(path, motions, scale), steps, atol=1e-12)


@pytest.mark.parametrize("horizon", [1, 6, 9, 12, 50])
def test_sums_of_a_chunk_are_about_as_large_as_its_motions(horizon):
    """Between the sums of independent motions and of equal ones, whose deviations over a chunk have closed forms."""
    independent, equal = (
        0.4 * math.sqrt(np.mean(np.arange(1, horizon + 1) ** power)) / reach(horizon) for power in (1, 2)
    )
    assert independent <= 1 and equal >= 0.4
