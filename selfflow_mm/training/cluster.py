"""A run on so many GPUs: seconds of a step, hours, cost, and what moves between devices. Estimates, and said so.

Time is arithmetic: FLOPs over peak x MFU x devices, with the devices' samples rounded up, for the fullest sets the
pace. MFU is an assumption: it stands for everything that keeps a device from its peak, communication and optimizer
included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError
from .gpus import Gpu
from .memory import FLOAT32
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
        shard: weights, gradients, moments and EMA shared among the devices instead of held by each.
    """

    gpu: Gpu
    count: int = 1
    mfu: float = MFU
    price: float | None = None
    shard: bool = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"gpus is at least 1, got {self.count}")
        if not 0 < self.mfu <= 1:
            raise UserError(f"mfu is a share of the peak in (0, 1], got {self.mfu}")
        if self.price is not None and self.price < 0:
            raise UserError(f"price is of a GPU for an hour and cannot be negative, got {self.price}")

    def samples(self, batch: int) -> int:
        """Of a batch, on the fullest device."""
        return -(-batch // self.count)

    def seconds(self, draw: Draw) -> float:
        """Of a step on this kind of batch, recomputation included."""
        return self.samples(draw.batch) * (draw.flops + draw.again) / (self.gpu.flops * self.mfu)

    def mean_seconds(self, draws: Sequence[Draw]) -> float:
        """Of a step, in the mean over the batches that are drawn."""
        return sum(draw.share * self.seconds(draw) for draw in draws)

    def end_of_step_seconds(self, parameters: int) -> float:
        """Clipping, AdamW and EMA at the full rate of a device's memory: they cannot take less."""
        held = parameters / self.count if self.shard else parameters
        return END_OF_STEP * held / self.gpu.bandwidth

    def exchanged_bytes(self, parameters: int, bytes_per_value: int, teacher: float) -> float:
        """What each device sends in a step, by rings.

        Copies: the float32 gradients, reduced and given to all. Sharded: weights gathered for the student's two passes
        and for ``teacher`` of a pass (the share of its blocks that run), gradients reduced in float32.

        Args:
            parameters: of the model.
            bytes_per_value: in which weights are gathered.
            teacher: k over the depth, or 0 without a teacher.
        """
        away = (self.count - 1) / self.count
        if self.shard:
            return away * parameters * ((2 + teacher) * bytes_per_value + FLOAT32)
        return away * parameters * 2 * FLOAT32
