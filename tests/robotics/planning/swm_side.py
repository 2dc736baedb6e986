"""Runs in an environment with stable-worldmodel: its solvers and its policy on our cost, and our planner in its policy.

Prints, as the last line, JSON: what each did in dreams of the world whose truth is known.
"""

from __future__ import annotations

import json

import numpy as np
import torch

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):  # torchvision from PyPI beside a CPU build of torch lacks these, and does not import
    if not hasattr(torch.ops.torchvision, _name):
        _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from stable_worldmodel.policy import PlanConfig, WorldModelPolicy  # noqa: E402
from stable_worldmodel.solver import CEMSolver, MPPISolver  # noqa: E402
from stable_worldmodel.solver import Solver as TheirSolver  # noqa: E402

from selfflow_robotics.dreams import DreamBatch  # noqa: E402
from selfflow_robotics.planning import CEM, ActionScaler, Bounds, GoalImageCost, ImaginedCost, Solver  # noqa: E402
from tests.robotics.dreams.dots import HIGH, LOW, DotWorld, place, spot  # noqa: E402

IMAGES = np.stack([spot(12, 16), spot(10, 14)])
GOALS = np.stack([spot(9, 12), spot(14, 19)])


def final_places(solver, process: dict) -> list[list[float]]:
    """Where the spots are after a plan of two steps was carried out in dreams."""
    policy = WorldModelPolicy(solver, PlanConfig(horizon=2, receding_horizon=2, warm_start=False), process=process)
    envs = DreamBatch(2, DotWorld())
    policy.set_env(envs)
    obs, _ = envs.reset(seed=0, options={"image": IMAGES})
    for _ in range(2):
        info = {"pixels": obs["image"][:, None], "goal": GOALS[:, None], "instruction": np.array([["a"], ["b"]])}
        obs, *_ = envs.step(policy.get_action(info))
    return [place(image).tolist() for image in obs["image"]]


def main() -> None:
    scaler = ActionScaler(Bounds(LOW, HIGH))
    scaled = ImaginedCost(DotWorld(noise=False), GoalImageCost(), scaler=scaler)
    raw = ImaginedCost(DotWorld(noise=False), GoalImageCost())
    ours = Solver(CEM(64, 8, 8), raw)
    print(
        json.dumps(
            {
                "wanted": [place(goal).tolist() for goal in GOALS],
                "CEMSolver": final_places(
                    CEMSolver(scaled, num_samples=64, n_steps=8, topk=8, var_scale=0.5), {"action": scaler}
                ),
                "MPPISolver": final_places(
                    MPPISolver(
                        scaled, num_samples=64, n_steps=10, topk=16, var_scale=0.3, temperature=1e-4, batch_size=2
                    ),
                    {"action": scaler},
                ),
                "ours": final_places(ours, {}),
                "is_their_protocol": isinstance(ours, TheirSolver),
            }
        )
    )


if __name__ == "__main__":
    main()
