"""``selfflow-mm simpler compare``: two evaluations, episode by episode."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "compare two evaluations episode by episode"
EXAMPLES = """examples:
  selfflow-mm simpler compare ours theirs
  selfflow-mm simpler compare ours theirs --json > comparison.json

Episodes are paired by what they are (environment, variant, part, start, repeat), not by number. Per task: successes of
both, episodes in which one alone succeeded, the difference with a bootstrap interval, and p of the exact McNemar test;
then every setting, besides the policy, in which the two differ.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("one", type=Path, metavar="A", help="folder that eval-simpler wrote")
    parser.add_argument("other", type=Path, metavar="B", help="another")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from ..simpler.comparing import as_plain, as_text, compare
    from ..simpler.results import SuiteRun

    one, other = SuiteRun.load(args.one), SuiteRun.load(args.other)
    comparison = compare(one, other)
    print(json.dumps(as_plain(comparison), indent=1) if args.json else as_text(comparison, one, other))
    return 0
