"""One step of training: loss, gradients, optimizer, averages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from ..flow.objectives import Batch, Objective
from ..models.joint import JointTransformer
from ..randomness import Randomness
from . import ema
from .config import OptimizerConfig, RunConfig
from .packing import padding
from .sharding import sharded, whole
from .state import State


@dataclass
class Work:
    """What a step is done with: the models as they are called (compiled, where asked for), and the loss."""

    student: JointTransformer
    teacher: JointTransformer
    objective: Objective
    random: Randomness
    decay: float
    device: torch.device
    dtype: torch.dtype
    checkpoints: Path


def take_step(
    settings: RunConfig, optimizer: OptimizerConfig, state: State, work: Work, batch: Batch
) -> dict[str, Tensor]:
    """One optimizer step and one step of every average, on this process's part of a batch; a bad step
    (:mod:`.guards`) changes none of them.

    The step is that of the whole batch: each pass of each process divides by what the loss counts in all of them, so
    that the parts sum to the whole, however it is shared.

    Returns:
        loss and its parts, and the norm of the gradient before it was clipped; the same in all processes.
    """
    ranks = state.ranks
    for group in state.optimizer.param_groups:
        group["lr"] = optimizer.lr_at(state.step, settings.steps)
    totals = ranks.sum(work.objective.counts(batch))
    report: dict[str, Tensor] = {}
    for part in passes(batch, settings.accumulate):
        with torch.autocast(work.device.type, dtype=torch.bfloat16, enabled=work.dtype == torch.bfloat16):
            loss, parts = work.objective.loss(work.student, work.teacher, part, work.random, state.step, totals)
        (loss * ranks.shares).backward()  # gradients become means over processes
        for name, value in {"loss": loss.detach(), **parts}.items():
            report[name] = report[name] + value if name in report else value
    if not sharded(state.model):
        ranks.mean_gradients(state.model)
    norm = whole(torch.nn.utils.clip_grad_norm_(state.model.parameters(), optimizer.clip))
    extra = {} if batch.lengths is None else {k: torch.tensor(v, device=work.device) for k, v in padding(batch).items()}
    # Summed over processes before it is decided: a loss that is not finite in one of them is so in all then.
    values = {**ranks.sum(report), **ranks.mean(extra), "grad_norm": norm.detach()}
    good = state.guard.accepts(values, settings.spike)
    if good:  # a bad gradient must not reach the weights that the caller may still save
        state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)  # now, so that gradients take no memory while activations do
    if good:
        ema.update(state.teacher, state.model, work.decay)
        if state.averages:
            state.averages.update(state.model, state.step + 1)
    return values


def passes(batch: Batch, count: int) -> list[Batch]:
    """A batch in ``count`` parts of equally many rows.

    Raises:
        UserError: there are not so many.
    """
    rows = len(batch.ids)
    if rows % count:
        raise UserError(f"a process's part of a batch, {rows} samples, cannot be taken in {count} passes")
    if count == 1:
        return [batch]
    size = rows // count
    return [batch.rows(start, start + size) for start in range(0, rows, size)]
