"""``selfflow-mm export``: the model of a run's checkpoint, as a folder, one file, or on the hub."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a run's checkpoint as a model: a folder, one file, or on the hub"
EXAMPLES = """examples:
  selfflow-mm export runs/first                                        the newest checkpoint's EMA, as a folder
  selfflow-mm export runs/first --step 40000 --half --out models/first
  selfflow-mm export runs/first --out first.safetensors                one file: weights, and the config in its metadata
  selfflow-mm export runs/first --weights model --out raw              the weights themselves, no average
  selfflow-mm export runs/first --out models/first --hub me/first --private

A run need not be at its end, and any number of processes may have written the checkpoint. `generate --model` reads the
folder; `train` starts from the folder or the file with init=.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--step", type=int, metavar="N", help="the checkpoint's step (default: the newest)")
    parser.add_argument("--weights", choices=["ema", "model"], default="ema", help="default: ema")
    parser.add_argument("--half", action="store_true", help="store float16 weights at half the size")
    parser.add_argument(
        "--out", type=Path, metavar="DIR|FILE", help="a folder, or a .safetensors file (default: a folder in RUN)"
    )
    parser.add_argument(
        "--hub", metavar="ORG/NAME", help="upload the folder, with a model card, to the Hugging Face hub"
    )
    parser.add_argument("--private", action="store_true", help="with --hub: for its owners only")


def run(args: argparse.Namespace) -> int:
    from ..errors import UserError
    from ..training.export import export_run, upload

    one_file = args.out is not None and args.out.suffix == ".safetensors"
    if args.hub and one_file:
        raise UserError("--hub uploads a folder; give --out without .safetensors")
    if args.private and not args.hub:
        raise UserError("--private goes with --hub ORG/NAME")
    if args.hub and args.hub.count("/") != 1:
        raise UserError(f"--hub is ORG/NAME, got '{args.hub}'")
    done = export_run(args.run, args.out, step=args.step, weights=args.weights, half=args.half)
    kind = "EMA" if done.weights == "ema" else "unaveraged"
    print(f"{done.path}: {kind} weights of step {done.step:,}, {done.parameters:,} parameters")
    if args.hub:
        print(f"Uploaded to {upload(done, args.hub, private=args.private)}")
    return 0
