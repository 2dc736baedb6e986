"""``selfflow-mm demo``: clips from the bundled weights, and a page to watch and hear them on."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "make a few clips with the bundled weights and a page to watch them on"
EXAMPLES = """examples:
  selfflow-mm demo --out demo
  selfflow-mm demo --out demo --clips 12 --seed 5
  selfflow-mm demo --out demo --model runs/mine

Open demo/index.html in a browser: films, sounds and images with prompts, spectrograms and the commands that make
them again. The page holds all of them: it can be sent alone, to a phone too. What a model cannot make is left out.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="folder for the clips (default: demo)"
    )
    parser.add_argument("--clips", type=int, default=6, help="videos with sound to make (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="prompts and noise (default: 0)")
    parser.add_argument("--model", default="tiny", help="bundled model, pipeline folder or run folder (default: tiny)")


def run(args: argparse.Namespace) -> int:
    from ..evaluation.demo import make_demo

    page = make_demo(args.out, args.clips, args.seed, args.model)
    print(f"Watch and listen: {page.resolve()}")
    return 0
