"""Helpers shared by the tokenizers: statistics, and taking packed streams apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .errors import UserError
from .spec import TokenizerSpec
from .stream import TokenStream


def standardise(raw: Tensor, spec: TokenizerSpec) -> Tensor:
    """``(raw - shift) * scale`` per channel (last dimension)."""
    if spec.shift:
        raw = raw - raw.new_tensor(spec.shift)
    if spec.scale:
        raw = raw * raw.new_tensor(spec.scale)
    return raw


def unstandardise(values: Tensor, spec: TokenizerSpec) -> Tensor:
    """The inverse of :func:`standardise`."""
    if spec.scale:
        values = values / values.new_tensor(spec.scale)
    if spec.shift:
        values = values + values.new_tensor(spec.shift)
    return values


def check_stream(stream: TokenStream, spec: TokenizerSpec) -> None:
    """Refuse a stream of another tokenizer's width, or with values that are no numbers."""
    if stream.values.shape[-1] != spec.channels:
        raise UserError(f"tokens of '{spec.name}' have {spec.channels} channels, got {stream.values.shape[-1]}")
    if not bool(torch.isfinite(stream.values).all()):
        raise UserError(f"tokens to be decoded by '{spec.name}' hold NaN or infinite values; look where they come from")


def samples(stream: TokenStream) -> Iterator[tuple[Tensor, Tensor]]:
    """The values ``(N, C)`` and positions ``(N, 4)`` of each sample: rows in order, packed samples in order."""
    for values, positions, sample in zip(stream.values, stream.positions, stream.sample, strict=True):
        for number in sorted(set(sample.tolist()) - {-1}):
            chosen = sample == number
            yield values[chosen], positions[chosen]


def same_shape(shapes: Sequence[tuple[int, ...]], most: int) -> Iterator[list[int]]:
    """Indices of equal shapes, in groups of at most ``most``."""
    for shape in dict.fromkeys(shapes):
        alike = [i for i, other in enumerate(shapes) if other == shape]
        yield from (alike[i : i + most] for i in range(0, len(alike), most))


def autocast(device: torch.device, enabled: bool) -> torch.autocast:
    """bfloat16 autocast on ``device``, or a context that does nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
