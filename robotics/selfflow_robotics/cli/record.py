"""``selfflow-mm robot-data record``: demonstrations of the tabletop's expert."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "record episodes of the tabletop's expert in RT-1's layout"
EXAMPLES = """examples:
  selfflow-mm robot-data record --out tabletop --episodes 200 --workers 2
  selfflow-mm robot-data record --out tabletop --episodes 40 --split val --seed 1
  selfflow-mm robot-data record --out varied --tasks pick open_drawer --variant all --noise 0.3 --sound
  selfflow-mm robot-data play tabletop --out tabletop.mp4

The tabletop (selfflow/Tabletop-v0) is a test bed: it shows that a pipeline works, not that a policy is good. The folder
reads like RT-1's: with this program, or with anything else that reads RLDS. Only successful demonstrations are kept.
The first picture on a machine takes about half a minute, in which the renderer is compiled.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the data set")
    parser.add_argument("--episodes", type=int, default=100, metavar="N", help="demonstrations (default: 100)")
    parser.add_argument("--tasks", nargs="+", metavar="T", help="in turns (default: all)")
    parser.add_argument(
        "--variant", nargs="+", default=["base"], metavar="V",
        help="how scenes look: base, or some of light, texture, camera, distractors, or all (default: base)",
    )  # fmt: skip
    parser.add_argument("--noise", type=float, default=0.0, metavar="X", help="of the expert's motion (default: 0)")
    parser.add_argument(
        "--wander", type=float, default=0.0, metavar="P",
        help="share of demonstrations that begin with the hand anywhere above the table (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--every-name", action="store_true",
        help="each scene of several objects once for every instruction that it can have (pick_among 3, move_near 6)",
    )  # fmt: skip
    parser.add_argument("--first", type=int, default=0, metavar="N", help="end after N steps, unfinished (default: no)")
    parser.add_argument("--sound", action="store_true", help="record contact sounds too")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--split", default="train", help="(default: train)")
    parser.add_argument("--quality", type=int, default=95, metavar="Q", help="of the JPEG pictures (default: 95)")
    parser.add_argument("--keep-failures", action="store_true", help="keep what failed too; aspects/success tells")
    parser.add_argument("--episodes-per-shard", type=int, default=100, metavar="N", help="(default: 100)")
    parser.add_argument("--workers", type=int, default=0, metavar="W", help="processes (default: 0, this one)")
    parser.add_argument("--overwrite", action="store_true", help="replace the split if DIR has it")


def run(args: argparse.Namespace) -> int:
    from selfflow_mm.errors import UserError

    from ..record import RecordOptions, record
    from ..tabletop.tasks import TASKS

    for name, value, least in (("--workers", args.workers, 0), ("--seed", args.seed, 0), ("--noise", args.noise, 0)):
        if not value >= least:
            raise UserError(f"{name} is at least {least}, got {value}")
    options = RecordOptions(
        tasks=tuple(args.tasks or TASKS),
        episodes=args.episodes,
        seed=args.seed,
        variant=tuple(args.variant),
        noise=args.noise,
        wander=args.wander,
        sound=args.sound,
        quality=args.quality,
        failures=args.keep_failures,
        every_name=args.every_name,
        first=args.first,
    )
    done = record(
        args.out,
        options,
        split=args.split,
        episodes_per_shard=args.episodes_per_shard,
        workers=args.workers,
        overwrite=args.overwrite,
    )
    print(f"{'task':<16} {'episodes':>8} {'steps':>8} {'failed attempts':>16}")
    for task, count in done.episodes.items():
        print(f"{task:<16} {count:>8} {done.steps[task]:>8} {done.failed[task]:>16}")
    print(f"{done.folder}: {sum(done.episodes.values())} episodes, {sum(done.steps.values())} steps")
    return 0
