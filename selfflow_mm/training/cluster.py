"""A run on so many GPUs: seconds of a step, hours, cost, and what moves between devices. Estimates, and said so.

Time is arithmetic: FLOPs over peak x MFU x devices, with the devices' samples rounded up, for the fullest sets the
pace. MFU is an assumption: it stands for everything that keeps a device from its peak, communication and optimizer
included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import UserError
from .config import ParallelConfig, TrainConfig
from .gpus import Gpu
from .memory import FLOAT32
from .ranks import Ranks, refuse_context
from .sharding import group_size
from .workload import Draw

#: Of the peak, where the user states none. Verified figures: 36 to 38 % for transformers like ours at scale, 22 % for
#: a full fine-tune of Qwen-Image on four H200.
MFU = 0.35
#: Bytes per parameter that the end of a step moves through a device's memory: the norm of gradients reads 4 and scaling
#: them moves 8, AdamW reads 16 (weight, gradient, two moments) and writes 12, the EMA reads 8 and writes 4.
END_OF_STEP = 52


@dataclass(frozen=True)
class Cluster:
    """What a run is planned for.

    Attributes:
        gpu: the device.
        count: of them.
        mfu: share of the peak that a step reaches.
        price: of one GPU for one hour, in any currency; None prices nothing.
        shard: devices that keep one copy of weights, gradients, moments and EMA among them; 1: each keeps its own.
        context: devices that share the tokens of each sample.
    """

    gpu: Gpu
    count: int = 1
    mfu: float = MFU
    price: float | None = None
    shard: int = 1
    context: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"gpus is at least 1, got {self.count}")
        if not 0 < self.mfu <= 1:
            raise UserError(f"mfu is a share of the peak in (0, 1], got {self.mfu}")
        if self.price is not None and self.price < 0:
            raise UserError(f"price is of a GPU for an hour and cannot be negative, got {self.price}")
        group_size(self.shard, self.count)
        refuse_context(self.context, self.count)

    def laid_out(self, parallel: ParallelConfig) -> Cluster:
        """This cluster, shared as a run's settings say.

        Raises:
            UserError: the devices cannot be grouped so.
        """
        return replace(self, shard=group_size(parallel.shard, self.count), context=parallel.context)

    @property
    def ranks(self) -> Ranks:
        """The first of as many processes."""
        return Ranks(0, self.count, self.context)

    @property
    def copies(self) -> int:
        """Of the model, on all devices."""
        return self.count // self.shard

    def samples(self, draw: Draw) -> float:
        """Of a step, on the fullest device and those that share them with it; in the mean of packed steps."""
        each = draw.batch / self.ranks.shares
        return each if draw.packed else math.ceil(each)

    def seconds(self, draw: Draw) -> float:
        """Of a step on this kind of batch (or for this kind of samples of a packed one), recomputation included."""
        return self.working_seconds(self.samples(draw) * (draw.flops + draw.again))

    def working_seconds(self, flops: float) -> float:
        """Of so much work on the devices that share samples."""
        return flops / self.context / (self.gpu.flops * self.mfu)

    def mean_seconds(self, draws: Sequence[Draw]) -> float:
        """Of a step, in the mean over the batches that are drawn."""
        return sum(draw.share * self.seconds(draw) for draw in draws)

    def end_of_step_seconds(self, parameters: int) -> float:
        """Clipping, AdamW and EMA at the full rate of a device's memory: they cannot take less."""
        return END_OF_STEP * parameters / self.shard / self.gpu.bandwidth

    def exchanged_bytes(self, parameters: int, bytes_per_value: int, teacher: float, passes: int = 1) -> float:
        """What each device sends of weights and gradients in a step, by rings.

        Within a group that shares a copy, in each pass: weights gathered for the student's forward and backward pass
        and for ``teacher`` of a pass (the share of its blocks that run), gradients reduced in float32. Between copies:
        a device's part of the float32 gradients, reduced and given to all; once a step where every device has a copy,
        else in each pass.

        Args:
            parameters: of the model.
            bytes_per_value: in which weights are gathered.
            teacher: k over the depth, or 0 without a teacher.
            passes: of a step (``run.accumulate``).
        """
        within, between = (self.shard - 1) / self.shard, (self.copies - 1) / self.copies
        gathered = within * parameters * ((2 + teacher) * bytes_per_value + FLOAT32)
        averaged = between * parameters / self.shard * 2 * FLOAT32
        return passes * gathered + (averaged if self.shard == 1 else passes * averaged)


def shared_by_all(config: TrainConfig) -> TrainConfig:
    """``config`` with one copy of the state among all devices, where it says nothing else; what ``--shard`` is for.

    Raises:
        UserError: it shares in groups.
    """
    if config.parallel.shard > 1:
        raise UserError(
            f"--shard stands for parallel.shard=0, and parallel.shard is {config.parallel.shard}; leave one of them out"
        )
    return replace(config, parallel=replace(config.parallel, shard=0))
