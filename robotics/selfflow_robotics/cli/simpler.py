"""``selfflow-mm simpler``: what is done with the results of ``selfflow-mm eval-simpler``."""

from __future__ import annotations

HELP = "merge, compare and rank the results of eval-simpler, or make their report again"
EXAMPLES = """examples:
  selfflow-mm simpler merge shard-1 shard-2 --out whole
  selfflow-mm simpler compare ours theirs
  selfflow-mm simpler rank rt-1-x=runs/rt1x octo-base=runs/octo
  selfflow-mm simpler report whole
"""

_PACKAGE = "selfflow_robotics.cli"
#: Command -> (module, the one line that help shows; equal to the module's HELP).
SUBCOMMANDS = {
    "merge": (f"{_PACKAGE}.simpler_merge", "put the shards of one evaluation into one folder"),
    "compare": (f"{_PACKAGE}.simpler_compare", "compare two evaluations episode by episode"),
    "rank": (f"{_PACKAGE}.simpler_rank", "hold the success rates of several policies against the real robot's"),
    "report": (f"{_PACKAGE}.simpler_report", "make summary.json and report.html of an evaluation again"),
}
