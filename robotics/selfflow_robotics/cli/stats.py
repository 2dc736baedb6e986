"""``selfflow-mm robot-data stats``: what actions and states look like over all frames."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "measure actions and states over all frames, for normalising them"
EXAMPLES = """examples:
  selfflow-mm robot-data stats fractal20220817_data --out rt1.json
  selfflow-mm robot-data stats bridge_dataset --workers 8
  selfflow-mm robot-data stats tabletop --openvla dataset_statistics.json --openpi norm_stats.json

Quantiles (q01 ... q99), mean, deviation and extremes of every number of the action and the state, exact, over every
frame and not averaged over episodes. Training reads the file, and checkpoints embed it. Pictures are not decoded.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="DATA", help="a folder of RLDS records or a LeRobot data set")
    parser.add_argument("--out", type=Path, metavar="FILE", help="(default: statistics.json in the data's folder)")
    parser.add_argument("--layout", metavar="NAME|FILE", help="what the columns mean (default: found out)")
    parser.add_argument("--split", metavar="S", help="such as train or val (default: train)")
    parser.add_argument("--episodes", metavar="A:B", help="only these, counted from 0 (default: all)")
    parser.add_argument("--workers", type=int, default=0, metavar="W", help="processes (default: 0, this one)")
    parser.add_argument("--openpi", type=Path, metavar="FILE", help="write openpi's norm_stats.json too")
    parser.add_argument("--openvla", type=Path, metavar="FILE", help="write OpenVLA's dataset_statistics.json too")


def run(args: argparse.Namespace) -> int:
    import json

    from selfflow_mm.errors import UserError

    from ..measuring import measure
    from ..sources import open_episodes
    from ..statistics import FILE_NAME
    from .convert import parse_range

    source = open_episodes(args.source, args.layout, args.split)
    out: Path = args.out or source.files.folder / FILE_NAME
    if args.workers < 0:
        raise UserError(f"--workers is at least 0, got {args.workers}")
    for path in (out, args.openpi, args.openvla):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"there is no folder '{path.parent}' for {path.name}")
    statistics = measure(source, parse_range(args.episodes, len(source)), workers=args.workers)
    try:
        statistics.save(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); name another place with --out") from error
    for path, data in ((args.openpi, statistics.to_openpi), (args.openvla, statistics.to_openvla)):
        if path is not None:
            beside = path.with_name(f".{path.name}.part")
            beside.write_text(json.dumps(data(), indent=2) + "\n", encoding="utf-8")
            beside.replace(path)
    print(statistics.table())
    print(f"\nwritten to {out}")
    return 0
