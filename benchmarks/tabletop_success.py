"""How often the tabletop's expert, random actions and no action at all succeed, with 95 % Wilson intervals.

    python benchmarks/tabletop_success.py --episodes 200 --out docs/results/tabletop-success.md

Pictures are left out: neither the expert nor the others look at them, and physics is the same whatever the variant.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import torch
from tqdm import tqdm

from selfflow_mm.bench.report import machine
from selfflow_mm.bench.table import write_text
from selfflow_mm.evaluation.intervals import wilson
from selfflow_robotics.tabletop import ID, TASKS, Expert

Act = Callable[[], np.ndarray]


def expert(noise: float) -> Callable[[gymnasium.Env, int], Act]:
    return lambda env, seed: Expert(env, noise=noise, seed=seed).act


def random(scale: float) -> Callable[[gymnasium.Env, int], Act]:
    """Uniform in +-1, or in steps as large as the expert's: 8 cm, 0.25 rad, and the gripper anywhere."""
    bounds = np.ones(7) if scale == 1 else np.array([0.08] * 3 + [0.25] * 3 + [1.0])

    def make(env: gymnasium.Env, seed: int) -> Act:
        rng = np.random.default_rng(seed)
        return lambda: (rng.uniform(-1, 1, 7) * bounds).astype(np.float32)

    return make


def still(env: gymnasium.Env, seed: int) -> Act:
    return lambda: np.zeros(7, np.float32)


POLICIES = {
    "expert": expert(0.0),
    "expert, noise 1": expert(1.0),
    "random in the whole box": random(1.0),
    "random, steps like the expert's": random(0.08),
    "no action": still,
}


def successes(task: str, make: Callable[[gymnasium.Env, int], Act], episodes: int) -> tuple[int, float]:
    """Successes, and mean steps of the episodes."""
    env = gymnasium.make(ID, task=task, pictures=False)
    good = steps = 0
    for seed in range(episodes):
        env.reset(seed=seed)
        act, over = make(env, seed), False
        while not over:
            _, _, ended, truncated, info = env.step(act())
            over = ended or truncated
        good += bool(info["success"])
        steps += info["elapsed_steps"]
    env.close()
    return good, steps / episodes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    about = machine(torch.device("cpu"))
    lines = [
        f"    python {about['command']}",
        "",
        f"Seeds 0 to {args.episodes - 1} of each task; {about['date']}.",
        "",
        "| task | policy | successes | share, 95 % interval | mean steps |",
        "|---|---|---:|---:|---:|",
    ]
    for task, name in tqdm([(task, name) for task in TASKS for name in POLICIES], unit="row"):
        good, steps = successes(task, POLICIES[name], args.episodes)
        low, high = wilson(good, args.episodes)
        share = f"{good / args.episodes:.0%} ({low:.1%} to {high:.1%})"
        lines.append(f"| {task} | {name} | {good} of {args.episodes} | {share} | {steps:.1f} |")
    print("\n".join(lines))
    if args.out:
        write_text(args.out, "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
