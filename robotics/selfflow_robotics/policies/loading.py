"""A policy from a name or a folder."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfflow_mm.errors import UserError
from selfflow_mm.weights import BUNDLED

from ..interfaces import ChunkPolicy
from .baselines import MeanPolicy, RandomPolicy, ReplayPolicy, ZeroPolicy

__all__ = ["BASELINES", "load_policy"]

BASELINES: dict[str, Callable[..., ChunkPolicy]] = {
    "random": RandomPolicy,
    "zero": ZeroPolicy,
    "mean": MeanPolicy,
    "replay": ReplayPolicy,
}


def load_policy(name: Path | str, **settings: Any) -> ChunkPolicy:
    """Open a policy.

    Args:
        name: ``random``, ``zero``, ``mean`` or ``replay``; or a trained policy: its folder (``./zero`` for a folder of
            that name) or the name of bundled weights.
        settings: what that policy takes: see :mod:`selfflow_robotics.policies.baselines`, and
            :meth:`selfflow_robotics.adapter.FlowPolicy.from_pretrained` for a trained one.

    Raises:
        UserError: an unknown name, a folder that holds no policy, or a setting that the policy does not take.
    """
    make: Callable[..., ChunkPolicy]
    values: tuple[Path | str, ...] = ()
    if str(name) in BASELINES:
        make = BASELINES[str(name)]
    elif os.path.isdir(os.path.expanduser(name)) or str(name) in BUNDLED:  # False too where no such name can be
        from ..adapter import FlowPolicy  # torch is imported here, not by the baselines

        make, values = FlowPolicy.from_pretrained, (name,)
    else:
        raise _unknown(str(name))
    known = list(inspect.signature(make).parameters)[len(values) :]
    for setting in settings:
        if setting not in known:
            raise UserError(f"the policy '{name}' has no setting '{setting}'; it has {', '.join(known)}")
    return make(*values, **settings)


def _unknown(name: str) -> UserError:
    if "://" in name:
        return UserError(f"'{name}' is the address of a server; only 'selfflow-mm rollout' and ServedPolicy ask one")
    near = difflib.get_close_matches(name, BASELINES, n=1, cutoff=0.5)
    hint = f"the nearest is '{near[0]}'" if near else f"there are {', '.join(BASELINES)}"
    return UserError(f"there is no policy and no folder '{name}'; {hint}, or the folder of a trained policy")
