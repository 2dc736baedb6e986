"""Who is asked together, and that it changes nothing: with a world of counters that needs no physics."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import Observation, PolicyAbout
from selfflow_robotics.policies import ActingOptions
from selfflow_robotics.rollouts.loop import _homes, act_out
from selfflow_robotics.rollouts.simulation import Job, Moment


class Counters:
    """An episode's length is its layout; the sum of what the policy gave is its instruction at the end."""

    made = 0

    def __init__(self):
        Counters.made += 1

    def start(self, job):
        self.job, self.steps, self.sum = job, 0, 0.0
        return self._moment()

    def carry_out(self, actions):
        for action in actions:
            if self.steps < self.job.layout:
                self.steps += 1
                self.sum += float(action[0])
        return self._moment()

    def _moment(self):
        over = self.steps >= self.job.layout
        seen = None if over else Observation(np.full((1, 1, 3), self.steps, np.uint8), "count")
        return Moment(seen, self.steps, True, True, (f"{self.sum:.0f}",))


class Noting:
    """Answers with the seed and the step it sees; notes the size of every call."""

    about = PolicyAbout(name="noting", horizon=3, control_rate=3)

    def __init__(self):
        self.calls = []

    def chunks(self, requests):
        self.calls.append(len(requests))
        result = np.zeros((len(requests), 3, 7), np.float32)
        for i, request in enumerate(requests):
            result[i, :, 0] = request.seed % 1009 + int(request.observation.image[0, 0, 0])
        return result


JOBS = [Job("count", n, layout=1 + (7 * n) % 11, seed=1000 + n) for n in range(23)]


def outcome(batch, executed=None):
    policy = Noting()
    done = list(act_out(policy, JOBS, Counters, batch=batch, acting=ActingOptions(executed)))
    return {one.job: (one.moment.steps, one.moment.instructions, one.queries) for one in done}, policy.calls


@pytest.mark.parametrize("executed", [None, 1, 2])
def test_results_do_not_depend_on_the_batch(executed):
    first, calls = outcome(1, executed)
    assert set(calls) == {1} and set(first) == set(JOBS)
    for job, (steps, _, queries) in first.items():
        assert steps == job.layout and queries == -(-job.layout // (executed or 3))
    for batch in (2, 5, 40):
        again, calls = outcome(batch, executed)
        assert again == first
        assert max(calls) <= batch and sum(calls) == sum(queries for *_, queries in first.values())


def test_calls_are_full_while_there_is_enough_to_do():
    Counters.made = 0
    _, calls = outcome(4)
    assert Counters.made == 8  # two groups of four
    assert calls[:2] == [4, 4]
    # An episode that ends leaves its place empty for one round; the last episodes are few.
    assert len(calls) <= 1.5 * sum(calls) / 4 + len(JOBS) / 4


def test_actions_that_were_carried_out_are_kept():
    done = list(act_out(Noting(), JOBS, Counters, batch=3))
    for one in done:
        assert one.actions.shape == (one.job.layout, 7)
        assert f"{one.actions[:, 0].sum():.0f}" == one.moment.instructions[-1]


@given(count=st.integers(1, 40), workers=st.integers(1, 9))
def test_processes_have_equally_many_simulations(count, workers):
    homes = _homes(count, workers)
    for shared in (homes, homes[0::2], homes[1::2]):
        many = np.bincount(shared, minlength=workers)
        assert len(shared) == 0 or (len(many) == workers and many.max() - many.min() <= 1)


def test_what_cannot_be():
    with pytest.raises(UserError, match="a batch is at least 1"):
        next(act_out(Noting(), JOBS, Counters, batch=0))
    with pytest.raises(UserError, match="too few to carry out 4"):
        next(act_out(Noting(), JOBS, Counters, acting=ActingOptions(4)))
    assert list(act_out(Noting(), [], Counters)) == []


def test_a_process_that_dies_is_told():
    with pytest.raises(UserError, match="a process that runs episodes died"):
        next(act_out(Noting(), JOBS, partial(os._exit, 3), workers=1))


def test_what_a_simulation_raises_in_a_process_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        next(act_out(Noting(), JOBS, partial(divmod, 1, 0), workers=2))
