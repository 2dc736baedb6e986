"""Making the images that a sample folder lacks, batch by batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import UserError
from .decoders import Decoder
from .imagenet import ImageNetSampler
from .imagenet_folder import SampleFolder


def fill(
    folder: SampleFolder,
    sampler: ImageNetSampler,
    decoder: Decoder | None,
    batch: int,
    on_progress: Callable[[float], object] = lambda _: None,
) -> None:
    """Make this process's missing parts.

    Args:
        folder: where the parts go.
        sampler: draws the latents.
        decoder: None writes the latents.
        batch: images at once, whatever the size of the parts.
        on_progress: told, after each model call, how many images of all processes are made; counts begun ones in part.

    Raises:
        UserError: a batch that does not fit the device's memory.
    """
    blocks = folder.missing()
    at_once = max(1, batch // folder.block)
    for i in range(0, len(blocks), at_once):
        group = blocks[i : i + at_once]
        numbers = torch.tensor([n for block in group for n in block], device=sampler.device)
        labels = sampler.labels(folder.settings.classes, numbers)
        before, made = folder.done(), 0.0
        images: list[Tensor] = []
        for own, classes in zip(numbers.split(batch), labels.split(batch), strict=True):

            def step(size: int = len(own), before: int = before) -> None:
                nonlocal made
                made += size / sampler.calls
                on_progress(before + made)

            images.append(_make(sampler, decoder, classes, own, step))
        sizes = [len(block) for block in group]
        parts = zip(group, torch.cat(images).split(sizes), labels.cpu().split(sizes), strict=True)
        for block, pixels, classes in parts:
            folder.write(block, pixels.numpy(), classes.numpy())


def _make(
    sampler: ImageNetSampler, decoder: Decoder | None, labels: Tensor, numbers: Tensor, on_step: Callable[[], object]
) -> Tensor:
    try:
        latents = sampler(labels, numbers, on_step)
        return (latents if decoder is None else decoder(latents)).cpu()
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"a batch of {len(numbers)} images does not fit {sampler.device}; give a smaller one"
        ) from error
