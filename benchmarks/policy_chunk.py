"""What a chunk of actions costs a fine-tuned model: without video, with video kept as noise, with video denoised.

    python benchmarks/policy_chunk.py runs/tabletop --threads 1 --out docs/results/policy-chunk.md

The same weights, pictures and seeds in all rows, which take turns; a chunk goes from a uint8 picture to actions in
metres and radians, tokenizer included. Pictures are noise: speed does not depend on them.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from selfflow_mm.bench.report import machine
from selfflow_mm.bench.table import write_text
from selfflow_mm.bench.timing import in_turns
from selfflow_robotics.adapter import FlowPolicy, RobotModel
from selfflow_robotics.interfaces import Observation, Request

WAYS: dict[str, str | float] = {"absent": "absent", "kept as noise": 1.0, "denoised": "denoised"}


def requests(model: RobotModel, count: int) -> list[Request]:
    spec, rng = model.spec, np.random.default_rng(0)
    state = np.asarray(spec.statistics.states.mean, np.float32) if spec.statistics.states and spec.state_names else None
    return [
        Request(Observation(rng.integers(0, 256, (256, 320, 3), np.uint8), "pick coke can", state), seed=row)
        for row in range(count)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a model fine-tuned for the tasks policy and joint, or tabletop")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of the solver (default: the model's)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="observations in one call")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="also write the table here, as Markdown")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = RobotModel.from_pretrained(args.model, device=args.device)
    policies = {name: FlowPolicy(model, steps=args.steps, video=video) for name, video in WAYS.items()}  # type: ignore[arg-type]
    about = machine(model.device)
    lines = [
        f"    python {about['command']}",
        "",
        f"{about['cpu']}, {about['date']}; {args.threads} threads, {args.steps or model.steps} steps, chunks of "
        f"{model.spec.horizon} actions. Medians of {args.rounds} rounds in which all rows take turns.",
        "",
        "| observations in a call | video | ms a call | ms an observation | times as long as without video |",
        "|---:|---|---:|---:|---:|",
    ]
    for count in args.batch:
        asked = requests(model, count)
        calls = {name: partial(policy.chunks, asked) for name, policy in policies.items()}
        with tqdm(total=args.rounds + 1, desc=f"{count} observations", leave=False) as bar:
            timed = in_turns(calls, model.device, args.rounds, after_round=bar.update)
        for name, timing in timed.items():
            ms, times = 1000 * timing.median, timed["absent"].times_faster_than(timing)
            lines.append(f"| {count} | {name} | {ms:.1f} | {ms / count:.1f} | {times:.1f} |")
    print("\n".join(lines))
    if args.out:
        write_text(args.out, "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
