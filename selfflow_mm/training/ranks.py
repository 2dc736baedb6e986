"""Several processes that train one model: each has a share of every batch, and all take the mean of the gradients.

Started by ``torchrun --nproc-per-node N``; a single process is the case N = 1 and communicates nothing. The randomness
of a sample is a function of its id, so N processes take the step that one would, up to the order of summation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError


@dataclass(frozen=True)
class Ranks:
    """Which of ``world`` processes this is, counted from 0. Rank 0 alone writes files.

    Attributes:
        context: neighbouring processes that work on the same samples, each on a part of their tokens
            (:mod:`.context`); there are ``shares = world / context`` such groups.
    """

    rank: int = 0
    world: int = 1
    context: int = 1

    @property
    def shares(self) -> int:
        """Parts that a batch is shared in."""
        return self.world // self.context

    @property
    def share_index(self) -> int:
        """Which part is this process's."""
        return self.rank // self.context

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> int:
        """This process's part of ``count`` samples.

        Raises:
            UserError: they cannot be shared evenly; shares of different sizes would weigh samples differently.
        """
        if count % self.shares:
            raise UserError(f"a batch of {count} cannot be shared by {self.shares} processes; take a multiple")
        return count // self.shares

    def part(self, items: list[Any]) -> list[Any]:
        """This process's part of a batch, see :meth:`share`."""
        share = self.share(len(items))
        return items[self.share_index * share : (self.share_index + 1) * share]

    @torch.no_grad()
    def mean_gradients(self, model: nn.Module) -> None:
        """Every gradient of ``model`` becomes its mean over the processes."""
        if self.world == 1:
            return
        # All processes train the same task at a step, so the same parameters have a gradient in all of them.
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self.world
        for g, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            g.copy_(mean.view_as(g))

    def mean(self, report: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Means of scalars over the processes, which must all have the same names."""
        if self.world == 1 or not report:
            return dict(report)
        stacked = torch.stack([value.float() for value in report.values()])
        torch.distributed.all_reduce(stacked)
        return dict(zip(report, stacked / self.world, strict=True))

    def sum(self, report: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums of scalars over the parts of a batch (not over processes that share a part), all with the same names."""
        return {name: value * self.shares for name, value in self.mean(report).items()}

    def any(self, flag: bool, device: torch.device) -> bool:
        """Is it so in any process?"""
        if self.world == 1:
            return flag
        asked = torch.tensor([float(flag)], device=device)
        torch.distributed.all_reduce(asked)
        return bool(asked.item() > 0)

    def gather(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        """Plain values (JSON) of all processes, in their order."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, value)
        return found

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Something that the first process does before the others do it."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            torch.distributed.barrier()


def is_first() -> bool:
    """Is this the first process, or the only one? Known before they are joined and after they have parted."""
    return int(os.environ.get("RANK", "0")) == 0


#: The only process there is.
ONE = Ranks()


def refuse_context(context: int, world: int) -> None:
    """Processes can be grouped by the samples they share.

    Raises:
        UserError: they cannot.
    """
    if world % context:
        raise UserError(f"parallel.context is {context}, which does not divide the {world} processes of this run")


@contextmanager
def joined(context: int = 1) -> Iterator[Ranks]:
    """The ranks that torchrun started, or the only one there is.

    Args:
        context: see :class:`Ranks`.

    Raises:
        UserError: the processes cannot be grouped so.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    refuse_context(context, world)
    if world == 1:
        yield Ranks()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # Long, because the others wait while the first measures and encodes a data set; torchrun ends those left behind.
    # Gloo beside NCCL: checkpoints in the background and small sums on the host go by it.
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    torch.distributed.init_process_group(backend, timeout=timedelta(days=1))
    try:
        yield Ranks(torch.distributed.get_rank(), world, context)
    finally:
        torch.distributed.destroy_process_group()
