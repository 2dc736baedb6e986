"""``selfflow-mm train``: train a transformer on prepared data."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .plan_options import add_plan_options, read_cluster
from .run_options import add_run_options, read_run_config

if TYPE_CHECKING:
    from ..training.config import TrainConfig

HELP = "train a transformer on prepared data"
EXAMPLES = """examples:
  selfflow-mm make-world --out world --clips 2000 --seed 0
  selfflow-mm train tiny.yaml --out runs/first data.sources.world.path=world run.steps=2000
  selfflow-mm train tiny.yaml --out runs/first --resume data.sources.world.path=world run.steps=2000
  selfflow-mm train tiny.yaml --out runs/more init=runs/first data.sources.world.path=world run.posthoc_ema.every=100
  selfflow-mm train tiny.yaml --dry-run model.width=256 model.rope_axes=[32,16,16,0]
  selfflow-mm train paper/mixed_4b.yaml --dry-run --gpu h200 --gpus 128 --price 3.5
  torchrun --nproc-per-node 8 -m selfflow_mm.cli.main train paper/t2v_625m.yaml --out runs/t2v parallel.shard=0

CONFIG is a file, or the name of one in configs/. Any setting follows as dotted.name=value; --dry-run shows them all.
With --resume and no CONFIG the run goes on with the settings it was started with.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser)
    add_plan_options(parser)


def run(args: argparse.Namespace) -> int:
    from ..errors import UserError
    from ..training.config import TrainConfig

    cluster = read_cluster(args)
    config = read_run_config(TrainConfig, args, "tiny.yaml")
    if args.dry_run:
        from ..training.cluster import shared_by_all
        from ..training.plan import describe_config

        print(describe_config(shared_by_all(config) if args.shard else config, cluster))
        return 0
    if args.out is None:
        raise UserError("train needs --out DIR, the folder of the run")
    from ..training.loop import train
    from ..training.ranks import is_first
    from ..training.stopping import Stopped

    try:
        model = train(config, args.out, resume=args.resume)
    except Stopped as stopped:
        if is_first():
            print(f"selfflow-mm train: {stopped}")
        return 130
    if not is_first():
        return 0
    print(f"The model is in {model}, the report at {args.out / 'report.html'}.")
    prompt, ending = (config.run.prompts or ("a caption",))[0], _ending(config)
    print(f'Try: selfflow-mm generate "{prompt}" --model {args.out} --out sample{ending}')
    return 0


def _ending(config: TrainConfig) -> str:
    """The kind of file that shows the most of what the run learns to make from text."""
    tasks = {task for source in config.data.sources.values() for task, share in source.tasks.items() if share > 0}
    return ".mp4" if tasks & {"t2va", "t2v"} else ".wav" if "t2a" in tasks else ".png"
