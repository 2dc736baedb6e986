"""Exponential moving average of the weights: the teacher, and the model that is evaluated (sec. 3.4)."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from .sharding import local

#: The paper's decay, updated every step. Its half-life is 6,931 steps.
PAPER_DECAY = 0.9999

M = TypeVar("M", bound=nn.Module)


def decay_for(steps: int, half_life: float) -> float:
    """Decay with a half-life of ``half_life * steps`` steps, at most the paper's.

    At .9999 the average of a run of 2,000 steps is mostly its random start; a stated share of the run behaves alike
    at every length, and at the paper's (about 350 k steps and more for a share of .02) it is the paper's.
    """
    return min(PAPER_DECAY, 0.5 ** (1 / (half_life * steps)))


def copy_for_ema(model: M) -> M:
    """A copy that takes no gradient."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def update(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """``ema <- decay * ema + (1 - decay) * model``, parameters by name."""
    averages, weights = local(ema.parameters()), local(p.detach() for p in model.parameters())
    torch._foreach_lerp_(averages, weights, 1 - decay)
