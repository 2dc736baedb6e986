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
    """What ``plan`` takes on ``cluster``, which is laid out as its devices share the work (:func:`laid_out`)."""
    memories = {d.name: plan.memory(d, cluster.ranks) for d in (plan.draws[:1] if _packs(plan) else plan.draws)}
    fullest = max((d for d in plan.draws if d.name in memories), key=lambda d: memories[d.name].total)
    memory = memories[fullest.name]
    if cluster.shard > 1:
        memory = sharded(memory, cluster.shard, _gathered(plan))
    objective, depth = plan.config.objective, plan.model.depth
    teacher = objective.layers(depth)[1] / depth if objective.method.target == "teacher" else 0.0
    step = cluster.mean_seconds(plan.draws)
    if _packs(plan):
        step = cluster.working_seconds(plan.packed(cluster.ranks).slowest)
    return Estimate(
        fullest,
        memory,
        step,
        step * plan.config.run.steps,
        cluster.end_of_step_seconds(plan.parameters),
        cluster.exchanged_bytes(plan.parameters, plan.dtype.itemsize, teacher, plan.config.run.accumulate),
        cluster,
    )


def laid_out(plan: Plan, cluster: Cluster) -> Cluster:
    """``cluster`` with its devices grouped as the run's settings say.

    Raises:
        UserError: the run would refuse so many processes.
    """
    found = cluster.laid_out(plan.config.parallel)
    plan.refuse_uneven(found.ranks)
    return found


def cluster_lines(plan: Plan, cluster: Cluster) -> Iterator[str]:
    """The estimate in words."""
    cluster = laid_out(plan, cluster)
    e, gpu = estimate(plan, cluster), cluster.gpu
    yield (
        f"On {cluster.count} x {gpu.name} ({gpu.flops / 1e12:,.0f} TFLOP/s of dense bfloat16, {gpu.memory / 1e9:.0f} "
        f"GB, {gpu.bandwidth / 1e12:.2f} TB/s each; {gpu.source}), all of it an estimate:"
    )
    yield f"  Shared: {_sharing(cluster)}"
    yield from _memory_lines(plan, e)
    assumed = ", the default" if cluster.mfu == MFU else ""
    yield f"  Step: {e.step:.3g} s in the mean, at an assumed {cluster.mfu:.0%} of the peak{assumed}"
    if _packs(plan):
        waiting = 1 - cluster.mean_seconds(plan.draws) / e.step
        yield (
            f"    {plan.config.data.pack:,} tokens at most, {plan.packed(cluster.ranks).row:,} in the longest row; "
            f"{waiting:.1%} of the seconds are waiting, for rows are alike in tokens and not in work"
        )
    for d in plan.draws:
        samples = cluster.samples(d)
        again = f", {amount(samples * d.again / cluster.context)}FLOPs of it recomputation" if d.again else ""
        where = "a device" if cluster.context == 1 else f"{cluster.context} devices"
        yield (
            f"    {'' if d.packed else f'{d.share:.1%} '}{d.name}: {samples:.4g} of {d.batch:.4g} samples on {where}, "
            f"{amount(samples * (d.flops + d.again) / cluster.context)}FLOPs on each{again}, {cluster.seconds(d):.3g} s"
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


def _packs(plan: Plan) -> bool:
    return plan.config.data.pack > 0


def _sharing(cluster: Cluster) -> str:
    """What the settings of ``parallel`` make of the devices."""
    if cluster.shard == 1:
        state = "a copy of the state on each (parallel.shard=1)"
    elif cluster.copies == 1:
        state = f"one copy of the state among all {cluster.shard} (parallel.shard=0, FSDP2)"
    else:
        state = f"{cluster.copies} copies of the state, each among {cluster.shard} (hybrid, FSDP2)"
    tokens = f"; each sample among {cluster.context} (parallel.context)" if cluster.context > 1 else ""
    return f"{state}; every step in {cluster.ranks.shares} parts{tokens}"


def _memory_lines(plan: Plan, e: Estimate) -> Iterator[str]:
    m, cluster = e.memory, e.cluster
    rows, tokens = plan.pass_of(e.fullest, cluster.ranks)
    how = f"1/{cluster.shard} of the state each" if cluster.shard > 1 else "a whole copy each"
    copies = "gathered weights" if cluster.shard > 1 else "bfloat16 copies"
    what = f"a row of {tokens:,} tokens" if e.fullest.packed else f"{rows} samples of {e.fullest.task}"
    if cluster.context > 1:
        what += f", of whose tokens a device has 1/{cluster.context}"
    yield (
        f"  Memory per device ({how}): {size(m.state - m.casts)} weights, gradients, AdamW and EMA, {size(m.casts)} "
        f"{copies}, {size(m.activations)} activations"
    )
    verdict = "fits" if e.fits else "does not fit"
    yield (
        f"    of {what}; at the fullest moment {size(m.total)}, {verdict} into "
        f"{size(cluster.gpu.memory)} (without tokenizers, encoders, libraries and the allocator's waste)"
    )


def _caveats(plan: Plan, e: Estimate) -> Iterator[str]:
    if _packs(plan) and plan.config.run.attention == "sdpa":
        yield (
            "  note: run.attention=sdpa computes all pairs of a row and keeps a mask of them in every block; varlen "
            "and flex do not, and the seconds above are theirs"
        )
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
    root = plan.parameters - sum(counts[name] for name in (*blocks, "projector"))
    return gathered_bytes(root, largest, plan.dtype.itemsize)


def _duration(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.3g} hours" if hours < 48 else f"{hours / 24:.3g} days"
