"""The bundled robot models, on scenes that no recording has: what their model card says, held to with room for luck."""

from __future__ import annotations

import itertools
from pathlib import Path

import gymnasium
import numpy as np

from selfflow_robotics.adapter import FlowPolicy, FlowWorldModel
from selfflow_robotics.interfaces import Request
from selfflow_robotics.policies import ActingOptions
from selfflow_robotics.policies.seeds import derived_seed
from selfflow_robotics.record import RecordOptions, record
from selfflow_robotics.resizing import resize
from selfflow_robotics.rollouts import rollout
from selfflow_robotics.rollouts.tabletop import tabletop_observation
from selfflow_robotics.sources import open_episodes
from selfflow_robotics.tabletop import ID


def test_it_opens_and_closes_drawers():
    policy = FlowPolicy.from_pretrained("tabletop-policy", device="cpu", precision="float32")
    results = rollout(policy, ["open_drawer", "close_drawer"], 8, seed=5, batch=8, acting=ActingOptions(executed=3))
    # Random actions close one drawer in twenty and open none.
    for task in ("open_drawer", "close_drawer"):
        assert sum(r.success for r in results if r.task == task) >= 4


def test_what_it_imagines_follows_the_actions(tmp_path: Path):
    """Squared errors over six steps: imagined of the true actions, of the opposite ones, and copied."""
    record(tmp_path / "data", RecordOptions(("pick", "open_drawer", "close_drawer"), 12, seed=909, noise=0.5))
    files = open_episodes(tmp_path / "data", None, "train")
    world = FlowWorldModel.from_pretrained("tabletop-world", device="cpu", precision="float32")
    horizon, size = world.about.horizon, (world.about.height, world.about.width)
    episodes = [files.read(*files.locate(n)) for n in range(len(files))]
    shown = [next(iter(e.images.values())).read(range(horizon + 1)) for e in episodes]
    films = np.stack([resize(pictures, size, world.about.fit) for pictures in shown])
    actions = np.stack([e.actions[:horizon] for e in episodes])
    told, seeds = [e.instruction for e in episodes], list(range(len(episodes)))
    mirrored = actions * np.float32([-1, -1, -1, -1, -1, -1, 1])

    def error(pictures: np.ndarray) -> float:
        return float(np.square(pictures.astype(np.float32) - films[:, 1:]).mean())

    true, wrong = (world.imagine(films[:, 0], taken, told, seeds=seeds, steps=2) for taken in (actions, mirrored))
    assert error(true) < 0.8 * error(films[:, :1])
    assert error(true) < 0.95 * error(wrong)


def test_it_goes_to_the_object_that_is_named():
    """At first pictures, where nothing but the name tells which of three objects is meant (a third by chance)."""
    env = gymnasium.make(ID, task="pick_among", pictures=False, render_mode="rgb_array", disable_env_checker=True)
    requests, hands, things = [], [], []
    for scene, naming in itertools.product(range(16), range(3)):
        obs, _ = env.reset(options={"episode": derived_seed("bundled names", scene), "naming": naming})
        requests.append(Request(tabletop_observation(env, obs), seed=scene))
        hands.append(obs["extra"]["tcp_pose"][:2])
        things.append([thing.place[:2] for thing in env.unwrapped.task.things])  # the named one first
    places = np.array(hands) + FlowPolicy.from_pretrained("tabletop-policy", device="cpu").chunks(requests)[
        ..., :2
    ].sum(axis=1)
    nearest = np.linalg.norm(np.array(things) - places[:, None], axis=-1).argmin(axis=1)
    assert np.mean(nearest == 0) > 0.7
