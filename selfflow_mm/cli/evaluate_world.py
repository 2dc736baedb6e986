"""``selfflow-mm evaluate-world``: clips of the bundled world against their captions, by the media alone."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "measure a model on the bundled world: faithfulness, sync, consistency and plausibility"
EXAMPLES = """examples:
  selfflow-mm evaluate-world --model runs/mine --out measured
  selfflow-mm evaluate-world --model tiny --n 100 --untrained 10 --out measured
  selfflow-mm evaluate-world --media clips --out measured             anybody's clips, named in clips/captions.json
  selfflow-mm evaluate-world --n 200 --tokenizers tiny --out ceiling  real clips only, also through tokenizers

Captions and real clips are of the world's test split. DIR gets results.jsonl (a row per clip), summary.json,
report.html and the generated clips; the same command again goes on where it was stopped. docs/world.md says what each
number means.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="NAME", help="bundled model, pipeline folder or run folder that makes the clips"
    )
    parser.add_argument("--media", type=Path, metavar="FOLDER", help="MP4s with captions.json, in place of a model")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--n", type=int, default=500, help="clips of each set (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument("--device", default="auto", help="of the model: auto (default), cpu, cuda")
    parser.add_argument(
        "--untrained", type=int, default=50, metavar="N", help="clips of an untrained model (default: 50)"
    )
    parser.add_argument(
        "--sounded", type=int, default=100, metavar="N", help="real clips whose sound the model makes (default: 100)"
    )
    parser.add_argument(
        "--tokenizers", metavar="NAME", help="model whose tokenizers real clips go through (default: --model)"
    )
    parser.add_argument("--train", metavar="SRC", help="shards the model learned from (default: world 0's train split)")
    parser.add_argument(
        "--train-clips",
        type=int,
        default=1000,
        metavar="N",
        help="how many of them are compared with (default: 1000; 0: none)",
    )


def run(args: argparse.Namespace) -> int:
    from ..evaluation.world.run import WorldPlan, evaluate
    from ..evaluation.world.summary import as_text
    from ..training.parts import pick_device

    plan = WorldPlan(
        out=args.out,
        model=args.model,
        media=args.media,
        tokenizers=args.tokenizers,
        n=args.n,
        untrained=args.untrained,
        sounded=args.sounded,
        seed=args.seed,
        device=str(pick_device(args.device)),
        train=args.train,
        train_clips=args.train_clips,
    )
    print(as_text(evaluate(plan)))
    print(f"\nThe page is {args.out / 'report.html'}.")
    return 0
