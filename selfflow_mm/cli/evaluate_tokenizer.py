"""``selfflow-mm evaluate-tokenizer``: tokenizers side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "compare tokenizers: reconstruction, latents, speed and memory, side by side"
EXAMPLES = """examples:
  selfflow-mm evaluate-tokenizer tiny/video jpeg:50 --data world --out compare
  selfflow-mm evaluate-tokenizer runs/audio/tokenizer griffin-lim --data digits --split run:runs/audio --out compare
  selfflow-mm evaluate-tokenizer runs/video/tokenizer sd-vae:weights/sd-vae flux2 --data clip.mp4 photos --out compare

A tokenizer is a folder, a bundled one (such as tiny/video), a pretrained one (NAME or NAME:FOLDER) or a hub id.
Two yardsticks can stand among them: griffin-lim (80 mel bands; griffin-lim:ITERATIONS) for sound and jpeg:QUALITY for
pictures. All that are compared are for pictures, or all for sound. --data takes shards, media files and folders.
DIR gets report.html with every original beside its reconstructions, results.json, and results.jsonl by sample.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tokenizers", nargs="+", metavar="TOKENIZER", help="what to compare, see below")
    parser.add_argument("--data", nargs="+", required=True, metavar="SRC", help="shards, media files, folders of media")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--split",
        default="all",
        metavar="WHICH",
        help="all (default), or run:FOLDER for the samples that the training run in FOLDER held out",
    )
    parser.add_argument(
        "--max-samples", type=int, default=0, metavar="N", help="at most N, evenly spread (default: all)"
    )
    parser.add_argument("--batch", type=int, default=8, help="samples encoded, and timed, at once (default: 8)")
    parser.add_argument("--rounds", type=int, default=5, metavar="R", help="timed calls (default: 5)")
    parser.add_argument("--shown", type=int, default=8, metavar="N", help="samples on the page (default: 8)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    parser.add_argument("--seed", type=int, default=0, help="of intervals and Griffin-Lim's phases (default: 0)")
    parser.add_argument("--download", action="store_true", help="fetch tokenizers from the hub where they are not here")


def run(args: argparse.Namespace) -> int:
    from ..bench.tokenizers import TokenizerPlan, compare, write_json
    from ..errors import UserError

    if (args.out / "results.json").exists() or args.out.is_file():
        raise UserError(f"{args.out} is taken; give a new folder with --out")
    plan = TokenizerPlan(
        tokenizers=tuple(args.tokenizers),
        data=tuple(args.data),
        split=args.split,
        max_samples=args.max_samples,
        batch=args.batch,
        device=args.device,
        threads=args.threads,
        rounds=args.rounds,
        seed=args.seed,
        shown=args.shown,
        download=args.download,
    )
    from ..bench.tokenizer_page import write_page
    from ..bench.tokenizer_table import as_text

    comparison = compare(plan)
    args.out.mkdir(parents=True, exist_ok=True)
    page = write_page(args.out, comparison)
    write_json(args.out, comparison)
    print(as_text(comparison))
    print(f"\nThe page is {page}.")
    return 0
