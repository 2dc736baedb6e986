"""``selfflow-mm robot-data inspect``: what a data set of robot episodes holds, in tables and pictures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "say what a data set of robot episodes holds"
EXAMPLES = """examples:
  selfflow-mm robot-data inspect ~/data/bridge_dataset
  selfflow-mm robot-data inspect ~/data/fractal20220817_data --out report      a page with contact sheets
  selfflow-mm robot-data inspect ~/data/my_robot --layout my_robot.yaml --all
  selfflow-mm robot-data inspect ~/data/bridge_dataset --verify                is every record whole?
  selfflow-mm robot-data inspect ~/data/bridge_dataset --json | jq .lengths

The exit code is 1 if --verify finds anything damaged, so that scripts notice.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="folder of an RLDS or LeRobot data set")
    parser.add_argument("--layout", metavar="FILE|NAME", help="what the columns mean (default: found by the data)")
    parser.add_argument("--split", metavar="NAME", help="such as train or val (default: train, or the only one)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write a page with contact sheets and curves there")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--episodes", type=int, default=200, metavar="N", help="read the first N episodes (default: 200)"
    )
    amount.add_argument("--all", action="store_true", help="read all episodes")
    parser.add_argument(
        "--verify", action="store_true", help="read every record and decode every picture; exit code 1 if any is bad"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--seed", type=int, default=0, help="of the episodes that --out shows (default: 0)")


def run(args: argparse.Namespace) -> int:
    from selfflow_mm.errors import UserError

    from ..look.facts import as_data
    from ..look.progress import Bar
    from ..look.report import write_report
    from ..look.survey import survey
    from ..look.tables import as_text
    from ..sources import open_episodes, open_files

    if args.episodes < 1:
        raise UserError(f"--episodes is a number of episodes, at least 1, got {args.episodes}")
    if args.seed < 0:
        raise UserError(f"--seed is 0 or more, got {args.seed}")
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out is the file '{args.out}'; a report needs a folder")
    robot = open_episodes(args.path, args.layout, args.split)
    with Bar("verifying" if args.verify else "reading", "episodes") as bar:
        found = survey(
            robot,
            limit=None if args.all else args.episodes,
            verify=args.verify,
            seed=args.seed,
            open_split=lambda split: open_files(args.path, split),
            progress=bar,
        )
    page = None
    if args.out is not None:
        with Bar("drawing", "sheets") as bar:
            page = write_report(args.out, robot, found, seed=args.seed, progress=bar)
    print(json.dumps(as_data(robot, found), ensure_ascii=False, indent=1) if args.json else as_text(robot, found))
    if page is not None and not args.json:
        print(f"\nthe report is {page}")
    return 1 if args.verify and found.damaged else 0
