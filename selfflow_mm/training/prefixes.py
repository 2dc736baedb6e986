"""How much of a sample is given where a task goes on with its beginning (``extend``, ``extend-v``)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..conditions import Conditions, Part
from ..tokens import TokenStream


def begun(conditions: Conditions, streams: Mapping[str, TokenStream], u: Tensor) -> Conditions:
    """These conditions with a prefix for every sample, as masks; unchanged where none is asked for.

    The border is the same time in all modalities, evenly drawn from 0 s to the earliest of their last tokens' times, so
    that each of them always has something to generate.

    Args:
        streams: one sample per row; those of the given prefixes.
        u: ``(B,)`` in (0, 1).
    """
    prefixes = {m: part for m, part in conditions.given.items() if part.kind == "prefix"}
    if not prefixes:
        return conditions
    lasts = [streams[m].positions[..., 0].masked_fill(~streams[m].valid, -torch.inf).amax(dim=1) for m in prefixes]
    border = (u * torch.stack(lasts).amin(dim=0)).unsqueeze(1)
    masks = {m: streams[m].valid & (streams[m].positions[..., 0] < border) for m in prefixes}
    given = {m: Part("mask", tokens=masks[m], level=p.level) if m in masks else p for m, p in conditions.given.items()}
    return Conditions(conditions.generate, given)
