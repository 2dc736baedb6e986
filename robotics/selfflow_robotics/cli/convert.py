"""``selfflow-mm robot-data convert``: a data set in another format."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a data set of robot episodes in another format"
EXAMPLES = """examples:
  selfflow-mm robot-data convert fractal20220817_data fractal --to lerobot --workers 8
  selfflow-mm robot-data convert bridge_dataset bridge --to lerobot --pictures image     JPEG files bit for bit
  selfflow-mm robot-data convert my_lerobot_set out --to rlds --name my_set --verify
  selfflow-mm robot-data convert fractal20220817_data some --to rlds --episodes 0:100    a subset

Every column of numbers keeps its bits in both directions; --verify reads everything back and says so. Damaged episodes
are left out and listed in quarantine.jsonl. A conversion that was stopped, in whatever way, goes on when the same
command is run again; another --workers changes neither that nor the result. docs/robot-data.md has more.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="a folder of RLDS records or a LeRobot data set")
    parser.add_argument("target", type=Path, metavar="DST", help="new folder")
    parser.add_argument("--to", required=True, choices=("lerobot", "rlds"), help="LeRobot v3.0, or RLDS")
    parser.add_argument("--layout", metavar="NAME|FILE", help="what the columns mean (default: found out)")
    parser.add_argument("--split", metavar="S", help="such as train or val (default: train)")
    parser.add_argument("--episodes", metavar="A:B", help="only these, counted from 0 (default: all)")
    parser.add_argument("--name", help="name of an RLDS data set (default: the source's)")
    parser.add_argument(
        "--pictures", choices=("video", "image"), default="video",
        help="of a LeRobot data set: MP4, or the source's JPEG and PNG files in the tables (default: video)",
    )  # fmt: skip
    parser.add_argument("--codec", default="h264", help="of the videos: h264 (default) or av1")
    parser.add_argument(
        "--crf", type=int, metavar="Q", help="quality of the videos, 0 best (default: the codec's usual)"
    )
    parser.add_argument(
        "--episodes-per-shard", type=int, default=100, metavar="N", help="of an RLDS data set (default: 100)"
    )
    parser.add_argument("--workers", type=int, default=0, metavar="W", help="processes (default: 0, this one)")
    parser.add_argument("--verify", action="store_true", help="read everything back and compare")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a data set, or an unfinished one of another command, in DST"
    )


def run(args: argparse.Namespace) -> int:
    import sys

    from selfflow_mm.errors import UserError

    from ..convert import TargetOptions, convert
    from ..parts import PARTS
    from ..sources import open_episodes
    from ..verify import verify

    if args.episodes_per_shard < 1:
        raise UserError(f"--episodes-per-shard is at least 1, got {args.episodes_per_shard}")
    if args.workers < 0:
        raise UserError(f"--workers is at least 0, got {args.workers}")
    source = open_episodes(args.source, args.layout, args.split)
    chosen = parse_range(args.episodes, len(source))
    options = TargetOptions(
        to=args.to,
        name=args.name or "",
        pictures=args.pictures,
        video_codec=args.codec,
        crf=args.crf,
        episodes_per_shard=args.episodes_per_shard,
        overwrite=args.overwrite,
    )
    try:
        done = convert(source, args.target, options, episodes=chosen, workers=args.workers)
    except KeyboardInterrupt:
        if (args.target / PARTS).is_dir():
            print(f"{args.target} is not finished; the same command goes on where this one stopped", file=sys.stderr)
        raise
    print(f"{done.folder}: {done.episodes} episodes, {done.steps} steps")
    if done.quarantine:
        print(f"{len(done.quarantine)} episodes could not be read; they are listed in {done.folder}/quarantine.jsonl:")
        for entry in done.quarantine[:5]:
            print(f"  {entry.shard} {entry.index}: {entry.reason}")
    if args.verify:
        report = verify(source, done, options, episodes=chosen)
        print(report.text())
        return 0 if report.good else 1
    return 0


def parse_range(text: str | None, total: int) -> range:
    """``"3:10"``, ``":10"``, ``"3:"`` or ``"3"`` as episodes of ``total``; None is all of them.

    Raises:
        UserError: not written so, or none of the ``total`` is meant.
    """
    from selfflow_mm.errors import UserError

    if text is None:
        return range(total)
    first, colon, last = text.partition(":")
    try:
        start = int(first) if first else 0
        stop = (int(last) if last else total) if colon else start + 1
    except ValueError:
        raise UserError(f"--episodes is written A:B, such as 0:100, got '{text}'") from None
    if not 0 <= start < stop or start >= total:
        raise UserError(f"--episodes {text} means none of the {total} episodes, which are counted from 0")
    return range(start, min(stop, total))
