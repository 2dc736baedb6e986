"""``selfflow-mm simpler merge``: shards of one evaluation."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "put the shards of one evaluation into one folder"
EXAMPLES = """examples:
  selfflow-mm simpler merge shard-1 shard-2 shard-3 --out whole

The shards must have the same settings. A trial that several of them have counts once, and must have come to the same in
all. Results, films, first pictures and provenance go into the new folder DIR, with summary.json and report.html.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="that eval-simpler wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")


def run(args: argparse.Namespace) -> int:
    from ..simpler.deviations import deviations
    from ..simpler.merging import merge
    from ..simpler.report import PAGE, as_text, read_lost, write_report

    lost = {trial.number: trial for folder in args.folders for trial in read_lost(folder)}
    merged = merge(args.folders, args.out)
    rows = {row.number for row in merged.rows}
    missing = [lost[number] for number in sorted(lost) if number not in rows]
    summary = write_report(merged, deviations(merged), missing)
    print(f"{len(merged.rows):,} episodes of {len(args.folders)} folders\n\n{as_text(summary, missing)}")
    print(args.out / PAGE)
    return 0
