"""What a training run is at one moment: weights, averages, optimizer, the place in the data; saved and loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import UserError
from ..flow.objectives import Batch
from ..models.joint import JointTransformer
from ..weights.checkpoints import GroupTensors, group_names
from . import posthoc_ema
from .checkpoint import optimizer_room, optimizer_tensors, read_state, restore
from .checkpoint_writing import CheckpointWriter
from .config import RunConfig
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

    def writer(self, folder: Path, settings: RunConfig) -> CheckpointWriter:
        """What saves this run's checkpoints in ``folder``; a context that waits until the last one is on disk.

        Raises:
            UserError: the folder cannot be written to, or has no room for two checkpoints.
        """
        writer = CheckpointWriter(
            folder,
            keep=settings.keep,
            keep_every=settings.keep_every,
            background=settings.async_save,
            retry_seconds=settings.retry_seconds,
            ranks=self.ranks,
        )
        if self.ranks.first and (note := writer.check_room(self.bytes())):
            print(note)
        return writer

    def bytes(self) -> int:
        """About what a checkpoint takes, AdamW's two moments included, also before the first step."""
        whole = [t for group in self._weights().values() for t in group.values()]
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        return sum(t.numel() * t.element_size() for t in [*whole, *trained, *trained])

    def save(self, writer: CheckpointWriter) -> None:
        """Hand a copy of everything to ``writer``. All processes call it.

        Raises:
            UserError: this checkpoint, or the one before, cannot be written.
        """
        tensors = {**self._weights(), "optimizer": optimizer_tensors(self.optimizer, self.model)}
        places = self.ranks.gather(self.batches.state_dict())
        # Where all processes are at the same place, any number of them can go on from it.
        same = all(place == places[0] for place in places)
        guard = self.guard.state_dict()
        place = {**(places[0] if same else {"ranks": places}), **({"guard": guard} if guard else {})}
        writer.save(self.step, tensors, place)

    def load(self, path: Path) -> None:
        """Become what a checkpoint holds, whichever number of processes wrote it. All processes call it.

        Raises:
            UserError: it is of another model or optimizer, or its place in the data is one of another number of
                processes.
        """
        record = read_state(path)
        weights = self._weights()
        if self.averages:
            self.averages.refuse_missing(group_names(record), path)
        restore(path, weights)
        stored = GroupTensors(path, "optimizer", verify=False)
        described = {name: (stored.shape(name), stored.dtype(name)) for name in stored.names}
        restore(path, {"optimizer": optimizer_room(self.optimizer, self.model, described)})
        self.step, state = int(record["step"]), record["state"]
        self.guard.load_state_dict(state.pop("guard", {}))
        places = state.get("ranks", [state] * self.ranks.world)
        if len(places) != self.ranks.world:
            raise UserError(
                f"{path} was written by {len(places)} processes, each with a place of its own in the data; go on with "
                f"as many, not {self.ranks.world}"
            )
        self.batches.load_state_dict(places[self.ranks.rank])

    def _weights(self) -> dict[str, dict[str, Tensor]]:
        return {
            "model": self.model.state_dict(),
            "ema": self.teacher.state_dict(),
            **(self.averages.state() if self.averages else {}),
        }
