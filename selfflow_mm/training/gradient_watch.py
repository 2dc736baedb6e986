"""Do the layers of every modality get the gradients they should, and only those?

A modality's own layers are ``media_in.NAME`` and ``media_out.NAME``. What a run trains is known from its tasks; where
the gradients say otherwise, something is detached, frozen or mixed up, and no loss curve would tell.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..flow.objectives import Batch
from .ranks import Ranks
from .sharding import local

IN, OUT = "media_in", "media_out"
#: Log lines after which a modality that never came is missed.
PATIENCE = 20


class GradientWatch:
    """Sums up, on the device, how large the gradients of the modalities' own layers are, from one log line to the next.

    It looks when the optimizer steps, so that accumulated, averaged and sharded gradients are what it sees, and steps
    that are skipped are not. Layers without a trainable parameter (frozen ones, with LoRA) are not watched.

    Args:
        model: the joint transformer.
        trains: modalities that the run's tasks generate.
        weights: of the modalities' losses; those not named count 1.
    """

    def __init__(self, model: nn.Module, trains: Collection[str], weights: Mapping[str, float]) -> None:
        self.expected = {m for m in trains if weights.get(m, 1.0) != 0}
        self._parameters: list[nn.Parameter] = []
        self._layer_of: list[str] = []
        for side in (IN, OUT):
            for modality, layer in getattr(model, side).items():
                for parameter in layer.parameters():
                    if parameter.requires_grad:
                        self._parameters.append(parameter)
                        self._layer_of.append(f"{side}.{modality}")
        self._sums: dict[int, Tensor] = {}
        self._batches: dict[str, int] = {}
        self._never = set(self.expected)
        self._lines = self._steps = 0
        self._moved: set[str] = set()

    @contextmanager
    def watching(self, optimizer: torch.optim.Optimizer) -> Iterator[GradientWatch]:
        """Look at the gradients of every step of ``optimizer``."""
        handle = optimizer.register_step_pre_hook(lambda *_: self._look())
        try:
            yield self
        finally:
            handle.remove()

    @torch.no_grad()
    def _look(self) -> None:
        found = {i: p.grad for i, p in enumerate(self._parameters) if p.grad is not None}
        if not found:
            return
        sizes = dict(zip(found, torch._foreach_norm(local(found.values()), 1), strict=True))  # few kernels, no waiting
        again = [i for i in sizes if i in self._sums]
        if again:
            torch._foreach_add_([self._sums[i] for i in again], [sizes[i] for i in again])
        self._sums |= {i: size for i, size in sizes.items() if i not in self._sums}

    def add(self, batch: Batch) -> None:
        """A good step had this batch."""
        self._steps += 1
        for modality in batch.conditions.generate:
            self._batches[modality] = self._batches.get(modality, 0) + 1

    def take(self, ranks: Ranks, device: torch.device) -> dict[str, str]:
        """What is wrong since the last call, cause -> sentence. Called by all processes together."""
        if not self._parameters:
            return {}
        sums = {name: torch.zeros((), device=device) for name in self._layer_of}
        for i, size in self._sums.items():
            sums[self._layer_of[i]] = sums[self._layer_of[i]] + size.float()
        # A part of a sharded gradient may be zero; the mean over processes is so only where all are.
        means = ranks.mean(sums)
        got = {name: mean > 0 for name, mean in zip(means, torch.stack([*means.values()]).tolist(), strict=True)}
        found = dict(self._complaints(got))
        self._moved |= {name.removeprefix(f"{OUT}.") for name in got if name.startswith(OUT) and got[name]}
        self._sums, self._batches = {}, {}
        return found

    def _complaints(self, got: Mapping[str, bool]) -> Iterator[tuple[str, str]]:
        self._lines += 1
        for modality in sorted(self.expected):
            count = self._batches.get(modality, 0)
            sides = [OUT] if count else []
            # Output layers start at zero, and nothing before them gets a gradient until they have moved.
            if count and modality in self._moved:
                sides.append(IN)
            for side in sides:
                name = f"{side}.{modality}"
                if not got.get(name, True):
                    yield (
                        f"no gradient: {name}",
                        f"{modality} was generated in {count} batches since the last log line and {name} got no "
                        "gradient: it is detached from the loss",
                    )
        self._never -= self._batches.keys()
        if self._lines == PATIENCE:
            for modality in sorted(self._never):
                yield (
                    f"never came: {modality}",
                    f"{modality} should be trained and came in none of the last {self._steps} steps: look at the "
                    "ratios of data.sources and the shares of their tasks",
                )
        for name, has in got.items():
            side, modality = name.split(".", 1)
            if has and side == OUT and modality not in self.expected:
                yield (
                    f"gradient: {name}",
                    f"{name} got a gradient, and no task of the run generates {modality} with a weight above 0",
                )
