"""``selfflow-mm train-tokenizer``: train a video or audio tokenizer."""

from __future__ import annotations

import argparse

from .run_options import add_run_options, read_run_config

HELP = "train a video or audio tokenizer"
EXAMPLES = """examples:
  selfflow-mm make-world --out world --clips 2000 --seed 0
  selfflow-mm train-tokenizer tokenizers/tiny_video.yaml --data world --out runs/video
  selfflow-mm train-tokenizer tokenizers/tiny_audio.yaml --data world --out runs/audio run.steps=1000
  selfflow-mm train-tokenizer tokenizers/tiny_video.yaml --data world --out runs/video --resume
  selfflow-mm train-tokenizer tokenizers/tiny_video.yaml --dry-run video.model.width=192
  selfflow-mm train-tokenizer tokenizers/image_8x.yaml --data photos --out runs/image video.model.preset=image-8x-small

CONFIG is a file, or the name of one in configs/. Any setting follows as dotted.name=value; --dry-run shows them all.
With --resume and no CONFIG the run goes on with the settings it was started with. The tokenizer is written to
DIR/tokenizer, with a report beside it. Shards of videos, of pictures alone and of sounds alone all do.
Presets are (video|image)-(8x|16x)-(small|base|large) and audio-(16k|48k)-(small|base|large). For LPIPS put its two
weight files into $SELFFLOW_WEIGHTS/lpips or ~/.cache/selfflow/lpips; without them video.loss.perceptual=auto takes
differences between neighbouring pixels at several sizes, and says so.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser)
    parser.add_argument("--data", metavar="SHARDS", help="a folder of shards, see `selfflow-mm prepare`")


def run(args: argparse.Namespace) -> int:
    from ..errors import UserError
    from ..training.tokenizer_config import TokenizerTrainConfig

    config = read_run_config(TokenizerTrainConfig, args, "tokenizers/tiny_video.yaml")
    if args.dry_run:
        from ..training.tokenizer_plan import describe_tokenizer

        print(describe_tokenizer(config))
        return 0
    if args.data is None or args.out is None:
        raise UserError("train-tokenizer needs --data SHARDS and --out DIR")
    from ..training.stopping import Stopped
    from ..training.tokenizer_loop import train_tokenizer

    try:
        exported = train_tokenizer(config, args.data, args.out, resume=args.resume)
    except Stopped as stopped:
        print(f"selfflow-mm train-tokenizer: {stopped}")
        return 130
    print(f"The tokenizer is in {exported}, the report at {args.out / 'report.html'}.")
    return 0
