"""``selfflow-mm finetune-robot``: a joint transformer learns to act and to imagine what actions do."""

from __future__ import annotations

import argparse

HELP = "fine-tune a model on robot episodes: a policy and a world model in one"
EXAMPLES = """examples:
  selfflow-mm robot-data record --out tabletop --episodes 3000 --noise 0.5 --workers 2
  selfflow-mm finetune-robot robot/tabletop_tiny.yaml --data tabletop --out runs/tabletop
  selfflow-mm finetune-robot robot/rt1_675m.yaml --data fractal20220817_data --init runs/joint --out runs/rt1
  torchrun --nproc-per-node 8 --no-python selfflow-mm finetune-robot robot/rt1_675m.yaml --data ... --init ... --out ...
  selfflow-mm finetune-robot robot/bridge_675m.yaml --data bridge --init runs/joint --out runs/bridge lora.rank=32
  selfflow-mm finetune-robot --out runs/rt1 --resume

CONFIG is a file, or the name of one in configs/ (robot/...). Any setting follows as dotted.name=value; --dry-run shows
them all. --init takes a model, run or checkpoint folder, a bundled name (tiny) or a FLUX.2 transformer; the run says,
and keeps in init.json, what was taken from it. The folder holds checkpoints, log, report.html, metrics on held-out
episodes (offline.json) and the model, which rollout, serve-policy, imagine and evaluate-world-model take.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from selfflow_mm.cli.run_options import add_run_options

    add_run_options(parser)
    parser.add_argument("--data", metavar="PATH", help="folder of robot episodes, RLDS or LeRobot (data.path)")
    parser.add_argument("--init", metavar="CKPT", help="what to start from (init)")


def run(args: argparse.Namespace) -> int:
    from selfflow_mm.cli.run_options import read_run_config
    from selfflow_mm.errors import UserError
    from selfflow_mm.training.ranks import is_first
    from selfflow_mm.training.stopping import Stopped

    from ..finetune.config import FinetuneConfig
    from ..finetune.run import finetune
    from .outputs import refuse_no_folder

    for key, value in (("data.path", args.data), ("init", args.init)):
        if value is not None:
            args.overrides = [*args.overrides, f"{key}={value}"]
    config = read_run_config(FinetuneConfig, args, "robot/tabletop_tiny.yaml")
    if args.dry_run:
        from ..finetune.plan import describe

        print(describe(config))
        return 0
    if args.out is None:
        raise UserError("finetune-robot needs --out DIR, the folder of the run")
    refuse_no_folder(args.out)
    try:
        model = finetune(config, args.out, resume=args.resume)
    except Stopped as stopped:
        if is_first():
            print(f"selfflow-mm finetune-robot: {stopped}")
        return 130
    if not is_first():
        return 0
    print(f"The model is in {model}, the report at {args.out / 'report.html'}.")
    print(f"Try: selfflow-mm serve-policy {args.out} --port 8000")
    return 0
