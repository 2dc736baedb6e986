"""``selfflow-mm make-world``: write clips of the bundled world as a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "make a data set of the bundled world: things that move and sound, with captions and exact events"
EXAMPLES = """examples:
  selfflow-mm make-world --out world --clips 1000 --seed 0
  selfflow-mm make-world --out world-test --clips 200 --seed 1 --workers 2   clips for testing: another seed
  selfflow-mm make-world --out more --clips 500 --seed 0 --start 1000        the clips after the first 1000
  selfflow-mm make-world --out new --clips 200 --split test                  with what training never shows

The same seed gives the same clips, whatever the number of workers. docs/world.md says what is in them.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the data set")
    parser.add_argument("--clips", type=int, required=True, metavar="N", help="how many clips to make")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which world (default: 0)")
    parser.add_argument("--start", type=int, default=0, metavar="I", help="index of the first clip (default: 0)")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="processes (default: 1)")
    parser.add_argument(
        "--split",
        choices=("train", "test"),
        default="train",
        help="'test' clips show pairs, words or caption forms that 'train' never does (default: train)",
    )


def run(args: argparse.Namespace) -> int:
    from selfflow_mm.data.world.dataset import write_world

    write_world(args.out, args.clips, args.seed, split=args.split, workers=args.workers, start=args.start)
    print(f"{args.clips} clips of world {args.seed} are in {args.out}")
    return 0
