"""``selfflow-mm evaluate-world-model``: the report card of a world model, with baselines beside every figure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..interfaces import WorldModel

HELP = "grade a world model: prediction, do actions act, does it rank policies rightly"
EXAMPLES = """examples:
  selfflow-mm evaluate-world-model runs/tabletop --data tabletop --out card
  selfflow-mm evaluate-world-model runs/bridge --data bridge_dataset --split val --out card --clips 128 \\
      --horizons 1 8 16
  selfflow-mm evaluate-world-model runs/rt1 --data fractal20220817_data --split train --first 20 --out card
  selfflow-mm evaluate-world-model runs/tabletop --data tabletop --out card --only open_loop counterfactual
  selfflow-mm evaluate-world-model runs/tabletop --data tabletop --out card --only policies_ranked \\
      --policies runs/tabletop noisy:runs/tabletop:0.5 random zero --real-episodes 20

sections: open_loop (PSNR and SSIM over horizons beside copying, shuffled and zero actions), moving_region (the same
where something moves), counterfactual (do other actions make another film?), actions_recovered (by an inverse model
trained on true frames), policies_ranked (only with --policies: success in imagination against success on the tabletop).

A policy is the folder of one, random, zero, mean, or noisy:POLICY:X. With --real, a results.jsonl of 'selfflow-mm
rollout' for each policy in the same order; without, policies act on the tabletop first. random and mean need
'selfflow-mm robot-data stats' run on the data. The folder gets card.json (every number, setting, clip and seed) and
report.html.
"""

#: report_card.card.HORIZONS and .SECTIONS, written again because help must not import torch; a test compares them.
_HORIZONS = (1, 2, 4, 8, 16, 32, 64)
_SECTIONS = ("open_loop", "moving_region", "counterfactual", "actions_recovered", "policies_ranked")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", help="folder of a fine-tuned robot model")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="robot episodes, RLDS or LeRobot")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for card.json and report.html")
    parser.add_argument("--split", default="val", metavar="S", help="episodes held out of training (default: val)")
    parser.add_argument(
        "--first", type=int, metavar="N",
        help="clips only from the split's first N episodes: those that finetune-robot holds out of its training split "
        "where it has no other (data.held_out_episodes, 20)",
    )  # fmt: skip
    parser.add_argument(
        "--true-split", metavar="S",
        help="episodes that judges (inverse model, success) learn from (default: train if there is one, else --split)",
    )  # fmt: skip
    parser.add_argument("--layout", metavar="NAME|FILE", help="what the columns mean (default: found out)")
    parser.add_argument("--camera", metavar="NAME", help="(default: the model's, or the first)")
    parser.add_argument("--only", nargs="+", choices=_SECTIONS, metavar="SECTION", help="sections (default: all)")
    parser.add_argument("--clips", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument(
        "--horizons", type=int, nargs="+", default=list(_HORIZONS), metavar="H",
        help="frames ahead (default: 1 2 4 8 16 32 64; clips that are too short do not count)",
    )  # fmt: skip
    parser.add_argument("--true-episodes", type=int, default=300, metavar="N", help="to learn from (default: 300)")
    parser.add_argument("--steps", type=int, metavar="N", help="of the solver (default: the model's)")
    parser.add_argument("--context-level", type=float, metavar="X", help="noise on the start (default: the model's)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps (default: auto)")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="clips at a time (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    ranking = parser.add_argument_group("policies_ranked")
    ranking.add_argument("--policies", nargs="+", metavar="P", help="to be ranked")
    ranking.add_argument("--real", nargs="+", type=Path, metavar="FILE", help="results of each policy in truth")
    ranking.add_argument("--real-episodes", type=int, default=20, metavar="N", help="of each task (default: 20)")
    ranking.add_argument("--tasks", nargs="+", metavar="T", help="(default: all of one instruction)")
    ranking.add_argument("--max-actions", type=int, default=40, metavar="N", help="in an episode (default: 40)")
    ranking.add_argument(
        "--executed", type=int, metavar="N", help="actions of each chunk (default: all; not with --real)"
    )


def run(args: argparse.Namespace) -> int:
    import dataclasses

    from selfflow_mm.errors import UserError

    from ..look.progress import bars
    from ..report_card.card import SECTIONS, CardSettings, make_card, save_card, view_of
    from ..report_card.contest import Contest, NothingToJudge, enter, hold_contest
    from ..report_card.films import Imagining
    from ..report_card.page import write_page
    from ..report_card.policies_ranked import RANKED_TASKS
    from ..report_card.table import as_text
    from ..sources import open_episodes
    from .outputs import refuse_no_folder

    wanted = tuple(args.only or _SECTIONS)
    ranked = "policies_ranked" in wanted and args.policies
    if args.only and "policies_ranked" in args.only and not args.policies:
        raise UserError("the section policies_ranked needs policies: name some with --policies")
    if args.policies and not ranked:
        raise UserError("--policies are ranked in the section policies_ranked, and --only leaves it out; add it")
    if args.real and not args.policies:
        raise UserError("--real names results of policies, and none are named; name them with --policies")
    if args.real and args.executed is not None:
        raise UserError("--executed is for policies that act now; results given with --real say it themselves")
    refuse_no_folder(args.out)
    imagining = Imagining(seed=args.seed, batch=args.batch, steps=args.steps, context_level=args.context_level)
    settings = CardSettings(
        clips=args.clips,
        horizons=tuple(args.horizons),
        imagining=imagining,
        sections=tuple(section for section in SECTIONS if section in wanted),
        true_episodes=args.true_episodes,
        camera=args.camera,
        first=args.first,
    )
    contest = None
    if ranked:
        contest = Contest(
            policies=tuple(args.policies),
            real=tuple(args.real or ()),
            real_episodes=args.real_episodes,
            tasks=tuple(args.tasks or RANKED_TASKS),
            limit=args.max_actions,
            executed=args.executed,
            data=args.data,
        )
    held_out = open_episodes(args.data, args.layout, args.split)
    other = args.true_split or ("train" if "train" in held_out.files.splits else args.split)
    true_source = held_out if other == args.split else open_episodes(args.data, args.layout, other)
    model = _open(args.checkpoint, args.device)
    # Before anything takes time: a card of hours is not lost to a misspelt policy.
    entrants = enter(contest, model) if contest is not None else None
    progress = bars()
    card, examples = make_card(model, held_out, true_source, settings, progress)
    if contest is not None:
        view = view_of(model, args.camera)
        try:
            card["policies_ranked"] = hold_contest(
                contest, model, view, true_source, held_out, imagining, progress, entrants
            )
        except NothingToJudge as error:
            if not settings.sections:
                raise
            card["skipped"]["policies_ranked"] = str(error)
        card["settings"]["contest"] = {
            name: [str(path) for path in value] if name == "real" else value
            for name, value in dataclasses.asdict(contest).items()
            if name != "data"
        }
    elif "policies_ranked" in wanted:
        card["skipped"]["policies_ranked"] = "no policies were named (--policies)"
    args.out.mkdir(parents=True, exist_ok=True)
    save_card(card, args.out / "card.json")
    write_page(card, examples, args.out / "report.html")
    print(as_text(card))
    print(f"\nwritten to {args.out / 'card.json'} and {args.out / 'report.html'}")
    return 0


def _open(checkpoint: str, device: str) -> WorldModel:
    from ..adapter import FlowWorldModel

    return FlowWorldModel.from_pretrained(checkpoint, device=device)
