"""``selfflow-mm eval-simpler``: run a suite of SIMPLER, or of the tabletop, with a policy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .policy_options import acting_options, add_policy_options, policy_settings

if TYPE_CHECKING:
    from ..interfaces import ChunkPolicy, WorldModel
    from ..simpler.arrangements import Trial
    from ..simpler.conventions import PolicyConventions
    from ..simpler.crew import Crew
    from ..simpler.results import TrialResult
    from ..simpler.run import Setup

HELP = "evaluate a policy by SIMPLER's suites: every official trial, resumable, with a report"
EXAMPLES = """examples:
  selfflow-mm eval-simpler --policy runs/rt1 --suite google-visual-matching --dry-run --out eval/rt1
  selfflow-mm eval-simpler --policy runs/rt1 --suite google-visual-matching --out eval/rt1 \\
    --simulator-python simpler/bin/python --workers 8
  selfflow-mm eval-simpler --policy ws://127.0.0.1:8000 --conventions openpi --horizon 4 --control-rate 3 \\
    --suite paper --out eval/served --simulator-python simpler/bin/python
  selfflow-mm eval-simpler --policy random --suite widowx --trials 5 --out eval/random --simulator-python ...
  selfflow-mm eval-simpler --policy tabletop-policy --env tabletop --executed 3 --out eval/tabletop

POLICY is random, zero, mean, replay, the folder of a fine-tuned model, or the address of a policy server (its key in
SELFFLOW_API_KEY). The folder DIR gets results.jsonl (an episode per line, as they end), summary.json, report.html,
films and provenance.json. The same command goes on where it was stopped; --shard i/n acts a part, 'selfflow-mm simpler
merge' puts the parts together, and 'selfflow-mm simpler compare' compares two policies on the same episodes.

SIMPLER lives in a Python of its own (docs/simpler.md); 'selfflow-mm doctor simpler' says what that one lacks.
"""
_ENVIRONMENTS = ("simpler", "tabletop", "dream")
_DEFAULT_SUITE = {"simpler": "google-visual-matching", "tabletop": "tabletop", "dream": "tabletop"}
_PYTHON = "SELFFLOW_SIMULATOR_PYTHON"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy", required=True, metavar="POLICY", help="random, zero, mean, replay, a model, ws://..."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--env", choices=_ENVIRONMENTS, default="simpler", help="(default: simpler)")
    parser.add_argument(
        "--suite", metavar="S",
        help="google-visual-matching, google-variant-aggregation, google-cameras, widowx, paper, all; tabletop, "
        "tabletop-variants (default: the environment's first)",
    )  # fmt: skip
    which = parser.add_argument_group("which trials")
    which.add_argument("--tasks", nargs="+", default=[], metavar="T", help="of the suite (default: all)")
    which.add_argument("--trials", type=int, default=0, metavar="N", help="of each task, evenly spread (default: all)")
    which.add_argument("--shard", metavar="I/N", help="every N-th trial from the I-th on")
    which.add_argument("--seed", type=int, default=0, help="of environments and the policy's noise (default: 0)")
    which.add_argument("--dry-run", action="store_true", help="say what would be acted and how long it may take")
    which.add_argument("--overwrite", action="store_true", help="forget the results that DIR has")
    how = parser.add_argument_group("how they are acted")
    how.add_argument("--until", default="limit", help="limit (official: the last step counts), or success")
    how.add_argument("--film", type=int, default=2, metavar="N", help="film N episodes of each task (default: 2)")
    how.add_argument("--batch", type=int, default=16, metavar="B", help="most observations in a call of the policy")
    how.add_argument("--any-rate", action="store_true", help="let a policy act at another rate than its own")
    numbers = parser.add_argument_group("what the policy's pictures and numbers mean")
    numbers.add_argument(
        "--conventions", metavar="C", help="ours, openpi, octo, rt-1, rt-1-widowx, tabletop (default: by the policy)"
    )
    numbers.add_argument("--rotation", metavar="R", help="rpy or axis_angle")
    numbers.add_argument("--gripper", metavar="G", help="absolute_opening, signed_closing, command, ...")
    numbers.add_argument(
        "--gripper-by", metavar="B", help="level or change: what the Google robot's commands are made of"
    )
    numbers.add_argument("--sticky", type=int, metavar="N", help="steps a gripper command lasts")
    numbers.add_argument("--scale", type=float, metavar="X", help="of all motions")
    numbers.add_argument("--image-size", metavar="HxW", help="that pictures are brought to before the policy sees them")
    numbers.add_argument("--fit", metavar="F", help="how: pad or stretch")
    served = parser.add_argument_group("a served policy whose server does not say what it is (openpi's own)")
    served.add_argument(
        "--control-rate", type=float, metavar="HZ", help="its actions per second; --horizon goes with it"
    )
    served.add_argument("--keys", nargs="+", default=[], metavar="K=NAME", help="such as image=observation/image")
    side = parser.add_argument_group("the simulator's side")
    side.add_argument("--workers", type=int, default=1, metavar="W", help="processes that act episodes (default: 1)")
    side.add_argument("--simulator-python", metavar="PATH", help=f"Python that has SIMPLER (default: ${_PYTHON})")
    side.add_argument(
        "--shader", choices=("rt", "ibl"), default="rt", help="where ray tracing is official (default: rt)"
    )
    side.add_argument(
        "--overlays", default="", metavar="DIR", help="the real pictures, if not beside ManiSkill2_real2sim"
    )
    side.add_argument("--renew", type=int, default=0, metavar="N", help="new process after N episodes (default: never)")
    side.add_argument(
        "--attempts", type=int, default=3, metavar="N", help="at a trial whose worker is lost (default: 3)"
    )
    side.add_argument("--hang-after", type=float, default=120.0, metavar="S", help="seconds per step (default: 120)")
    dream = parser.add_argument_group("a dream (--env dream)")
    dream.add_argument("--world-model", metavar="MODEL", help="folder or name of the world model")
    dream.add_argument("--judge", type=Path, metavar="DIR", help="recorded episodes that teach what success looks like")
    dream.add_argument("--dream-steps", type=int, metavar="N", help="of the world model's solver (default: its own)")
    dream.add_argument(
        "--starts", type=Path, metavar="DIR", help="results in SIMPLER, whose first pictures begin dreams"
    )
    add_policy_options(parser)


def run(args: argparse.Namespace) -> int:
    import sys

    from selfflow_mm.errors import UserError

    from ..simpler import dry_run
    from ..simpler.deviations import deviations
    from ..simpler.report import PAGE, LostTrial, as_text, write_report
    from ..simpler.run import forget, run_suite
    from ..simpler.suites import SUITES, TABLETOP_SUITES, shard, trials

    suite = args.suite or _DEFAULT_SUITE[args.env]
    if args.env == "simpler" and suite in TABLETOP_SUITES or args.env == "tabletop" and suite in SUITES:
        raise UserError(f"'{suite}' is no suite of --env {args.env}; 'tabletop' has {', '.join(TABLETOP_SUITES)}")
    if args.dream_steps is not None and args.dream_steps < 1:
        raise UserError(f"the solver takes at least 1 step, got --dream-steps {args.dream_steps}")
    if args.film < 0 or args.workers < 1 or not args.hang_after > 0:
        raise UserError("--film is at least 0, --workers at least 1 and --hang-after more than 0")
    chosen = trials(suite, args.tasks, args.trials)
    chosen = shard(chosen, args.shard) if args.shard else chosen
    if args.dry_run:
        print(dry_run.as_text(dry_run.estimate(chosen, args.shader), args.env, args.workers, _measured(args.out)))
        return 0
    model = _world_model(args)
    setup = _setup(args, suite, chosen, model)
    setup.check()
    crew = _crew(args, chosen, model)
    if args.overwrite:
        forget(args.out)
    with _Progress(setup, args.out, args.workers) as bar:
        outcome = run_suite(
            setup, crew, args.out, films=args.film, about_this=_about_this(args), progress=bar, on_loss=bar.say
        )
    lost = [LostTrial.of(one.trial, one.reason) for one in outcome.lost]
    print(as_text(write_report(outcome.run, deviations(outcome.run), lost), lost))
    print(args.out / PAGE)
    if outcome.lost:
        print(
            f"selfflow-mm eval-simpler: {len(outcome.lost)} trials were given up (see {args.out / 'log.txt'}); "
            "the same command tries them again",
            file=sys.stderr,
        )
    return 1 if outcome.lost else 0


def _setup(args: argparse.Namespace, suite: str, chosen: list[Trial], model: WorldModel | None) -> Setup:
    from ..interfaces import refuse_other_actions
    from ..simpler.run import Setup
    from ..simpler.runner import RunOptions

    policy, any_rate = _policy(args, chosen)
    options = RunOptions(
        seed=args.seed, until=args.until, batch=args.batch, attempts=args.attempts, renew=args.renew,
        any_rate=any_rate, house=args.env == "dream",
    )  # fmt: skip
    simulator: dict[str, Any] = {}
    if model is not None:
        refuse_other_actions(policy.about, model.about)
        simulator = {"world_model": model.about.name, **model.about.extra, "judge": str(args.judge)}
        simulator |= {"steps": args.dream_steps} if args.dream_steps else {}
    if args.env == "simpler":
        simulator = {"shader": args.shader}
    return Setup(
        policy, suite, chosen, _conventions(args), acting_options(args), options, args.env, simulator
    )  # fmt: skip


def _world_model(args: argparse.Namespace) -> WorldModel | None:
    from selfflow_mm.errors import UserError

    if args.env != "dream":
        return None
    if args.world_model is None:
        raise UserError("a dream needs --world-model: the folder or name of the model that imagines it")
    from ..dreams.loading import open_world_model

    return open_world_model(args.world_model)


def _policy(args: argparse.Namespace, chosen: list[Trial]) -> tuple[ChunkPolicy, bool]:
    """The policy, and whether its control rate is not to be taken at its word."""
    import os

    from selfflow_mm.errors import UserError

    from ..interfaces import PolicyAbout
    from ..policies import load_policy

    settings = policy_settings(args)
    if "://" not in args.policy:
        if args.control_rate is not None or args.keys:
            raise UserError("--control-rate and --keys are of a served policy (ws://...)")
        # Nobody has trained these two for any rate.
        blind = args.policy in ("random", "zero") and args.statistics is None
        return load_policy(args.policy, **settings), args.any_rate or blind
    from ..serving import ServedPolicy

    horizon = settings.pop("horizon", None)
    if settings:
        raise UserError(f"a served policy is set where it is served: leave out {', '.join(sorted(settings))}")
    if (horizon is None) != (args.control_rate is None):
        raise UserError("--horizon and --control-rate of a served policy are said together, or not at all")
    about = None if horizon is None else PolicyAbout(args.policy, horizon, args.control_rate)
    keys = dict(entry.partition("=")[::2] for entry in args.keys)
    if not set(keys) <= {"image", "prompt", "state"} or not all(keys.values()):
        raise UserError(f"--keys are image=NAME, prompt=NAME and state=NAME, not {' '.join(args.keys)}")
    key = os.environ.get("SELFFLOW_API_KEY")
    return ServedPolicy(args.policy, about=about, api_key=key, keys=keys), args.any_rate


def _conventions(args: argparse.Namespace) -> PolicyConventions:
    from selfflow_mm.errors import UserError

    from ..simpler.conventions import preset

    name = args.conventions or ("tabletop" if args.env == "tabletop" else "ours")
    size = None
    if args.image_size is not None:
        try:
            height, width = map(int, args.image_size.lower().split("x"))
        except ValueError:
            raise UserError(f"--image-size is HxW, such as 256x320, not '{args.image_size}'") from None
        size = (height, width)
    return preset(
        name, rotation=args.rotation, gripper=args.gripper, by=args.gripper_by, sticky=args.sticky, scale=args.scale,
        image_size=size, fit=args.fit,
    )  # fmt: skip


def _crew(args: argparse.Namespace, chosen: list[Trial], model: WorldModel | None) -> Crew:
    import os
    import sys

    from selfflow_mm.errors import UserError

    from ..simpler import worker
    from ..simpler.crew import Patience, ProcessCrew
    from ..simpler.run import WORKERS

    if args.env == "dream":
        assert model is not None
        return _dream(args, chosen, model)
    command = [sys.executable, worker.__file__, "--world", "selfflow_robotics.simpler.tabletop_world:TabletopWorld"]
    if args.env == "simpler":
        python = args.simulator_python or os.environ.get(_PYTHON)
        if not python:
            raise UserError(
                f"SIMPLER lives in a Python of its own: name it by --simulator-python or {_PYTHON}, or try "
                "--env tabletop; docs/simpler.md says how it is made"
            )
        command = [python, worker.__file__, "--shader", args.shader, "--overlays", args.overlays]
    patience = Patience(max(600.0, args.hang_after), args.hang_after)
    return ProcessCrew(command, args.workers, args.out / WORKERS, patience=patience)


def _dream(args: argparse.Namespace, chosen: list[Trial], model: WorldModel) -> Crew:
    """A world model in this process, with judges that learn from recorded episodes first."""
    from selfflow_mm.errors import UserError

    from ..look.progress import bars
    from ..report_card.card import view_of
    from ..report_card.contest import train_judges, usable_judges
    from ..report_card.policies_ranked import RANKED_TASKS
    from ..report_card.success import task_of
    from ..simpler.crew import HereCrew
    from ..simpler.dream_world import DreamWorld, judged, starts_of_run, tabletop_start
    from ..simpler.suites import TABLETOP_SUITES
    from ..sources import open_episodes

    if args.judge is None:
        raise UserError("a dream needs --judge: recorded episodes that teach what success looks like")
    on_tabletop = (args.suite or _DEFAULT_SUITE["dream"]) in TABLETOP_SUITES
    if on_tabletop == (args.starts is not None):
        raise UserError(
            "dreams of SIMPLER's suites begin from the first pictures of a run there: name its folder by --starts; "
            "those of the tabletop's begin from the tabletop itself"
        )
    judged(chosen, RANKED_TASKS)
    find_start = tabletop_start if args.starts is None else starts_of_run(args.starts)
    held_out = open_episodes(args.judge, None, "val")
    true_source = open_episodes(args.judge, None, "train")
    tasks = dict.fromkeys(str(task_of(trial.arrangement.task.replace("_", " "))) for trial in chosen)
    judges = train_judges(list(tasks), true_source, held_out, view_of(model), args.seed, bars())
    usable = usable_judges(judges)
    judged(chosen, list(usable))
    worth = {task: judge.accuracy for task, judge in usable.items()}
    return HereCrew(DreamWorld(model, usable, find_start, args.dream_steps), {"judges": worth})


def _about_this(args: argparse.Namespace) -> dict[str, Any]:
    import shlex
    import sys

    from selfflow_mm.training.run_folder import software_versions

    return {
        "command": shlex.join(["selfflow-mm", *sys.argv[1:]]),
        "versions": software_versions(),
        "workers": args.workers,
        "shard": args.shard,
    }


def _measured(out: Path) -> float | None:
    """Control steps per second of one worker, of the episodes that are there."""
    from selfflow_mm.errors import UserError

    from ..simpler.results import SuiteRun

    try:
        rows = SuiteRun.load(out).rows
    except UserError:
        return None
    seconds = sum(row.seconds for row in rows)
    return sum(row.steps for row in rows) / seconds if seconds else None


class _Progress:
    """A bar of episodes with time left, successes and steps per second; called with each result."""

    def __init__(self, setup: Setup, out: Path, workers: int) -> None:
        from tqdm import tqdm

        from ..simpler.results import RESULTS, SuiteRun

        done = {row.number for row in SuiteRun.load(out).rows} if (out / RESULTS).exists() else set()
        there = sum(trial.number in done for trial in setup.trials)
        self._bar = tqdm(total=len(setup.trials), initial=there, unit="episode")
        self._steps = self._good = 0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, result: TrialResult) -> None:
        self._steps += result.steps
        self._good += result.success
        self._bar.update()
        elapsed = self._bar.format_dict["elapsed"] or 1e-9
        self._bar.set_postfix_str(f"{self._good} succeeded, {self._steps / elapsed:.3g} steps/s", refresh=False)

    def say(self, what: str) -> None:
        self._bar.write(what)
