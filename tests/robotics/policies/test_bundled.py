"""The bundled robot model, on scenes that no recording has: what its model card says, held to with room for luck."""

from __future__ import annotations

from selfflow_robotics.adapter import FlowPolicy
from selfflow_robotics.policies import ActingOptions
from selfflow_robotics.rollouts import rollout


def test_it_opens_and_closes_drawers():
    policy = FlowPolicy.from_pretrained("tabletop-policy", device="cpu", precision="float32")
    results = rollout(policy, ["open_drawer", "close_drawer"], 8, seed=5, batch=8, acting=ActingOptions(executed=3))
    # Random actions close one drawer in twenty and open none.
    for task in ("open_drawer", "close_drawer"):
        assert sum(r.success for r in results if r.task == task) >= 4
