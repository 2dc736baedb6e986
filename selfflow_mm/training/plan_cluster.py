"""The dry run's part on GPUs that are not here: memory per device, time, cost, what moves; and what is only planned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .cluster import MFU, Cluster
from .memory import TrainingMemory, gathered_bytes, sharded
from .plan import Plan, amount, size
from .workload import Draw

#: A step's end (or exchange) that takes more than this share of it is remarked on.
_MUCH = 0.2


@dataclass(frozen=True)
class Estimate:
    """A plan on a cluster, in numbers.

    Attributes:
        fullest: the batch whose activations take most on a device.
        memory: of a device, on that batch.
        step: mean seconds.
        seconds: of the whole run.
        end_of_step: seconds that clipping, AdamW and EMA cannot fall below.
        exchanged: bytes that a device sends in a step.
    """

    fullest: Draw
    memory: TrainingMemory
    step: float
    seconds: float
    end_of_step: float
    exchanged: float
    cluster: Cluster

    @property
    def gpu_hours(self) -> float:
        return self.seconds * self.cluster.count / 3600

    @property
    def cost(self) -> float | None:
        return None if self.cluster.price is None else self.gpu_hours * self.cluster.price

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.cluster.gpu.memory


def estimate(plan: Plan, cluster: Cluster) -> Estimate:
    """What ``plan`` takes on ``cluster``."""
    fullest = max(plan.draws, key=lambda d: cluster.samples(d.batch) * d.tokens)
    memory = plan.memory(fullest, cluster.samples(fullest.batch))
    if cluster.shard:
        memory = sharded(memory, cluster.count, _gathered(plan))
    objective, depth = plan.config.objective, plan.model.depth
    teacher = objective.layers(depth)[1] / depth if objective.method.target == "teacher" else 0.0
    step = cluster.mean_seconds(plan.draws)
    return Estimate(
        fullest,
        memory,
        step,
        step * plan.config.run.steps,
        cluster.end_of_step_seconds(plan.parameters),
        cluster.exchanged_bytes(plan.parameters, plan.dtype.itemsize, teacher),
        cluster,
    )


def cluster_lines(plan: Plan, cluster: Cluster) -> Iterator[str]:
    """The estimate in words."""
    e, gpu = estimate(plan, cluster), cluster.gpu
    yield (
        f"On {cluster.count} x {gpu.name} ({gpu.flops / 1e12:,.0f} TFLOP/s of dense bfloat16, {gpu.memory / 1e9:.0f} "
        f"GB, {gpu.bandwidth / 1e12:.2f} TB/s each; {gpu.source}), all of it an estimate:"
    )
    yield from _memory_lines(e)
    assumed = ", the default" if cluster.mfu == MFU else ""
    yield f"  Step: {e.step:.3g} s in the mean, at an assumed {cluster.mfu:.0%} of the peak{assumed}"
    for d in plan.draws:
        again = f", {amount(cluster.samples(d.batch) * d.again)}FLOPs of it recomputation" if d.again else ""
        yield (
            f"    {d.share:.1%} {d.name}: {cluster.samples(d.batch)} of {d.batch} samples on a device, "
            f"{amount(cluster.samples(d.batch) * (d.flops + d.again))}FLOPs there{again}, {cluster.seconds(d):.3g} s"
        )
    yield f"  Run: {plan.config.run.steps:,} steps, {_duration(e.seconds)}, {e.gpu_hours:,.0f} GPU-hours"
    if e.cost is None:
        yield "  Cost: give --price, that of one GPU for one hour"
    else:
        yield f"  Cost: {e.gpu_hours:,.0f} GPU-hours x {cluster.price:g} = {e.cost:,.0f}"
    yield (
        f"  Moved in each step: at least {1e3 * e.end_of_step:.3g} ms of reading and writing for clipping, AdamW and "
        f"EMA; {amount(e.exchanged)}B sent by each device{_links(e)}"
    )
    yield from _caveats(plan, e)


def _links(e: Estimate) -> str:
    """How long sending takes at best: over the links within a machine, half of whose rate goes out."""
    if not e.exchanged:
        return ""
    return f", at least {1e3 * e.exchanged / (e.cluster.gpu.links / 2):.3g} ms within one machine and more between them"


def _memory_lines(e: Estimate) -> Iterator[str]:
    m, cluster = e.memory, e.cluster
    how = f"a {cluster.count}th of the state each" if cluster.shard and cluster.count > 1 else "a whole copy each"
    copies = "gathered weights" if cluster.shard else "bfloat16 copies"
    yield (
        f"  Memory per device ({how}): {size(m.state - m.casts)} weights, gradients, AdamW and EMA, {size(m.casts)} "
        f"{copies}, {size(m.activations)} activations"
    )
    verdict = "fits" if e.fits else "does not fit"
    yield (
        f"    of {cluster.samples(e.fullest.batch)} samples of {e.fullest.task}: {size(m.total)}, {verdict} into "
        f"{size(cluster.gpu.memory)} (without tokenizers, encoders, libraries and the allocator's waste)"
    )


def _caveats(plan: Plan, e: Estimate) -> Iterator[str]:
    cluster = e.cluster
    uneven = sorted({d.batch for d in plan.draws if d.batch % cluster.count})
    if uneven:
        which = ", ".join(map(str, uneven))
        yield f"  note: batches of {which} do not divide by {cluster.count}; the fullest device sets the pace"
    if e.end_of_step > _MUCH * e.step:
        yield "  note: moving the weights takes a large part of a step; larger batches or fewer GPUs use them better"


def _gathered(plan: Plan) -> int:
    """What FSDP2 holds whole at a time."""
    config, counts = plan.config, plan.counts
    if config.imagenet:
        blocks = {"blocks": config.imagenet.depth}
    else:
        blocks = {"double_blocks": config.model.double_blocks, "single_blocks": config.model.single_blocks}
    largest = max(counts[name] // number for name, number in blocks.items() if number)
    outside = plan.parameters - sum(counts[name] for name in blocks)
    return gathered_bytes(outside, largest, plan.dtype.itemsize)


def _duration(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.3g} hours" if hours < 48 else f"{hours / 24:.3g} days"
