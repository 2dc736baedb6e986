"""What a large run takes beside its steps: storage, shards, encoding, bandwidth, checkpoints, failures; sum by sum.

Everything that the config and the device's data sheet do not say is an :class:`Assumption`, printed with its reason, so
that docs/scale.md can be made again, and for another config or other assumptions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..errors import UserError
from .cluster import Cluster
from .config import TrainConfig
from .data_sums import DataSums
from .plan import Plan, make_plan
from .plan_cluster import Estimate, estimate, laid_out

#: Bytes per parameter in a checkpoint: weights, EMA and two moments, all float32.
CHECKPOINT = 16


@dataclass(frozen=True)
class Assumption:
    """A number that is neither published nor counted, its unit, and why it is what it is."""

    value: float
    unit: str
    why: str


ASSUMPTIONS: dict[str, Assumption] = {
    "png": Assumption(0.6, "of 3 bytes a pixel", "prepared pictures are PNG; a photograph's share, not measured"),
    "h264": Assumption(0.15, "bits a pixel", "prepared clips are H.264; not measured"),
    "aac": Assumption(128e3, "bits/s", "their sound is AAC"),
    "shard": Assumption(1e9, "bytes", "a usual size of WebDataset tars"),
    "flux2": Assumption(1.119e12, "FLOPs a picture of 512 x 512", "benchmarks/encoder_flops.py"),
    "wan2.2": Assumption(40.86e12, "FLOPs a clip of 45 x 384 x 672", "benchmarks/encoder_flops.py"),
    "text": Assumption(9.261e9, "FLOPs a token", "T5 v1.1 XXL's encoder, benchmarks/encoder_flops.py"),
    "encoding": Assumption(0.2, "of the peak", "convolutions and short passes; not measured"),
    "node": Assumption(8, "GPUs a machine", "HGX and DGX boards"),
    "nic": Assumption(50e9, "bytes/s a GPU", "one port of 400 Gb/s each, as Llama 3 had (arXiv 2407.21783)"),
    "store": Assumption(2e9, "bytes/s", "one writer to a shared file system"),
    "mtbf": Assumption(
        16_384 * 54 * 24 / 419,
        "GPU-hours a failure",
        "Llama 3: 419 in 54 days on 16,384 H100 (arXiv 2407.21783)",
    ),
    "restart": Assumption(900, "s", "noticing, another machine, loading; not measured"),
}


@dataclass(frozen=True)
class Scale:
    """A plan, its estimate on a cluster, and the assumptions they are summed with."""

    plan: Plan
    estimate: Estimate
    assumed: Mapping[str, Assumption]

    def __getitem__(self, name: str) -> float:
        return self.assumed[name].value

    @property
    def cluster(self) -> Cluster:
        return self.estimate.cluster

    def raw_bytes(self, data: DataSums) -> float:
        """Of a sample before encoding: PNG, H.264, AAC."""
        source = self.plan.config.data.sources[data.name]
        shape = source.expects
        pixels = shape.height * shape.width
        still = pixels * 3 * self["png"] if "image" in data.sizes else 0.0
        film = pixels * shape.frames * self["h264"] / 8 if "video" in data.sizes else 0.0
        sound = shape.seconds * self["aac"] / 8 if "audio" in data.sizes else 0.0
        return still + film + sound

    def encoding_flops(self, data: DataSums) -> float:
        """Of a sample's pictures; sound is not counted. In proportion to pixels where sizes differ from the counted."""
        shape = self.plan.config.data.sources[data.name].expects
        pixels = shape.height * shape.width
        still = self["flux2"] * pixels / 512**2 if "image" in data.sizes else 0.0
        return still + (self["wan2.2"] * pixels * shape.frames / (45 * 384 * 672) if "video" in data.sizes else 0.0)

    def gpu_hours(self, flops: float, share: float) -> float:
        """Of so much work at ``share`` of the device's peak."""
        return flops / (self.cluster.gpu.flops * share) / 3600

    @property
    def checkpoint_bytes(self) -> int:
        return CHECKPOINT * self.plan.parameters

    @property
    def save_seconds(self) -> float:
        """One checkpoint, by one writer; training waits."""
        return self.checkpoint_bytes / self["store"]

    @property
    def interval(self) -> float:
        """Seconds between two checkpoints of the config."""
        return self.plan.config.run.save_every * self.estimate.step

    @property
    def mtbf_seconds(self) -> float:
        """Between two failures of the whole cluster."""
        return self["mtbf"] * 3600 / self.cluster.count

    @property
    def best_interval(self) -> float:
        """Seconds between checkpoints that cost least: sqrt(2 x save x MTBF) (Young 1974)."""
        return math.sqrt(2 * self.save_seconds * self.mtbf_seconds)

    def lost_share(self, interval: float) -> float:
        """Of the run's time: saving, and for each failure half an interval and a restart."""
        return self.save_seconds / interval + (interval / 2 + self["restart"]) / self.mtbf_seconds


def scale(config: TrainConfig, cluster: Cluster, changes: Mapping[str, float] | None = None) -> Scale:
    """The sums of a run.

    Args:
        config: of the run; every source says how many samples it ``expects``.
        cluster: what it runs on.
        changes: name -> value of assumptions that differ.

    Raises:
        UserError: an assumption that there is not, or a source that does not say what it holds.
    """
    assumed = dict(ASSUMPTIONS)
    for name, value in (changes or {}).items():
        if name not in assumed:
            raise UserError(f"there is no assumption '{name}'; there are {', '.join(assumed)}")
        if not value > 0:
            raise UserError(f"the assumption {name} must be positive, got {value}")
        assumed[name] = replace(assumed[name], value=value)
    plan = make_plan(config, for_gpu=True)
    empty = [d.name for d in plan.data() if not d.samples]
    if empty or not config.data.sources:
        where = f"data.sources.{empty[0]}.expects.samples" if empty else "data.sources"
        raise UserError(f"{where} says nothing, so there is nothing to sum")
    return Scale(plan, estimate(plan, laid_out(plan, cluster)), assumed)
