"""``selfflow-mm posthoc-ema``: after training, a model with another average of its weights."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "make a model with another EMA length, after training"
EXAMPLES = """examples:
  selfflow-mm posthoc-ema runs/first --std 0.10
  selfflow-mm posthoc-ema runs/first --std 0.05,0.075,0.10 --out averages
  selfflow-mm posthoc-ema runs/first --std 0.15 --step 40000 --out early
  selfflow-mm generate "a red ball falls" --model runs/first/model-std-0.100 --out ball.mp4

STD is the width of the average as a share of the training so far, at most 0.288: 0.05 forgets quickly, 0.10 is a
usual best, 0.20 reaches far back. The run must have been trained with run.posthoc_ema.every=N (steps between
snapshots).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--std", required=True, metavar="STD[,STD]", help="relative width of the average, or several")
    parser.add_argument("--step", type=int, default=0, metavar="N", help="average up to this step (the last snapshot)")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where the model goes; with several, a folder of them (RUN)"
    )
    parser.add_argument("--half", action="store_true", help="store float16 weights at half the size")


def run(args: argparse.Namespace) -> int:
    from ..errors import UserError
    from ..training.posthoc_ema import export, recipe, snapshots
    from ..training.run_folder import read_run

    try:
        stds = list(dict.fromkeys(float(text) for text in args.std.split(",")))
    except ValueError:
        raise UserError(f"--std is a number or several with commas, such as 0.05,0.1; got '{args.std}'") from None
    if args.step < 0:
        raise UserError(f"--step is the number of a training step, got {args.step}")
    read_run(args.run)
    have = snapshots(args.run)
    recipes = [recipe(have, std, args.step) for std in stds]  # all of them, before the first is written
    for how in recipes:
        name = how.name if args.step else how.name.partition("-step-")[0]
        folder = args.run / name if args.out is None else args.out / name if len(recipes) > 1 else args.out
        export(args.run, how, folder, half=args.half)
        print(
            f"{folder}: std {how.std:g} at step {how.step:,}, from {len(how.parts)} of {len(have)} snapshots "
            f"(misses {how.missed:.2%} of the average's norm)"
        )
    return 0
