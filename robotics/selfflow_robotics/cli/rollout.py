"""``selfflow-mm rollout``: let a policy act on the tabletop."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .policy_options import acting_options, add_policy_options, open_policy

if TYPE_CHECKING:
    from ..rollouts import EpisodeResult

HELP = "let a policy act on the tabletop: success per task, films, a page"
EXAMPLES = """examples:
  selfflow-mm rollout random --statistics statistics.json --out rollouts/random
  selfflow-mm rollout my-run --episodes 200 --executed 4 --film 2 --out rollouts/my-run
  selfflow-mm rollout my-run --executed 2 --ensemble adaptive --steps 5 --out rollouts/ensemble
  selfflow-mm rollout my-run --episodes 200 --executed 8 --out rollouts/eight --against rollouts/my-run
  selfflow-mm rollout ws://127.0.0.1:8000 --episodes 20 --out rollouts/served
  selfflow-mm rollout replay --data tabletop --tasks pick --episodes 10 --out rollouts/replay

POLICY is random, zero, mean, replay, the folder of a fine-tuned model, or the address of a policy server (its key in
SELFFLOW_API_KEY). Ours gets each question's seed with it and answers as the policy would here. The folder DIR gets
results.jsonl (an episode per line, as they end), summary.json and report.html. The same command goes on where it was
stopped; more --episodes or --tasks add to what is there. Scenes are functions of --seed and the episode's number, and
none is one of a recording.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", metavar="POLICY", help="random, zero, mean, replay, a model, or ws://HOST:PORT")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--tasks", nargs="+", metavar="T", help="of the tabletop (default: all)")
    parser.add_argument("--episodes", type=int, default=200, metavar="N", help="of each task (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of scenes and the policy's noise (default: 0)")
    parser.add_argument("--workers", type=int, default=2, metavar="W", help="processes for environments (default: 2)")
    parser.add_argument(
        "--batch", type=int, default=16, metavar="B",
        help="most observations in one call of the policy; twice as many environments are there (default: 16)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="forget the results and films that DIR has")
    parser.add_argument("--against", type=Path, metavar="DIR", help="compare with other results, episode by episode")
    parser.add_argument("--film", type=int, default=0, metavar="N", help="film the first N episodes of each task")
    world = parser.add_argument_group("how episodes go")
    world.add_argument("--variant", nargs="+", default=["base"], metavar="V", help="how scenes look (default: base)")
    world.add_argument("--max-steps", type=int, metavar="N", help="at most (default: the task's limit)")
    world.add_argument("--until", default="success", help="success, or limit: count what is true at the end")
    world.add_argument(
        "--advance", default="environment",
        help="to a second instruction: environment (at step 100), or success (of the first part)",
    )  # fmt: skip
    world.add_argument("--gripper", default="level", help="level or change: what its commands are made of")
    world.add_argument("--sticky", type=int, default=1, metavar="N", help="steps a gripper command lasts (default: 1)")
    add_policy_options(parser)


def run(args: argparse.Namespace) -> int:
    import os
    import sys

    from selfflow_mm.errors import UserError

    from ..rollouts import Film, TabletopOptions, compare, read_results, rollout, summarise
    from ..rollouts.report import as_text, write_page, write_summary
    from ..rollouts.run import planned, settings_of
    from ..rollouts.summary import paired
    from ..tabletop import TASKS

    if args.film < 0:
        raise UserError(f"--film is a number of episodes, got {args.film}")
    other = read_results(args.against / "results.jsonl")[1] if args.against else []
    acting = acting_options(args)
    tabletop = TabletopOptions(tuple(args.variant), args.max_steps, args.until, args.advance, args.gripper, args.sticky)
    policy = open_policy(args)
    path = args.out / "results.jsonl"
    film = Film(args.out / "films", args.film)
    tasks = args.tasks or list(TASKS)
    # Every mistake is found here: before old results are forgotten, and not after hours of episodes.
    jobs = planned(policy, tasks, args.episodes, seed=args.seed, workers=args.workers, batch=args.batch, acting=acting)
    if args.against:
        paired(jobs, other)
    if args.overwrite and os.path.exists(path):
        film.forget()
        for name in ("report.html", "summary.json", path.name):
            (args.out / name).unlink(missing_ok=True)
    asked = {(job.task, job.episode) for job in jobs}
    done = sum((row.task, row.episode) in asked for row in read_results(path)[1]) if os.path.exists(path) else 0
    with _Progress(len(asked), done) as bar:
        results = rollout(
            policy,
            tasks,
            args.episodes,
            seed=args.seed,
            workers=args.workers,
            batch=args.batch,
            acting=acting,
            tabletop=tabletop,
            results=path,
            film=film,
            progress=bar,
        )
    unseen = sum(row.episode < args.film and not film.path(row.task, row.episode).exists() for row in results)
    if unseen:
        print(
            f"selfflow-mm rollout: {unseen} of the episodes to be filmed were acted before without a film; "
            "--overwrite acts them again",
            file=sys.stderr,
        )
    settings = settings_of(policy, args.seed, acting, tabletop)
    summary = summarise(results)
    comparison = compare(results, other) if args.against else []
    write_summary(args.out / "summary.json", settings, summary, comparison, str(args.against))
    write_page(args.out / "report.html", settings, results, summary, comparison, str(args.against), film)
    print(as_text(summary, comparison, str(args.against)))
    print(f"{args.out / 'report.html'}")
    return 0


class _Progress:
    """A bar of episodes with time left, successes and steps per second; called with each result."""

    def __init__(self, planned: int, done: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=planned, initial=done, unit="episode")
        self._steps = self._good = 0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, result: EpisodeResult) -> None:
        self._steps += result.steps
        self._good += result.success
        self._bar.update()
        elapsed = self._bar.format_dict["elapsed"] or 1e-9
        self._bar.set_postfix_str(f"{self._good} succeeded, {self._steps / elapsed:.0f} steps/s", refresh=False)
