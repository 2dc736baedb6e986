"""Does our simulation rank policies as the real robot did? SIMPLER's own question, asked of our runs.

There are six published policies at most, and the real rates are of some dozens of trials each: read the intervals. They
are over policies and leave out that each rate is itself an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfflow_mm.errors import UserError

from ..look.tables import table
from ..report_card.ranking import Correlation, mmrv, pearson_interval, spearman_interval
from .published import REAL
from .results import SuiteRun
from .summary import MEANS, summarise

__all__ = ["Ranked", "as_plain", "as_text", "rank", "ranked"]

#: Settings whose tasks the real robot had too. (The tabletop's are others under the same names.)
_SETTINGS = ("visual matching", "variant aggregation", "WidowX")


@dataclass(frozen=True)
class Ranked:
    """Policies on one task, or on a mean over tasks.

    Attributes:
        setting: of our episodes, such as visual matching.
        task: its name, or the mean's.
        policies: that are compared.
        real, simulated: their success rates, published and ours.
        mmrv: mean maximum rank violation, in units of the real rates; 0 is best.
        pearson, spearman: correlations of the rates with intervals, NaN where there is none.
    """

    setting: str
    task: str
    policies: tuple[str, ...]
    real: tuple[float, ...]
    simulated: tuple[float, ...]
    mmrv: float
    pearson: Correlation
    spearman: Correlation


def rank(runs: Mapping[str, SuiteRun]) -> list[Ranked]:
    """Hold the rates of several runs against the real robot's.

    Args:
        runs: policy, named as SIMPLER names it (a key of :data:`selfflow_robotics.simpler.published.REAL`), -> its run.

    Returns:
        For every setting a line per task and per mean over tasks that two policies or more have.

    Raises:
        UserError: a policy without real rates, or no task that two of them have.
    """
    known = list(dict.fromkeys(policy for rates in REAL.values() for policy in rates))
    if unknown := [policy for policy in runs if policy not in known]:
        raise UserError(f"no real rates of '{unknown[0]}' are published; there are {', '.join(known)}")
    simulated: dict[tuple[str, str], dict[str, float]] = {}
    for policy, run in runs.items():
        for group in summarise(run.rows).groups:
            for name, share in [
                *((line.task, line.share) for line in group.tasks),
                *((m.name, m.share) for m in group.means),
            ]:
                simulated.setdefault((group.name, name), {})[policy] = share
    lines = []
    for (setting, task), rates in simulated.items():
        real = _real(task)
        both = [policy for policy in rates if policy in real]
        if setting in _SETTINGS and len(both) > 1:
            lines.append(ranked(setting, task, {p: real[p] for p in both}, {p: rates[p] for p in both}))
    if not lines:
        raise UserError("ranking needs two runs at least that have a task in common of which real rates are published")
    return lines


def ranked(setting: str, task: str, real: Mapping[str, float], simulated: Mapping[str, float]) -> Ranked:
    """One line, of the policies of ``real``."""
    truth, ours = tuple(real.values()), tuple(simulated[policy] for policy in real)
    return Ranked(
        setting=setting,
        task=task,
        policies=tuple(real),
        real=truth,
        simulated=ours,
        mmrv=mmrv(truth, ours),
        pearson=pearson_interval(truth, ours),
        spearman=spearman_interval(truth, ours),
    )


def _real(task: str) -> dict[str, float]:
    """Published rates of a task, or of a mean, of the policies that have them all."""
    for mean in MEANS:
        if mean.name == task:
            weights = mean.weights()
            rates = [REAL.get(name, {}) for name in weights]
            shared = [policy for policy in rates[0] if all(policy in of for of in rates)]
            return {
                policy: sum(w * of[policy] for w, of in zip(weights.values(), rates, strict=True)) for policy in shared
            }
    return REAL.get(task, {})


def as_text(lines: Sequence[Ranked]) -> str:
    """Tables: the rates, and how well they agree."""
    blocks = []
    for setting in dict.fromkeys(line.setting for line in lines):
        some = [line for line in lines if line.setting == setting]
        rates = [
            (line.task, policy, f"{real:.1%}", f"{ours:.1%}")
            for line in some
            for policy, real, ours in zip(line.policies, line.real, line.simulated, strict=True)
        ]
        blocks.append(f"{setting}: success rates\n" + table(rates, ("task", "policy", "real", "simulated")))
        agreement = [
            (line.task, len(line.policies), f"{line.mmrv:.3f}", _shown(line.pearson), _shown(line.spearman))
            for line in some
        ]
        header = ("task", "policies", "MMRV", "Pearson r, 95 % interval", "Spearman rho, 95 % interval")
        blocks.append(f"{setting}: agreement with the real robot\n" + table(agreement, header))
    return "\n\n".join(blocks)


def as_plain(lines: Iterable[Ranked]) -> list[dict[str, Any]]:
    """For JSON, which has no NaN: that becomes None."""
    return [_without_nan(asdict(line)) for line in lines]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _shown(found: Correlation) -> str:
    if math.isnan(found.value):
        return "none: one side does not vary"
    if math.isnan(found.low):
        return f"{found.value:.3f}, too few policies for an interval"
    return f"{found.value:.3f}, {found.low:.2f} to {found.high:.2f}"
