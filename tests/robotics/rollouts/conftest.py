"""The expert as a policy without memory."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from selfflow_robotics.actions.grippers import to_house
from selfflow_robotics.actions.rotations import axis_angle_to_rpy
from selfflow_robotics.interfaces import PolicyAbout
from selfflow_robotics.policies.seeds import derived_seed
from selfflow_robotics.tabletop import ID, Expert


def demonstration(task, layout):
    """House actions ``(T, 7)`` of the expert in a scene, as recording and the layout of RT-1 make them."""
    env = gymnasium.make(ID, task=task, pictures=False, disable_env_checker=True)
    env.reset(options={"episode": layout})
    expert, commands, over = Expert(env), [], False
    while not over:
        commands.append(expert.act())
        *_, ended, truncated, _ = env.step(commands[-1])
        over = ended or truncated
    assert ended
    actions = np.stack(commands).astype(np.float32)
    turns = axis_angle_to_rpy(actions[:, 3:6]).astype(np.float32)
    return np.hstack([actions[:, :3], turns, to_house(actions[:, 6:], "relative_closing")])


class Scripts:
    """Recorded actions for each job, found by the seeds that its questions have."""

    def __init__(self, jobs, scripts, horizon=4, executed=4, queries=60):
        self.about = PolicyAbout(name="scripts", horizon=horizon, control_rate=3)
        self._places = {
            derived_seed("query", job.seed, 0, query): (script, query * executed)
            for job, script in zip(jobs, scripts, strict=True)
            for query in range(queries)
        }

    def chunks(self, requests):
        result = np.zeros((len(requests), self.about.horizon, 7), np.float32)
        for i, request in enumerate(requests):
            script, start = self._places[request.seed]
            rest = script[start : start + self.about.horizon]
            result[i, :, 6] = script[-1, 6]
            result[i, : len(rest)] = rest
        return result


@pytest.fixture
def scripts():
    """``scripts(jobs, change=None, **settings)``: the expert's demonstrations, each changed, as a policy."""

    def make(jobs, change=lambda script: script, **settings):
        return Scripts(jobs, [change(demonstration(job.task, job.layout)) for job in jobs], **settings)

    return make
