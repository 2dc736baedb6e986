"""The sums of docs/scale.md, made from a config.

    python benchmarks/scale.py                                      # what the page shows
    python benchmarks/scale.py paper/mixed_4b.yaml --gpu h100 --gpus 256 --mfu 0.4 --price 2.5 --assume store=10e9

It prints Markdown. ``--assume NAME=VALUE`` changes an assumption of the first table; settings follow as
dotted.name=value.
"""

from __future__ import annotations

import argparse
import sys

from selfflow_mm.config import load_config
from selfflow_mm.errors import UserError
from selfflow_mm.training.cluster import MFU, Cluster, shared_by_all
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.gpus import gpu
from selfflow_mm.training.scale import scale
from selfflow_mm.training.scale_page import markdown


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="paper/mixed_4b.yaml")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--gpu", default="h200")
    parser.add_argument("--gpus", type=int, default=128)
    parser.add_argument("--mfu", type=float, default=MFU)
    parser.add_argument("--price", type=float)
    parser.add_argument(
        "--copies", action="store_true", help="as parallel.shard says (1: a copy each), instead of one copy among all"
    )
    parser.add_argument("--assume", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args(arguments)
    try:
        changes = {name: _number(name, text) for name, _, text in (a.partition("=") for a in args.assume)}
        cluster = Cluster(gpu(args.gpu), args.gpus, args.mfu, args.price)
        config = load_config(TrainConfig, args.config, args.overrides)
        sums = scale(config if args.copies else shared_by_all(config), cluster, changes)
        print("\n".join(markdown(sums)))
    except UserError as error:
        print(f"scale: {error}", file=sys.stderr)
        return 2
    return 0


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--assume {name} needs a number, got '{text}'") from None


if __name__ == "__main__":
    sys.exit(main())
