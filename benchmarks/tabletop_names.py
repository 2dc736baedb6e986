"""Does a policy know what objects are called? Asked at first pictures, where nothing but the name tells what is meant.

    python benchmarks/tabletop_names.py tabletop-policy --steps 1

Scenes of ``pick_among`` that no recording has, each with its three instructions. Where the hand would be after the
chunk is compared with where the named object lies: the correlation over x and over y, and the share of questions in
which that object is the nearest of the three (a third by chance). Beside it stands what the middle of the three
reaches, known exactly: a policy that does not beat it knows where things lie, and no names. Later pictures would
flatter it, because the hand is under way there and shows where it goes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import gymnasium
import numpy as np

from selfflow_mm.evaluation.intervals import wilson
from selfflow_robotics.interfaces import Request
from selfflow_robotics.policies import load_policy
from selfflow_robotics.policies.seeds import derived_seed
from selfflow_robotics.rollouts.tabletop import tabletop_observation
from selfflow_robotics.tabletop import ID, TabletopEnv


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", help="folder or name of a trained policy")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 10], help="of the solver (default: 1 2 10)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    requests, hands, things = _questions(args.scenes, args.seed)
    aims = things[:, 0]  # the named object comes first
    print(f"{len(requests)} questions; r of x and y, share of questions with the named object nearest (95 %)")
    _tell("the middle of the three", things.mean(axis=1), aims, things)
    for steps in args.steps:
        policy = load_policy(args.policy, steps=steps)
        chunks = np.concatenate([policy.chunks(requests[i : i + 50]) for i in range(0, len(requests), 50)])
        _tell(f"{args.policy}, {steps} steps", hands + chunks[..., :2].sum(axis=1), aims, things)


def _questions(scenes: int, seed: int) -> tuple[list[Request], np.ndarray, np.ndarray]:
    """Requests, the hand's place ``(N, 2)``, and the objects' ``(N, 3, 2)``, the named one first."""
    env = gymnasium.make(ID, task="pick_among", pictures=False, render_mode="rgb_array", disable_env_checker=True)
    base = env.unwrapped
    assert isinstance(base, TabletopEnv)
    requests, hands, things = [], [], []
    for scene in range(scenes):
        layout = derived_seed("scene for names", seed, scene)
        for naming in range(3):
            obs, _ = env.reset(options={"episode": layout, "naming": naming})
            seen = tabletop_observation(env, obs)
            requests.append(Request(seen, derived_seed("question about names", seed, scene, naming)))
            hands.append(obs["extra"]["tcp_pose"][:2])
            things.append([thing.place[:2] for thing in base.task.things])  # type: ignore[attr-defined]
    return requests, np.array(hands), np.array(things)


def _tell(who: str, places: np.ndarray, aims: np.ndarray, things: np.ndarray) -> None:
    r = [np.corrcoef(places[:, axis], aims[:, axis])[0, 1] for axis in (0, 1)]
    nearest = np.linalg.norm(things - places[:, None], axis=-1).argmin(axis=1) == 0
    low, high = wilson(int(nearest.sum()), len(nearest))
    print(f"{who:<40} {r[0]:5.2f} {r[1]:5.2f}   {nearest.mean():.1%} ({low:.1%} to {high:.1%})")


if __name__ == "__main__":
    main()
