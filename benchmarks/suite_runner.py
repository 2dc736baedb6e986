"""What running a suite costs beside a bare loop around the same simulator, and what more workers give.

    python benchmarks/suite_runner.py --out docs/results/suite-runner.md                      # on the tabletop
    python benchmarks/suite_runner.py --simulator-python PATH --shader ibl --out ...          # in SIMPLER

The bare loop is a process of the simulator's Python that begins the same trials and carries out the same commands in
chunks of the same length, with the worker's own code and nothing between: no socket, no policy, no results. The runner
is ``eval-simpler`` as it is: worker, socket, policy (``zero``), rows that reach the disk, first pictures, no films.
Both are run in turns. Starting processes is left out: time counts from the first step of the first episode that is
complete, so the first episode of each process does not count.

The tabletop draws nothing where nothing moves, so with a policy that holds still its steps are far cheaper than usual.

Wall time says what a user waits; processor time of the supervisor per step says what it takes from the simulator on a
machine whose cores are all busy.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from selfflow_mm.bench.report import machine
from selfflow_mm.bench.table import write_text
from selfflow_robotics.policies import ActingOptions, load_policy
from selfflow_robotics.simpler import Trial, trials, worker
from selfflow_robotics.simpler.conventions import PRESETS
from selfflow_robotics.simpler.crew import ProcessCrew
from selfflow_robotics.simpler.results import TrialResult
from selfflow_robotics.simpler.run import Setup, run_suite
from selfflow_robotics.simpler.runner import RunOptions, start_message

_TABLETOP = "selfflow_robotics.simpler.tabletop_world:TabletopWorld"
_BARE = """
import importlib, importlib.util, json, sys, time
import numpy as np
spec = importlib.util.spec_from_file_location("worker", sys.argv[1])
worker = importlib.util.module_from_spec(spec); sys.modules["worker"] = worker; spec.loader.exec_module(worker)
module, _, name = sys.argv[2].partition(":")
world = worker.SimplerWorld(sys.argv[3]) if module == "simpler" else getattr(importlib.import_module(module), name)()
actions, steps, began = np.array(json.loads(sys.argv[5])), 0, None
for place, trial in enumerate(json.loads(sys.argv[4])):
    if place == 1:
        began = time.perf_counter()
    moment = world.start(trial)
    while not moment["over"]:
        moment = world.carry_out(actions, None)
    steps += moment["steps"] * (place > 0)
print(json.dumps([steps, time.perf_counter() - began]))
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulator-python", metavar="PATH", help="Python that has SIMPLER (default: the tabletop)")
    parser.add_argument("--shader", default="ibl", choices=("rt", "ibl"))
    parser.add_argument("--task", help="(default: pick, or pick_coke_can)")
    parser.add_argument("--episodes", type=int, default=4, help="per process and turn, after one that does not count")
    parser.add_argument("--executed", type=int, default=2, help="actions per question (default: 2)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    simpler = args.simulator_python is not None
    task = args.task or ("pick_coke_can" if simpler else "pick")
    suite = "google-visual-matching" if simpler else "tabletop"
    python = args.simulator_python or sys.executable
    world = "simpler" if simpler else _TABLETOP

    def some(count: int) -> list[Trial]:
        return trials(suite, [task], count)

    def bare() -> float:
        messages = json.dumps([start_message(trial, RunOptions(), False) for trial in some(args.episodes + 1)])
        still = json.dumps([[0.0] * 6 + [-1.0]] * args.executed)
        command = [python, "-c", _BARE, worker.__file__, world, args.shader, messages, still]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment())
        steps, seconds = json.loads(done.stdout.splitlines()[-1])
        return steps / seconds

    def run(workers: int) -> tuple[float, float]:
        """Steps a second of wall time, and the supervisor's processor time in ms per step."""
        chosen = some((args.episodes + 1) * workers)
        command = [python, worker.__file__, *(["--shader", args.shader] if simpler else ["--world", world])]
        setup = Setup(
            load_policy("zero"), suite, chosen, replace(PRESETS["ours"], sticky=1), ActingOptions(args.executed),
            environment="simpler" if simpler else "tabletop",
        )  # fmt: skip
        ends: list[tuple[float, float, int]] = []

        def note(result: TrialResult) -> None:
            ends.append((time.perf_counter(), time.process_time(), result.steps))

        with tempfile.TemporaryDirectory() as folder:
            run_suite(setup, ProcessCrew(command, workers, Path(folder) / "workers"), Path(folder), progress=note)
        # From the end of every worker's first episode on, to the last end before a worker has nothing left to do.
        first, last = ends[workers - 1], ends[-workers]
        steps = sum(steps for _, _, steps in ends[workers : len(ends) - workers + 1])
        return steps / (last[0] - first[0]), 1000 * (last[1] - first[1]) / steps

    load = os.getloadavg()[0]
    alone: list[float] = []
    ran: dict[int, list[tuple[float, float]]] = {workers: [] for workers in args.workers}
    for turn in range(args.turns):
        alone.append(bare())
        for workers in args.workers:
            ran[workers].append(run(workers))
        print(f"turn {turn + 1}: bare {alone[-1]:.2f}, " + str({k: v[-1] for k, v in ran.items()}), file=sys.stderr)
    base = statistics.median(alone)
    about = machine(torch.device("cpu"), [Path(sys.argv[0]).name, *map(_short, sys.argv[1:])])
    lines = [
        f"    python benchmarks/{about['command']}",
        "",
        f"{about['cpu']}, {about['date']}; `{task}`, {args.executed} actions per question, medians of {args.turns} "
        f"turns, {args.episodes} episodes per process and turn. Load of the machine before: {load:.1f}.",
        "",
        f"Bare loop: {base:.2f} steps/s ({1000 / base:.1f} ms a step; turns: {', '.join(f'{r:.2f}' for r in alone)}).",
        "",
        "| workers | steps/s | of the bare loop | times one worker | supervisor: ms of processor a step | of a step |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    single = statistics.median(rate for rate, _ in ran[args.workers[0]])
    for workers, figures in ran.items():
        rate = statistics.median(rate for rate, _ in figures)
        own = statistics.median(own for _, own in figures)
        shares = f"{rate / base:.3f} | {rate / single:.2f} | {own:.2f} | {own * base / 10:.1f} %"
        lines.append(f"| {workers} | {rate:.2f} | {shares} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        write_text(args.out, text)


def _environment() -> dict[str, str]:
    return {**os.environ, "LP_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _short(argument: str) -> str:
    return "PATH" if os.path.isabs(argument) and "python" in os.path.basename(argument) else argument


if __name__ == "__main__":
    main()
