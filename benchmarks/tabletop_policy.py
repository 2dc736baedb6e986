"""What acting on the tabletop through ``rollout`` costs beside a bare loop around the environment.

    python benchmarks/tabletop_policy.py --out docs/results/tabletop-policy.md

Both do the same: the policy ``random`` with the same seeds, so the same actions in the same scenes to the same end
(steps and successes of all episodes are compared). The bare loop has one environment with pictures, in this process,
and asks for one chunk at a time; ``rollout`` batches the questions of many environments. The policy costs nearly
nothing, so what is left is the loop's own cost. Starting processes and the first episodes are left out of the figures.

Processor time per step is what can be compared on a machine that others use too: of the processes with environments,
and of the parent that asks the policy. Wall time is what was left over by others; the bare loop runs before and after.
"""

from __future__ import annotations

import argparse
import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy is imported: one core means one

import time  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from dataclasses import dataclass, replace  # noqa: E402
from pathlib import Path  # noqa: E402

import gymnasium  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from selfflow_mm.bench.report import machine  # noqa: E402
from selfflow_mm.bench.table import write_text  # noqa: E402
from selfflow_robotics.actions.gripper_control import GoogleRobotGripper  # noqa: E402
from selfflow_robotics.actions.simpler import SimplerControl  # noqa: E402
from selfflow_robotics.policies import ActingOptions, Policy, load_policy  # noqa: E402
from selfflow_robotics.rollouts.loop import act_out  # noqa: E402
from selfflow_robotics.rollouts.run import jobs_of  # noqa: E402
from selfflow_robotics.rollouts.simulation import Job, Moment  # noqa: E402
from selfflow_robotics.rollouts.tabletop import TabletopOptions, TabletopSimulation  # noqa: E402
from selfflow_robotics.tabletop import ID, TASKS, get_image  # noqa: E402


@dataclass(frozen=True)
class Figures:
    """Steps a second of wall time, ms of processor time per step, and (steps, success) of each episode."""

    rate: float
    parent: float
    worlds: float
    outcomes: dict[int, tuple[int, bool]]


class Timed(TabletopSimulation):
    """Tells its process's time in place of the instructions."""

    def __init__(self) -> None:
        super().__init__(TabletopOptions())

    def start(self, job: Job) -> Moment:
        return self._timed(super().start(job))

    def carry_out(self, actions: np.ndarray) -> Moment:
        return self._timed(super().carry_out(actions))

    @staticmethod
    def _timed(moment: Moment) -> Moment:
        return replace(moment, instructions=(str(os.getpid()), str(time.process_time())))


def bare(jobs: Sequence[Job], acting: ActingOptions) -> Figures:
    env = gymnasium.make(ID, disable_env_checker=True)
    policy = Policy(load_policy("random"), acting)
    control = SimplerControl("google_robot", GoogleRobotGripper(1, "level"))
    outcomes: dict[int, tuple[int, bool]] = {}
    steps, start, cpu = 0, 0.0, 0.0
    for number, job in enumerate(jobs):
        if number == 1:
            start, cpu = time.perf_counter(), time.process_time()
        obs, info = env.reset(options={"task": job.task, "episode": job.layout})
        policy.reset(job.seed)
        control.reset()
        over = False
        while not over:
            for action in policy.act(get_image(env, obs), info["instruction"])[: policy.executed]:
                obs, _, ended, truncated, info = env.step(control.step(action).astype(np.float32))
                over = ended or truncated
                if over:
                    break
        outcomes[job.episode] = info["elapsed_steps"], info["success"]
        steps += info["elapsed_steps"] if number else 0
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Figures(steps / seconds, 0.0, 1000 * cpu / steps, outcomes)


def batched(jobs: Sequence[Job], acting: ActingOptions, workers: int, batch: int) -> Figures:
    outcomes: dict[int, tuple[int, bool]] = {}
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    steps, start, cpu = 0, 0.0, 0.0
    warm = 2 * batch  # every environment's first episode
    played = act_out(load_policy("random"), jobs, Timed, acting=acting, batch=batch, workers=workers)
    for number, done in enumerate(played):
        outcomes[done.job.episode] = done.moment.steps, done.moment.success
        process, seconds = done.moment.instructions
        if number < warm:
            first[process] = float(seconds)
            start, cpu = time.perf_counter(), time.process_time()
        else:
            last[process] = float(seconds)
            steps += done.moment.steps
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    worlds = sum(last[process] - first[process] for process in last)
    return Figures(steps / wall, 1000 * cpu / steps, 1000 * worlds / steps if workers else 0.0, outcomes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="pick", choices=list(TASKS), help="its episodes are equally long: pick")
    parser.add_argument("--episodes", type=int, default=48)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--executed", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--out", type=Path, help="also write the table here, as Markdown")
    args = parser.parse_args()
    if args.episodes <= 2 * args.batch:
        parser.error("--episodes must be more than the environments, of which there are twice --batch")
    jobs = jobs_of([args.task], range(args.episodes), 0, 0)
    about = machine(torch.device("cpu"))
    lines = [
        f"    python {about['command']}",
        "",
        f"{about['cpu']}, {about['date']}; {args.episodes} episodes of `{args.task}`, {args.workers} processes, "
        f"batches of {args.batch}. Load of the machine before: {os.getloadavg()[0]:.1f}.",
        "",
        "| carried out per chunk | bare: ms a step | rollout: ms of worlds + parent | bare: steps/s (before, after) |"
        " rollout: steps/s | same episodes |",
        "|---:|---:|---:|---:|---:|---|",
    ]
    for executed in tqdm(args.executed):
        acting = ActingOptions(executed)
        before = bare(jobs, acting)
        team = batched(jobs, acting, args.workers, args.batch)
        after = bare(jobs, acting)
        same = "yes" if before.outcomes == team.outcomes else "no"
        lines.append(
            f"| {executed} | {(before.worlds + after.worlds) / 2:.2f} | {team.worlds:.2f} + {team.parent:.2f} | "
            f"{before.rate:.0f}, {after.rate:.0f} | {team.rate:.0f} | {same} |"
        )
    print("\n".join(lines))
    if args.out:
        write_text(args.out, "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
