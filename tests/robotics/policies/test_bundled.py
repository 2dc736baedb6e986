"""The bundled robot model, on scenes that no recording has: what its model card says, held to with room for luck."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selfflow_mm.evaluation.reconstruction import psnr
from selfflow_robotics.adapter import FlowPolicy, FlowWorldModel, RobotModel
from selfflow_robotics.policies import ActingOptions
from selfflow_robotics.record import RecordOptions, record
from selfflow_robotics.rollouts import rollout
from selfflow_robotics.sources import open_episodes


@pytest.fixture(scope="module")
def model() -> RobotModel:
    return RobotModel.from_pretrained("tabletop", device="cpu", precision="float32")


def test_it_opens_and_closes_drawers(model):
    results = rollout(
        FlowPolicy(model), ["open_drawer", "close_drawer"], 8, seed=5, batch=8, acting=ActingOptions(executed=3)
    )
    # Random actions close one drawer in five and open none.
    for task in ("open_drawer", "close_drawer"):
        assert sum(r.success for r in results if r.task == task) >= 4


def test_what_it_imagines_is_nearer_to_the_truth_than_the_present_and_than_other_actions(model, tmp_path):
    tasks = ("pick", "move_near", "open_drawer", "close_drawer")
    record(tmp_path / "data", RecordOptions(tasks, 8, seed=123, noise=0.5), progress=False)
    source, spec = open_episodes(tmp_path / "data"), model.spec
    episodes = [source.read(*source.locate(n)) for n in range(len(source))]
    films = np.stack([spec.pictures(e.images["image"].read(list(range(7)))) for e in episodes])
    actions = np.stack([e.actions[:6] for e in episodes])
    texts = [e.instruction for e in episodes]
    world = FlowWorldModel(model)
    told, other = (world.imagine(films[:, 0], a, texts, seeds=range(8)) for a in (actions, actions[::-1]))

    def mean(imagined: np.ndarray) -> float:
        pairs = zip(torch.from_numpy(imagined[:, -1].copy()), torch.from_numpy(films[:, -1]), strict=True)
        return float(np.mean([psnr(a, b) for a, b in pairs]))

    assert mean(told) > mean(other) + 1
    assert mean(told) > mean(films[:, :1]) + 1
