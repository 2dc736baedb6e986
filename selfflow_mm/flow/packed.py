"""Randomness of packed rows: every sample draws what it would draw alone, wherever it lies in whichever row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..tokens import NoiseLevels, TokenStream


@dataclass(frozen=True)
class Draw:
    """One step's randomness for one modality: tau (eq. 4), the teacher's level ``(B,)``, x1 ``(B, N, C)``.

    Of packed rows the teacher's levels are ``(B, S)``.
    """

    tau: NoiseLevels
    cleaner: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Alike:
    """Samples of one length in packed rows, taken out of them.

    Attributes:
        rows, slots: ``(n,)``: in which row they lie, and as which sample of it.
        tokens: ``(n, L)``: places of their tokens in the rows laid end to end, ``(B N,)``.
        stream: their tokens, a sample per row.
    """

    rows: Tensor
    slots: Tensor
    tokens: Tensor
    stream: TokenStream


def alike(stream: TokenStream, lengths: Sequence[Sequence[int]]) -> Iterator[Alike]:
    """The samples of packed rows by their length; those without tokens are left out.

    Args:
        stream: rows of samples that lie end to end, in the order of their ids, with padding at the end.
        lengths: tokens of each sample of each row. Numbers of the host, so that no accelerator is waited for.
    """
    places: dict[int, list[tuple[int, int, int]]] = {}
    for row, of_row in enumerate(lengths):
        start = row * stream.values.shape[1]
        for slot, length in enumerate(of_row):
            if length:
                places.setdefault(length, []).append((row, slot, start))
            start += length
    values, positions = stream.values.flatten(0, 1), stream.positions.flatten(0, 1)
    for length, found in places.items():
        rows, slots, starts = torch.tensor(found, device=values.device).unbind(1)
        tokens = starts.unsqueeze(1) + torch.arange(length, device=values.device)
        yield Alike(rows, slots, tokens, TokenStream.dense(values[tokens], positions[tokens]))


def draw_packed(
    draw: Callable[[TokenStream, Tensor], Draw], stream: TokenStream, ids: Tensor, lengths: Sequence[Sequence[int]]
) -> Draw:
    """What ``draw`` gives for each sample alone, laid where the sample's tokens are.

    Args:
        draw: (one sample per row ``(n, L, C)``, their ids ``(n,)``) -> what they draw.
        stream, lengths: see :func:`alike`.
        ids: ``(B, S)`` global sample ids.
    """
    noise, group = torch.zeros_like(stream.values), torch.zeros_like(stream.sample)
    cleaner = torch.zeros(ids.shape, device=ids.device)
    levels = torch.zeros(*ids.shape, 1, device=ids.device)
    each = torch.zeros_like(group, dtype=torch.float32)
    expanded = False
    for part in alike(stream, lengths):
        drawn = draw(part.stream, ids[part.rows, part.slots])
        noise.flatten(0, 1)[part.tokens] = drawn.noise
        cleaner[part.rows, part.slots] = drawn.cleaner
        if drawn.tau.each:
            expanded = True
            each.flatten()[part.tokens] = drawn.tau.levels
            continue
        count = drawn.tau.levels.shape[1]
        if levels.shape[2] < count:
            levels = levels.repeat(1, 1, count)
        levels[part.rows, part.slots] = drawn.tau.levels
        group.flatten()[part.tokens] = count * part.slots.unsqueeze(1) + drawn.tau.group
    tau = NoiseLevels.each_token(each) if expanded else NoiseLevels(levels.flatten(1), group)
    return Draw(tau, cleaner, noise)
