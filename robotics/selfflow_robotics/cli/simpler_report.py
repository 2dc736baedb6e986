"""``selfflow-mm simpler report``: summary and page of an evaluation, made again."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "make summary.json and report.html of an evaluation again"
EXAMPLES = """examples:
  selfflow-mm simpler report runs/ours

For a folder that was stopped, or whose films were taken away. Trials that were given up are taken from
the summary.json that is there.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="that eval-simpler wrote")


def run(args: argparse.Namespace) -> int:
    from ..simpler.deviations import deviations
    from ..simpler.report import PAGE, as_text, read_lost, write_report
    from ..simpler.results import SuiteRun

    evaluation = SuiteRun.load(args.folder)
    rows = {row.number for row in evaluation.rows}
    lost = [trial for trial in read_lost(args.folder) if trial.number not in rows]
    summary = write_report(evaluation, deviations(evaluation), lost)
    print(as_text(summary, lost))
    print(args.folder / PAGE)
    return 0
