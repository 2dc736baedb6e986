"""Activation checkpointing by block: keep only what goes into a block and compute the rest again in the backward pass.

It is laid around a finished model, so that models know nothing of it and weights keep their names.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import UserError

#: Names of the lists of blocks in the two families (joint and ImageNet transformer).
BLOCK_LISTS = ("double_blocks", "single_blocks", "blocks")


def recompute_blocks(model: nn.Module) -> nn.Module:
    """Make every block of ``model`` recompute itself in the backward pass; returns the model.

    Outputs and gradients stay what they were. Passes without gradient (a teacher's, sampling) are left as they are.

    Raises:
        UserError: the model has no list of blocks that is known here.
    """
    lists = [child for name, child in model.named_children() if name in BLOCK_LISTS]
    if not lists:
        raise UserError(f"there are no blocks to recompute: the model has none of {', '.join(BLOCK_LISTS)}")
    for blocks in lists:
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            # An attribute of the instance stands before the class's method; no module is put in between.
            block.forward = partial(_forward, type(block).forward, block)
    return model


def compile_blocks(model: nn.Module) -> nn.Module:
    """Compile every block as a graph of its own, where what happens between blocks cannot be compiled."""
    for name in BLOCK_LISTS:
        for block in getattr(model, name, ()):
            block.forward = torch.compile(block.forward, fullgraph=True, dynamic=False)
    return model


def _forward(forward: Any, block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(block, *args, **kwargs)
    # Blocks draw no random numbers, so the generator's state need not be kept.
    return checkpoint(forward, block, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
