"""``selfflow-mm train``: train a transformer on prepared data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..training.config import TrainConfig

HELP = "train a transformer on prepared data"
EXAMPLES = """examples:
  selfflow-mm make-world --out world --clips 2000 --seed 0
  selfflow-mm train tiny.yaml --out runs/first data.sources.world.path=world run.steps=2000
  selfflow-mm train tiny.yaml --out runs/first --resume data.sources.world.path=world run.steps=2000
  selfflow-mm train tiny.yaml --dry-run model.width=256 model.rope_axes=[32,16,16,0]

CONFIG is a file, or the name of one in configs/. Any setting follows as dotted.name=value; --dry-run shows them all.
With --resume and no CONFIG the run goes on with the settings it was started with.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings that differ from the file's")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out from its newest checkpoint")
    parser.add_argument(
        "--dry-run", action="store_true", help="show resolved settings, parameter counts and memory, then stop"
    )


def run(args: argparse.Namespace) -> int:
    from ..config import load_config
    from ..errors import UserError
    from ..training.config import TrainConfig

    config_file, overrides = args.config, list(args.overrides)
    if config_file and "=" in config_file and not Path(config_file).exists():
        overrides.insert(0, config_file)
        config_file = None
    if config_file is None and args.resume and args.out:
        config_file = str(args.out / "config.yaml")
    if config_file is None:
        raise UserError("train needs a CONFIG, for example tiny.yaml; `selfflow-mm train --help` shows examples")
    config = load_config(TrainConfig, config_file, overrides)
    if args.dry_run:
        from ..training.plan import describe_config

        print(describe_config(config))
        return 0
    if args.out is None:
        raise UserError("train needs --out DIR, the folder of the run")
    from ..training.loop import train
    from ..training.stopping import Stopped

    try:
        model = train(config, args.out, resume=args.resume)
    except Stopped as stopped:
        print(f"selfflow-mm train: {stopped}")
        return 130
    print(f"The model is in {model}, the report at {args.out / 'report.html'}.")
    prompt, ending = (config.run.prompts or ("a caption",))[0], _ending(config)
    print(f'Try: selfflow-mm generate "{prompt}" --model {args.out} --out sample{ending}')
    return 0


def _ending(config: TrainConfig) -> str:
    """The kind of file that shows the most of what the run learns to make from text."""
    tasks = {task for source in config.data.sources.values() for task, share in source.tasks.items() if share > 0}
    return ".mp4" if tasks & {"t2va", "t2v"} else ".wav" if "t2a" in tasks else ".png"
