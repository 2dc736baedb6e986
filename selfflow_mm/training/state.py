"""What a training run is at one moment: weights, averages, optimizer, the place in the data; saved and loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from ..errors import UserError
from ..flow.objectives import Batch
from ..models.joint import JointTransformer
from . import posthoc_ema
from .checkpoint import load_checkpoint, load_optimizer_tensors, optimizer_tensors, save_checkpoint
from .guards import Guard
from .ranks import Ranks


class BatchSource(Protocol):
    """An endless sequence of batches whose place can be saved."""

    def at(self, step: int) -> tuple[str, str, Batch]:
        """The batch of a step (name of its source, its task, batch); called for every step in turn."""
        ...

    def numbers(self, name: str, batch: Batch) -> list[Any]:
        """What the batch's samples are called in their source, for messages; in the order of rows, and of packed
        samples within them.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """The place, as plain values (JSON)."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class State:
    """What a checkpoint holds."""

    model: JointTransformer
    teacher: JointTransformer
    optimizer: torch.optim.Optimizer
    batches: BatchSource
    averages: posthoc_ema.PowerAverages | None = None
    step: int = 0
    ranks: Ranks = field(default_factory=Ranks)
    guard: Guard = field(default_factory=Guard)

    def save(self, folder: Path, keep: int) -> None:
        tensors = {
            "model": self.model.state_dict(),
            "ema": self.teacher.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.model),
            **(self.averages.state() if self.averages else {}),
        }
        places = self.ranks.gather(self.batches.state_dict())
        if self.ranks.first:
            # Where all processes are at the same place, any number of them can go on from it.
            same = all(place == places[0] for place in places)
            guard = self.guard.state_dict()
            place = {**(places[0] if same else {"ranks": places}), **({"guard": guard} if guard else {})}
            save_checkpoint(folder, self.step, tensors, place, keep)
        self.ranks.wait()

    def load(self, path: Path) -> None:
        self.step, tensors, state = load_checkpoint(path)
        try:
            self.model.load_state_dict(tensors["model"])
            self.teacher.load_state_dict(tensors["ema"])
        except (RuntimeError, KeyError) as error:
            raise UserError(f"{path} is of a model of another shape: {str(error).splitlines()[-1].strip()}") from None
        load_optimizer_tensors(self.optimizer, self.model, tensors["optimizer"])
        if self.averages:
            self.averages.load(tensors, path)
        self.guard.load_state_dict(state.pop("guard", {}))
        places = state.get("ranks", [state] * self.ranks.world)
        if len(places) != self.ranks.world:
            raise UserError(
                f"{path} was written by {len(places)} processes, each with a place of its own in the data; go on with "
                f"as many, not {self.ranks.world}"
            )
        self.batches.load_state_dict(places[self.ranks.rank])
