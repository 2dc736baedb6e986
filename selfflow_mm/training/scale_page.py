"""The sums of a large run as Markdown, the way docs/scale.md shows them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from ..data.latent_parts import PART
from .data_sums import batch_bytes
from .plan import amount
from .plan_cluster import estimate
from .scale import CHECKPOINT, Scale


def markdown(s: Scale) -> Iterator[str]:
    """All sums, as docs/scale.md shows them."""
    yield from _assumptions(s)
    yield from _data(s)
    yield from _encoding(s)
    yield from _compute(s)
    yield from _bandwidth(s)
    yield from _checkpoints(s)
    yield from _failures(s)


def _assumptions(s: Scale) -> Iterator[str]:
    yield "**Assumed**"
    yield ""
    yield "| name | value | why |"
    yield "|---|---|---|"
    for name, a in s.assumed.items():
        yield f"| `{name}` | {_short(a.value)} {a.unit} | {a.why} |"
    c = s.cluster
    yield f"| `--mfu` | {c.mfu:g} of {c.gpu.flops / 1e12:,.1f} TFLOP/s | [models](models.md) says what counts as work |"
    yield ""


def _data(s: Scale) -> Iterator[str]:
    data = s.plan.data()
    yield "**Data and storage**"
    yield ""
    yield "| | samples | tokens each | tokens | raw each | raw | shards | latents each | latents |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for d in data:
        raw = s.raw_bytes(d)
        shards = math.ceil(d.samples * raw / s["shard"])
        yield (
            f"| {d.name} | {d.samples:,} | {d.tokens:,} | {amount(d.all_tokens)} | {amount(raw)}B | "
            f"{amount(d.samples * raw)}B | {shards:,} | {amount(d.latent_bytes)}B | {amount(d.all_latent_bytes)}B |"
        )
    raw, latents = sum(d.samples * s.raw_bytes(d) for d in data), sum(d.all_latent_bytes for d in data)
    tokens, samples = sum(d.all_tokens for d in data), sum(d.samples for d in data)
    shards = sum(math.ceil(d.samples * s.raw_bytes(d) / s["shard"]) for d in data)
    yield f"| all | {samples:,} | | {amount(tokens)} | | {amount(raw)}B | {shards:,} | | {amount(latents)}B |"
    yield ""
    yield (
        f"Latents in shards of the same size: {amount(latents)}B / {amount(s['shard'])}B = "
        f"{math.ceil(latents / s['shard']):,}; in today's parts of {PART} samples: {samples:,} / {PART} = "
        f"{math.ceil(samples / PART):,} files."
    )
    yield ""
    yield "| | batch | share of steps | drawn | passes | media tokens drawn |"
    yield "|---|---:|---:|---:|---:|---:|"
    for d in data:
        own = [x for x in s.plan.draws if x.source == d.name]
        share = 1.0 if own[0].packed else sum(x.share for x in own)
        batch = _count(d.batch)
        yield (
            f"| {d.name} | {batch} | {share:.0%} | {s.plan.config.run.steps:,} x {share:.2f} x {batch} = "
            f"{d.drawn / 1e6:.1f} M | {d.passes:.2f} | {amount(d.drawn * d.tokens)} |"
        )
    yield ""


def _encoding(s: Scale) -> Iterator[str]:
    data = s.plan.data()
    yield "**Encoding once**"
    yield ""
    for d in data:
        flops = s.encoding_flops(d)
        hours = s.gpu_hours(d.samples * flops, s["encoding"])
        product = f"{d.samples:,} x {amount(flops)}FLOPs = {amount(d.samples * flops)}FLOPs"
        yield f"- {d.name}: {product}, {hours:,.0f} GPU-hours"
    if not any(d.text_bytes for d in data):
        yield ""
        return
    tokens = s.plan.draws[0].text
    captions, drawn = sum(d.samples * d.captions for d in data), sum(d.drawn for d in data)
    one, stored = tokens * s["text"], data[0].text_bytes
    hours, flight = (s.gpu_hours(n * one, s.cluster.mfu) for n in (captions, drawn))
    yield (
        f"- every caption of {tokens} tokens: {captions / 1e6:,.0f} M x {amount(one)}FLOPs, {hours:,.0f} GPU-hours; "
        f"stored, {captions / 1e6:,.0f} M x {amount(stored)}B = {amount(captions * stored)}B"
    )
    yield (
        f"- only those drawn: {drawn / 1e6:,.0f} M, {flight:,.0f} GPU-hours; stored, {amount(drawn * stored)}B; "
        f"encoded in the step instead, nothing stored, {flight / s.estimate.gpu_hours:.1%} on top of training"
    )
    yield ""


def _compute(s: Scale) -> Iterator[str]:
    e, c, plan = s.estimate, s.cluster, s.plan
    yield "**Training**"
    yield ""
    yield "| | tokens | FLOPs a sample | again | samples on a device | seconds | share |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for d in plan.draws:
        yield (
            f"| {d.name} | {d.tokens:,} | {amount(d.flops)} | {amount(d.again)} | {_count(c.samples(d))} of "
            f"{_count(d.batch)} | {c.seconds(d):.2f} | {d.share:.1%} |"
        )
    yield ""
    steps = plan.config.run.steps
    yield f"- mean step {e.step:.3g} s x {steps:,} steps = {e.seconds / 86400:.2f} days"
    yield f"- x {c.count} {c.gpu.name} = **{e.gpu_hours:,.0f} GPU-hours**{_priced(s, e.gpu_hours)}"
    m = e.memory
    yield (
        f"- memory on a device: {amount(m.state)}B of state and gathered weights, {amount(m.activations)}B of "
        f"activations; {amount(m.total)}B of {amount(c.gpu.memory)}B at the fullest moment"
    )
    whole = estimate(plan, replace(c, shard=c.count if c.shard == 1 else 1))
    other = "one that holds a whole copy" if c.shard > 1 else "one of those that share the state (FSDP2)"
    fits = "fits" if whole.fits else "does not fit"
    yield f"- on {other}: {amount(whole.memory.total)}B, which {fits}"
    yield ""


def _bandwidth(s: Scale) -> Iterator[str]:
    c, e, plan = s.cluster, s.estimate, s.plan
    channels = plan.channels
    value = plan.text.values_dtype.itemsize if plan.text else 0
    media = {m: n for m, n in channels.items() if m != "text"}
    mean = sum(d.share * batch_bytes(d, media, value) for d in plan.draws) / e.step
    text = sum(d.share * batch_bytes(d, channels, value) for d in plan.draws) / e.step
    most = max(plan.draws, key=lambda d: batch_bytes(d, media, value) / c.seconds(d))
    peak = batch_bytes(most, media, value) / c.seconds(most)
    drawn = {d.name: d.drawn for d in plan.data()}
    raw = sum(drawn[d.name] * s.raw_bytes(d) for d in plan.data()) / e.seconds
    nodes = c.count / s["node"]
    yield "**The loader, and the network**"
    yield ""
    yield f"- latents: {amount(mean)}B/s in the mean, {amount(mean / nodes)}B/s a machine of {s['node']:g}"
    if not most.packed:  # packed steps are all alike
        yield f"- at most, during {most.source} {most.task}: {amount(peak)}B/s"
    if "text" in channels:
        yield f"- with stored captions: {amount(text)}B/s"
    yield f"- raw media instead: {amount(raw)}B/s, to decode and encode in the step"
    machine = round(s["node"])
    ways = {"copies: gradients reduced": 1}
    if c.count > machine and c.count % machine == 0:
        ways[f"hybrid: shared among the {machine} of a machine, gradients reduced between machines"] = machine
    ways["sharded: weights gathered, gradients reduced"] = c.count
    for how, shard in ways.items():
        sent = estimate(plan, replace(c, shard=shard)).exchanged
        ratio = sent / s["nic"] / e.step
        yield f"- {how}: {amount(sent)}B a device and step, {sent / s['nic']:.2f} s at `nic`, {ratio:.0%} of a step"
    yield ""


def _checkpoints(s: Scale) -> Iterator[str]:
    run, every = s.plan.config.run, s.interval
    product = f"{CHECKPOINT} bytes x {s.plan.parameters:,} parameters = {amount(s.checkpoint_bytes)}B"
    yield "**Checkpoints**"
    yield ""
    yield f"- {product}; {run.keep} are kept"
    yield f"- written in {s.save_seconds:.0f} s at `store` while training waits"
    yield (
        f"- every {run.save_every:,} steps = {every / 60:.0f} minutes: {run.steps // run.save_every} of them, "
        f"{s.save_seconds / every:.1%} of the time"
    )
    yield ""


def _failures(s: Scale) -> Iterator[str]:
    e, every, best = s.estimate, s.interval, s.best_interval
    expected = e.gpu_hours / s["mtbf"]
    lost = (every / 2 + s["restart"]) * s.cluster.count / 3600
    share = s.lost_share(every)
    yield "**Failures**"
    yield ""
    yield (
        f"- {e.gpu_hours:,.0f} GPU-hours / {s['mtbf']:,.0f} = {expected:.2f} expected, one in "
        f"{s.mtbf_seconds / 86400:.1f} days"
    )
    yield (
        f"- each costs half an interval and a restart, {every / 2 / 60:.0f} + {s['restart'] / 60:.0f} minutes x "
        f"{s.cluster.count} GPUs = {lost:,.0f} GPU-hours"
    )
    yield (
        f"- saving and failures together: {share:.1%} of the time, {share * e.gpu_hours:,.0f} GPU-hours"
        f"{_priced(s, share * e.gpu_hours)}"
    )
    yield (
        f"- least at sqrt(2 x {s.save_seconds:.0f} s x {s.mtbf_seconds / 3600:.0f} h) = {best / 3600:.1f} hours "
        f"({best / e.step:,.0f} steps): {s.lost_share(best):.1%}"
    )


def _priced(s: Scale, hours: float) -> str:
    return "" if s.cluster.price is None else f", {hours * s.cluster.price:,.0f} at {s.cluster.price:g} an hour"


def _count(samples: float) -> str:
    return f"{samples:,.0f}" if samples == round(samples) else f"{samples:,.4g}"


def _short(value: float) -> str:
    return f"{value:,.4g}" if value < 1e4 else amount(value).strip()
