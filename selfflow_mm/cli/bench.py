"""``selfflow-mm bench``: measure the model on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "measure the model on this machine: speed, MFU and memory, beside a modulation per token"
EXAMPLES = """\
examples:
  selfflow-mm bench model --preset tiny
  selfflow-mm bench model --preset xl/2 --batch 2 --what forward --rounds 7 --markdown forward.md
  selfflow-mm bench model --preset 675m --device cuda --batch 64 --compile --what train
  selfflow-mm bench model --preset xl/2 --what forward --reference ../Self-Flow

Everything is timed twice in one run, in turns: with a modulation per noise level (ours), and with the same weights and
a modulation per token, as published implementations have it. The outputs are compared, and both are held against the
rate at which the same device multiplies matrices. --reference adds the authors' network out of a checkout of
black-forest-labs/Self-Flow (its import needs timm).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", choices=["model"], help="what is measured")
    parser.add_argument("--preset", default="xl/2", help="xl/2 (ImageNet), tiny, 290m, 420m, 625m, 675m, 1b or 4b")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--tokens", type=int, default=256, metavar="N", help="media tokens per sample")
    parser.add_argument("--text-tokens", type=int, default=64, metavar="M", help="text tokens (not for xl/2)")
    parser.add_argument("--batch", type=int, default=2, metavar="B", help="samples")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true", help="torch.compile both forms")
    parser.add_argument(
        "--recompute", action="store_true", help="training computes activations again instead of keeping"
    )
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="solver steps of a sampling run")
    parser.add_argument("--rounds", type=int, default=5, metavar="R", help="times everything is timed, in turns")
    parser.add_argument("--what", default="forward,train,sample", help="forward, train, sample, separated by commas")
    parser.add_argument("--reference", default="", metavar="PATH", help="a checkout of black-forest-labs/Self-Flow")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")


def run(args: argparse.Namespace) -> int:
    from ..bench.plan import Plan

    plan = Plan(
        preset=args.preset,
        device=args.device,
        tokens=args.tokens,
        text_tokens=args.text_tokens,
        batch=args.batch,
        precision=args.precision,
        compile=args.compile,
        recompute=args.recompute,
        steps=args.steps,
        rounds=args.rounds,
        what=tuple(word.strip() for word in args.what.split(",") if word.strip()),
        reference=args.reference,
    )
    from ..bench.run import run as measure
    from ..bench.table import as_markdown, as_text, write_json, write_text

    report = measure(plan)
    print(as_text(report))
    if args.json:
        write_json(args.json, report)
    if args.markdown:
        write_text(args.markdown, as_markdown(report))
    return 0
