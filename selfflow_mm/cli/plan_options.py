"""Options of a dry run that ask what the run takes on GPUs that are not here."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..training.cluster import Cluster


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --dry-run, also plan for a GPU that is not here")
    group.add_argument("--gpu", metavar="NAME", help="one of a table: h200, h100, b200, a100, mi300x, l40s, rtx4090")
    group.add_argument("--gpus", type=int, metavar="N", help="so many of them (default 1)")
    group.add_argument("--mfu", type=float, metavar="SHARE", help="assumed share of the peak rate (default 0.35)")
    group.add_argument("--price", type=float, metavar="P", help="of one GPU for one hour; without it nothing is priced")
    group.add_argument("--shard", action="store_true", help="parallel.shard=0: all GPUs share one copy of the state")


def read_cluster(args: argparse.Namespace) -> Cluster | None:
    """What the options ask for, or None.

    Raises:
        UserError: an option without the one it needs, an unknown GPU, an impossible number.
    """
    from ..errors import UserError
    from ..training.cluster import MFU, Cluster
    from ..training.gpus import gpu

    told = [n for n in ("gpu", "gpus", "mfu", "price", "shard") if getattr(args, n) not in (None, False)]
    if not told:
        return None
    if not args.dry_run:
        raise UserError(f"--{told[0]} is for a plan; add --dry-run")
    if args.gpu is None:
        raise UserError(f"--{told[0]} needs --gpu, the kind of GPU to plan for")
    count = 1 if args.gpus is None else args.gpus
    return Cluster(gpu(args.gpu), count, MFU if args.mfu is None else args.mfu, args.price)
