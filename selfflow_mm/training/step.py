"""One step of training: loss, gradients, optimizer, averages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..flow.objectives import Batch, Objective
from ..models.joint import JointTransformer
from ..randomness import Randomness
from . import ema
from .config import OptimizerConfig, RunConfig
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
    """One optimizer step and one step of every average; a bad step (:mod:`.guards`) changes none of them."""
    for group in state.optimizer.param_groups:
        group["lr"] = optimizer.lr_at(state.step, settings.steps)
    with torch.autocast(work.device.type, dtype=torch.bfloat16, enabled=work.dtype == torch.bfloat16):
        loss, parts = work.objective.loss(work.student, work.teacher, batch, work.random, state.step)
    loss.backward()
    state.ranks.mean_gradients(state.model)
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), optimizer.clip)
    # Losses are averaged before it is decided: one that is not finite in one process is so in all then.
    values = {**state.ranks.mean({"loss": loss.detach(), **parts}), "grad_norm": norm.detach()}
    good = state.guard.accepts(values, settings.spike)
    if good:  # a bad gradient must not reach the weights that the caller may still save
        state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)  # now, so that gradients take no memory while activations do
    if good:
        ema.update(state.teacher, state.model, work.decay)
        if state.averages:
            state.averages.update(state.model, state.step + 1)
    return values
