"""What the steps of a planned run hold where samples are packed: filled as :mod:`.packing` fills them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .packing import refuse_few, spread

if TYPE_CHECKING:
    from .workload import Draw

#: Steps that are filled to learn what one holds, samples at most (more where one step holds more), and how many
#: comparisons laying some of them in rows may take.
_STEPS, _SAMPLES, _COMPARISONS = 256, 100_000, 1_000_000


@dataclass(frozen=True)
class PackedSteps:
    """What a packed step holds.

    Attributes:
        counts: samples of each kind, in the mean.
        row: tokens of the longest row.
        slowest: FLOPs, recomputation included, of the process that has most to do, in the mean over steps: rows are
            alike in tokens, and long samples take more for each.
    """

    counts: tuple[float, ...]
    row: int
    slowest: float

    @property
    def samples(self) -> float:
        return sum(self.counts)


def packed_steps(kinds: Sequence[Draw], budget: int, shares: int = 1, passes: int = 1) -> PackedSteps:
    """Fill some steps.

    Args:
        kinds: of samples, each with its part of them (in any unit, as ``share`` or ``batch``).
        budget: tokens of a step (``data.pack``).
        shares: parts that a step is shared in among processes.
        passes: rows of each (``run.accumulate``).

    Raises:
        UserError: a step holds fewer samples than there are rows.
    """
    parts = [kind.share * kind.batch if kind.packed else kind.share for kind in kinds]
    lengths = [kind.tokens for kind in kinds]
    steps = list(_filled(parts, lengths, budget))
    bins = shares * passes
    refuse_few(budget, min(map(len, steps)), bins)
    samples = sum(map(len, steps)) / len(steps)
    of_kinds = torch.bincount(torch.tensor([k for step in steps for k in step]), minlength=len(kinds)) / len(steps)
    row, slowest = 0, []
    for step in steps[: max(1, round(_COMPARISONS / samples / bins))]:
        laid = spread([lengths[k] for k in step], bins)
        row = max(row, *(sum(lengths[step[i]] for i in line) for line in laid))
        work = [sum(kinds[step[i]].flops + kinds[step[i]].again for i in line) for line in laid]
        slowest.append(max(sum(work[first : first + passes]) for first in range(0, bins, passes)))
    return PackedSteps(tuple(of_kinds.tolist()), row, sum(slowest) / len(slowest))


def _filled(parts: Sequence[float], lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Steps, as the kinds of their samples: taken from one queue until the next does not fit, which begins the next."""
    whole = sum(parts)
    mean = sum(p * n for p, n in zip(parts, lengths, strict=True)) / whole
    count = max(min(_STEPS * budget / mean, _SAMPLES), 4 * budget / mean, 1000)
    # As many of each kind as it has a part, shuffled: no kind is there by luck.
    queue = torch.repeat_interleave(torch.tensor([max(1, round(count * p / whole)) if p else 0 for p in parts]))
    order = torch.randperm(len(queue), generator=torch.Generator().manual_seed(0))
    step: list[int] = []
    room = budget
    for kind in queue[order].tolist():
        if lengths[kind] > room and step:
            yield step
            step, room = [], budget
        step.append(kind)
        room -= lengths[kind]
    # The last is cut off where the queue ends.
