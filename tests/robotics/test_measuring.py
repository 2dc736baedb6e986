"""Statistics of a data set on disk against numpy on everything at once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.measuring import measure
from tests.robotics.memory import memory_source

LENGTHS = [[5, 1, 8], [3] * 120]


def test_over_all_frames_as_numpy_has_it():
    source = memory_source(LENGTHS)
    found = measure(source, progress=False)
    everything = np.concatenate([source.read(*source.locate(n)).actions for n in range(len(source))]).astype(np.float64)
    assert (found.episodes, found.steps) == (123, 374) == (len(source), len(everything))
    np.testing.assert_allclose(found.actions.mean, everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.actions.std, everything.std(0), rtol=1e-12)
    np.testing.assert_allclose(found.actions.q01, np.quantile(everything, 0.01, axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.actions.q99, np.quantile(everything, 0.99, axis=0), rtol=1e-12)
    assert found.states.names == ("a", "b") and found.dataset == "memory" and found.layout == "memory"


def test_workers_change_nothing():
    assert measure(memory_source(LENGTHS), workers=2, progress=False) == measure(memory_source(LENGTHS), progress=False)


def test_a_part_and_damage():
    whole = memory_source([[4, 4, 4]])
    part = measure(whole, range(1, 3), progress=False)
    lost = measure(memory_source([[4, 4, 4]], bad={(0, 0)}), progress=False)
    assert part.steps == lost.steps == 8 and (part.quarantined, lost.quarantined) == (0, 1)
    assert dataclasses.replace(lost, quarantined=0) == part


def test_nothing_to_measure():
    with pytest.raises(UserError, match="not one episode .* checksum"):
        measure(memory_source([[1, 1]], bad={(0, 0), (0, 1)}), progress=False)
