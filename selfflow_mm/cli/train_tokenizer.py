"""``selfflow-mm train-tokenizer``: train a video or audio tokenizer."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "train a video or audio tokenizer"
EXAMPLES = """examples:
  selfflow-mm make-world --out world --clips 2000 --seed 0
  selfflow-mm train-tokenizer tokenizers/tiny_video.yaml --data world --out runs/video
  selfflow-mm train-tokenizer tokenizers/tiny_audio.yaml --data world --out runs/audio run.steps=1000
  selfflow-mm train-tokenizer tokenizers/tiny_video.yaml --data world --out runs/video --resume
  selfflow-mm train-tokenizer tokenizers/tiny_video.yaml --dry-run video.model.width=192

CONFIG is a file, or the name of one in configs/. Any setting follows as dotted.name=value; --dry-run shows them all.
With --resume and no CONFIG the run goes on with the settings it was started with. The tokenizer is written to
DIR/tokenizer, with a report beside it. Shards of videos, of pictures alone and of sounds alone all do.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings that differ from the file's")
    parser.add_argument("--data", metavar="SHARDS", help="a folder of shards, see `selfflow-mm prepare`")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out from its newest checkpoint")
    parser.add_argument(
        "--dry-run", action="store_true", help="show resolved settings, parameter counts and memory, then stop"
    )


def run(args: argparse.Namespace) -> int:
    from ..config import load_config
    from ..errors import UserError
    from ..training.tokenizer_config import TokenizerTrainConfig

    config_file, overrides = args.config, list(args.overrides)
    if config_file and "=" in config_file and not Path(config_file).exists():
        overrides.insert(0, config_file)
        config_file = None
    if config_file is None and args.resume and args.out:
        config_file = str(args.out / "config.yaml")
    if config_file is None:
        raise UserError("train-tokenizer needs a CONFIG, for example tokenizers/tiny_video.yaml; see --help")
    config = load_config(TokenizerTrainConfig, config_file, overrides)
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
