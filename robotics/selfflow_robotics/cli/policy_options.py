"""What the commands that act by a policy share: what it is made with, and how its chunks are used."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..interfaces import ChunkPolicy
    from ..policies import ActingOptions

#: Options that are settings of a policy under the same name; ``load_policy`` refuses what a policy does not take.
_SETTINGS = ("steps", "device", "statistics", "data", "split", "horizon")


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    acting = parser.add_argument_group("how chunks are used")
    acting.add_argument("--executed", type=int, metavar="K", help="actions carried out of each chunk (default: all)")
    acting.add_argument("--ensemble", default="off", metavar="E", help="off, temporal (ACT) or adaptive (CogACT)")
    acting.add_argument("--decay", type=float, default=0.01, help="of temporal weights exp(-decay i) (default: 0.01)")
    acting.add_argument("--alpha", type=float, default=0.1, help="of adaptive weights exp(alpha cos) (default: 0.1)")
    acting.add_argument("--memory", type=int, metavar="M", help="past chunks averaged (default: all that reach)")
    acting.add_argument("--policy-seed", type=int, default=0, metavar="S", help="of the policy's noise (default: 0)")
    model = parser.add_argument_group("what the policy is made with, where it takes it")
    model.add_argument("--steps", type=int, metavar="N", help="of a model's solver")
    model.add_argument("--video-level", metavar="X", help="of a model: absent, denoised, or a level in (0, 1]")
    model.add_argument("--device", help="of a model: auto, cpu, cuda, ...")
    model.add_argument("--statistics", type=Path, metavar="FILE", help="of random and mean")
    model.add_argument("--data", type=Path, metavar="DIR", help="of replay: recorded episodes")
    model.add_argument("--split", help="of replay's data")
    model.add_argument("--horizon", type=int, metavar="H", help="of a baseline: actions in a chunk")


def acting_options(args: argparse.Namespace) -> ActingOptions:
    """How chunks are used.

    Raises:
        UserError: a value out of range.
    """
    from ..policies import ActingOptions

    return ActingOptions(args.executed, args.ensemble, args.decay, args.alpha, args.memory, args.policy_seed)


def open_policy(args: argparse.Namespace) -> ChunkPolicy:
    """The policy that was named: a name, a folder, or a server's address.

    Raises:
        UserError: there is none, or a setting that it does not take; those of a served policy are its server's.
    """
    import os

    from selfflow_mm.errors import UserError

    settings = policy_settings(args)
    if "://" not in args.policy:
        from ..policies import load_policy

        return load_policy(args.policy, **settings)
    if settings:
        raise UserError(f"a served policy is set where it is served: leave out {', '.join(sorted(settings))}")
    from ..serving import ServedPolicy

    return ServedPolicy(args.policy, api_key=os.environ.get("SELFFLOW_API_KEY"))


def policy_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What was said of the policy, for ``load_policy``; what it does not take is refused there by name.

    Raises:
        UserError: a level that is no number.
    """
    given = {name: getattr(args, name) for name in _SETTINGS}
    level = args.video_level
    given["video"] = level if level is None or level.isalpha() else _number(level)
    if args.policy == "replay":
        given["executed"] = args.executed
    return {name: value for name, value in given.items() if value is not None}


def _number(text: str) -> float:
    from selfflow_mm.errors import UserError

    try:
        return float(text)
    except ValueError:
        raise UserError(f"--video-level is absent, denoised or a number, not '{text}'") from None
