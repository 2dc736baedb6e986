"""``selfflow-mm simpler rank``: success rates against the real robot's."""

from __future__ import annotations

import argparse

HELP = "hold the success rates of several policies against the real robot's"
EXAMPLES = """examples:
  selfflow-mm simpler rank rt-1-x=runs/rt1x octo-base=runs/octo rt-1-converged=runs/rt1
  selfflow-mm simpler rank rt-1-x=runs/rt1x octo-base=runs/octo --json > ranking.json

Policies are named as SIMPLER names them, because its real success rates are looked up by these names: rt-2-x,
rt-1-converged, rt-1-15pct, rt-1-x, rt-1-begin, octo-base, and on the WidowX rt-1-x, octo-base, octo-small. Per task and
per mean over tasks: SIMPLER's mean maximum rank violation (MMRV), Pearson's r and Spearman's rho with 95 % intervals.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="POLICY=FOLDER", help="a policy's name and its results")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from selfflow_mm.errors import UserError

    from ..simpler.ranking import as_plain, as_text, rank
    from ..simpler.results import SuiteRun

    runs: dict[str, SuiteRun] = {}
    for said in args.runs:
        policy, _, folder = said.partition("=")
        if not policy or not folder:
            raise UserError(f"a run is said as POLICY=FOLDER, such as rt-1-x=runs/rt1x, not '{said}'")
        if policy in runs:
            raise UserError(f"'{policy}' is named twice; a policy has one folder (merge puts shards into one)")
        runs[policy] = SuiteRun.load(folder)
    lines = rank(runs)
    print(json.dumps(as_plain(lines), indent=1) if args.json else as_text(lines))
    return 0
