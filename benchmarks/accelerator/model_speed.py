"""How close the models come to one accelerator's limit, in commands of under ten minutes.

    python benchmarks/accelerator/model_speed.py --out OUT                 # everything that fits into --minutes
    python benchmarks/accelerator/model_speed.py --out OUT --jobs train-4b,steps-4b
    python benchmarks/accelerator/model_speed.py --dry                     # all of it at toy size on a CPU

Jobs, in this order:

    train-675m   MFU of Self-Flow training steps (student, EMA teacher up to block k, clipping, AdamW, EMA; bfloat16)
    train-4b     the same for 4b
    steps-4b     twenty real training steps of 4b from its own initialisation, and one sample
    sample-xl2   images per second of XL/2: compiled with a modulation per level, against one per token uncompiled
    attention    the attention backends on packed rows, forward and backward

MFU divides the model's operations (``selfflow_mm/models/flops.py``; nothing for recomputation or the optimizer) by the
rate of large bfloat16 matrix products, measured in the same run before and after every job; the best of them counts.
A job is begun only while time is left for it; what was skipped is said. Results are written after every job, so a run
that is cut off leaves what it found: ``model_speed.json`` and ``model_speed.md`` in OUT.

Data are random latents: speed does not depend on what they show.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # read when torch first allocates

import torch
from torch import nn
from torch._dynamo import config as dynamo

from selfflow_mm.bench.forms import EXPANDED, GROUPED, Expanded
from selfflow_mm.bench.jobs import Sample, Training
from selfflow_mm.bench.memory import gigabytes, measure
from selfflow_mm.bench.model import MODALITY, Shape, Subject, build
from selfflow_mm.bench.rate import Rate, better, matrix_rate
from selfflow_mm.bench.report import machine
from selfflow_mm.bench.timing import in_turns, once
from selfflow_mm.models.attention import BACKENDS, Pattern, attention
from selfflow_mm.models.imagenet import IMAGENET_XL_2, ImageNetConfig
from selfflow_mm.models.joint import JointConfig
from selfflow_mm.models.presets import preset
from selfflow_mm.randomness import Randomness
from selfflow_mm.training.recompute import BLOCK_LISTS

#: Seconds a job may take on one H200, compiling included; a job is begun only while so many are left.
NEEDS = {"train-675m": 90, "train-4b": 120, "steps-4b": 90, "sample-xl2": 100, "attention": 45}
AIMS = {"train-675m": 0.50, "train-4b": 0.55, "sample-xl2": 2.0}


@dataclass(frozen=True)
class Trial:
    """Samples per step, and whether blocks recompute themselves; written ``96`` or ``96r``."""

    batch: int
    recompute: bool

    @classmethod
    def parse(cls, text: str) -> list[Trial]:
        return [cls(int(word.removesuffix("r")), word.endswith("r")) for word in text.split(",") if word]

    def __str__(self) -> str:
        return f"batch {self.batch}{', recompute' if self.recompute else ''}"


@dataclass
class Finding:
    """One line of the table.

    Attributes:
        job: which.
        setting: what was varied.
        value: the figure; None where there is none.
        unit: of the figure.
        note: what else is worth knowing, or why there is no figure.
        flops_per_second: of the model, where the figure is an MFU.
    """

    job: str
    setting: str
    value: float | None
    unit: str
    note: str = ""
    flops_per_second: float = 0.0


class Bench:
    """Settings, the clock, what was found so far, and the best matrix rate seen."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device = args, torch.device("cpu" if args.dry else "cuda")
        self.dtype = torch.bfloat16
        self.started, self.findings, self.skipped = time.monotonic(), [], []
        self.rate: Rate | None = None

    @property
    def left(self) -> float:
        """Seconds."""
        return 60 * self.args.minutes - (time.monotonic() - self.started)

    def run(self) -> None:
        for name in self.args.jobs:
            if not self.args.dry and self.left < NEEDS[name]:
                self.skipped.append(f"{name}: {self.left:.0f} s were left")
                continue
            self.look_at_rate()
            for finding in _guarded(name, JOBS[name](self)):
                self.findings.append(finding)
                print(f"[{time.monotonic() - self.started:5.0f} s] {line(finding)}", flush=True)
                self.write()
            clean()
        self.look_at_rate()
        self.write()
        print(self.table())

    def look_at_rate(self) -> None:
        sizes = (64,) if self.args.dry else ()
        rate = matrix_rate(self.device, torch.float32 if self.args.dry else self.dtype, sizes)
        self.rate = rate if self.rate is None else better(self.rate, rate)

    def write(self) -> None:
        out: Path = self.args.out
        out.mkdir(parents=True, exist_ok=True)
        data = {
            "machine": machine(self.device),
            "rate": asdict(self.rate) if self.rate else None,
            "findings": [asdict(f) for f in self.findings],
            "aims": {name: self.aim(name) for name in AIMS},
            "skipped": self.skipped,
            "seconds": round(time.monotonic() - self.started, 1),
            "dry": self.args.dry,
        }
        (out / "model_speed.json").write_text(json.dumps(data, indent=1) + "\n")
        (out / "model_speed.md").write_text(self.table() + "\n")

    def aim(self, job: str) -> dict[str, Any]:
        """The best figure of a job beside what was hoped for."""
        unit = "MFU" if job.startswith("train") else "times the per-token uncompiled path"
        best = max((self.value(f) for f in self.findings if f.job == job and f.unit == unit and f.value), default=None)
        return {"aim": AIMS[job], "unit": unit, "best": best, "reached": None if best is None else best >= AIMS[job]}

    def value(self, finding: Finding) -> float:
        """MFU is held against the best rate of the whole run."""
        if finding.flops_per_second and self.rate:
            finding.value = finding.flops_per_second / self.rate.flops
        return finding.value or 0.0

    def table(self) -> str:
        m, rate = machine(self.device), self.rate
        lines = [f"    {m['command']}", "", f"{m['device']}, {m['cpu']}, torch {m['torch']}, {m['date']}"]
        if rate:
            lines[-1] += f"; matrix rate {rate.flops / 1e12:.4g} TFLOP/s ({rate.dtype}, {rate.edge} x {rate.edge})"
        lines += ["", "| job | setting | figure | |", "|---|---|---:|---|"]
        for f in self.findings:
            self.value(f)
            lines.append(f"| {f.job} | {f.setting} | {figure(f)} | {f.note} |")
        lines += ["", "| aim | wanted | best | reached |", "|---|---:|---:|---|"]
        for name in AIMS:
            a = self.aim(name)
            wanted, best = (f"{v:.1%}" if a["unit"] == "MFU" else f"{v:.3g}" for v in (a["aim"], a["best"] or 0.0))
            lines.append(f"| {name}, {a['unit']} | {wanted} | {best if a['best'] else 'no figure'} | {a['reached']} |")
        lines += [""] + [f"Skipped: {text}" for text in self.skipped]
        if self.args.dry:
            lines.append("A dry run at toy size: the figures say nothing.")
        return "\n".join(lines).rstrip()


def figure(f: Finding) -> str:
    if f.value is None:
        return "-"
    return f"{f.value:.1%} MFU" if f.unit == "MFU" else f"{f.value:.4g} {f.unit}"


def line(f: Finding) -> str:
    return f"{f.job:12} {f.setting:42} {figure(f):>20}  {f.note}"


def _guarded(name: str, job: Iterator[Finding]) -> Iterator[Finding]:
    """A job that fails is a line of the table, and the next job is begun."""
    try:
        yield from job
    except torch.OutOfMemoryError:
        yield Finding(name, "", None, "", "out of memory")
    except Exception as error:  # noqa: BLE001 - minutes of the machine are left for the other jobs
        yield Finding(name, "", None, "", f"failed: {type(error).__name__}: {str(error).strip().splitlines()[:1]}")


def clean() -> None:
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def joint_shape(bench: Bench, name: str) -> Shape:
    args = bench.args
    if args.dry:
        small = JointConfig(
            width=32, heads=2, double_blocks=1, single_blocks=2, mlp_ratio=2, rope_axes=(8, 4, 4, 0),
            modalities={MODALITY: 6}, text_channels=7,
        )  # fmt: skip
        return Shape(small, 9, 3)
    return Shape(preset(name), args.tokens, args.text_tokens)


def compiled(bench: Bench, training: Training) -> None:
    """Compile student and teacher block by block: one block's kernels serve all of its kind, so it takes seconds."""
    if bench.args.compile != "blocks":
        return
    for model in (training.subject.model, training.teacher):
        for block in blocks_of(model):
            block.compile(fullgraph=True, dynamic=False, backend=bench.args.backend)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    holder = getattr(model, "net", model)
    return [block for name, child in holder.named_children() if name in BLOCK_LISTS for block in child.children()]


def whole(bench: Bench) -> Callable[[Any], Any]:
    """What makes a network the one that is called."""
    if bench.args.compile != "whole":
        return lambda model: model
    return partial(torch.compile, fullgraph=True, dynamic=False, backend=bench.args.backend)


def train(bench: Bench, job: str) -> Iterator[Finding]:
    """MFU for every trial of a preset."""
    name = job.removeprefix("train-")
    shape = joint_shape(bench, name)
    for i, trial in enumerate(Trial.parse(getattr(bench.args, f"trials_{name}"))):
        if i and bench.left < NEEDS[job] / 2 and not bench.args.dry:
            bench.skipped.append(f"{job}, {trial}: {bench.left:.0f} s were left")
            continue
        try:
            yield one_training(bench, job, shape, trial)
        except torch.OutOfMemoryError:
            yield Finding(job, str(trial), None, "MFU", "out of memory")
        clean()


def one_training(bench: Bench, job: str, shape: Shape, trial: Trial) -> Finding:
    begin = time.monotonic()
    training = start_training(bench, build(shape, trial.batch, bench.device), trial)
    step = partial(training.step, GROUPED)
    loss = float(step())
    ready = time.monotonic() - begin
    timing = in_turns(
        {GROUPED: step}, bench.device, bench.args.rounds, warm_up=2, shortest=0.0 if bench.args.dry else 1.0
    )[GROUPED]
    peak = measure(step, bench.device)
    flops = trial.batch * shape.step_flops().total / timing.median
    tokens = trial.batch * shape.sequence
    note = (
        f"{timing.median:.3f} s per step of {tokens:,} tokens (spread {timing.spread:.1%}), "
        f"{flops / 1e12:.4g} TFLOP/s, "
        f"{tokens / timing.median:,.0f} tokens/s, peak {gigabytes(peak.total) if peak else '-'}, "
        f"ready after {ready:.0f} s"
    )
    if not math.isfinite(loss):
        return Finding(job, str(trial), None, "MFU", f"the loss is {loss}")
    return Finding(job, str(trial), 0.0, "MFU", note, flops)


def start_training(bench: Bench, subject: Subject, trial: Trial) -> Training:
    training = Training(subject, {GROUPED: lambda m: m}, bench.dtype, whole(bench), recompute=trial.recompute)
    compiled(bench, training)
    return training


def steps_4b(bench: Bench) -> Iterator[Finding]:
    """Twenty steps from the initialisation, each on other samples, and one sample of what came out."""
    shape = joint_shape(bench, "4b")
    trial = Trial.parse(bench.args.trials_4b)[0]
    subject = build(shape, trial.batch, bench.device, open_gates=False)
    training = start_training(bench, subject, trial)
    clean_values = subject.stream.values
    losses, seconds = [], []
    for i in range(20):
        ids = subject.batch.ids + (i > 0) * trial.batch
        mean = Randomness(1).normal("mean", i, ids, 1)[:, :, None]  # samples differ in what they are about
        values = 0.5 * clean_values.roll(i, dims=0) + mean
        stream = subject.stream.with_values(values)
        subject.batch = replace(subject.batch, streams={MODALITY: stream}, ids=ids)
        begin = time.perf_counter()
        losses.append(float(training.step(GROUPED)))  # reading it waits for the device
        seconds.append(time.perf_counter() - begin)
    path = " ".join(f"{v:.3f}" for v in losses)
    peak = measure(partial(training.step, GROUPED), bench.device)
    finite = all(math.isfinite(v) for v in losses)
    yield Finding(
        "steps-4b", f"20 steps, {trial}", sorted(seconds)[10], "s per step (median)",
        f"{'finite' if finite else 'NOT FINITE'}, losses {path}; peak {gigabytes(peak.total) if peak else '-'}",
    )  # fmt: skip
    model = subject.model
    del training
    steps = 2 if bench.args.dry else 50
    one = build_batch(subject, shape, 1)
    sampling = Sample(one, model, bench.dtype, steps)
    sampling()
    taken = once(sampling, bench.device)
    latents = sampling()
    about = f"latents finite: {bool(latents.isfinite().all())}, standard deviation {float(latents.float().std()):.3f}"
    yield Finding("steps-4b", f"one sample, {steps} steps", taken, "s", about)


def build_batch(subject: Subject, shape: Shape, count: int) -> Subject:
    """The same network with the first ``count`` samples."""
    batch = subject.batch
    streams = {
        m: replace(s, values=s.values[:count], positions=s.positions[:count], sample=s.sample[:count])
        for m, s in batch.streams.items()
    }
    text = batch.text
    if not isinstance(text, torch.Tensor):
        text = replace(text, values=text.values[:count], positions=text.positions[:count], sample=text.sample[:count])
    return Subject(shape, subject.model, replace(batch, streams=streams, text=text, ids=batch.ids[:count]))


def sample_xl2(bench: Bench) -> Iterator[Finding]:
    """Images per second, latents only, without guidance."""
    args = bench.args
    config, steps, batch = IMAGENET_XL_2, args.steps, args.sample_batch
    if args.dry:
        config = ImageNetConfig(input_size=6, hidden_size=32, num_heads=2, depth=3, num_classes=5, learn_sigma=True)
        steps, batch = 2, 2
    shape = Shape(config, config.tokens, 0)
    subject = build(shape, batch, bench.device)
    network = torch.compile(subject.model, fullgraph=True, dynamic=False, backend=args.backend)
    forms = {
        f"{GROUPED}, compiled": network,
        f"{GROUPED}, uncompiled": subject.model,
        f"{EXPANDED}, compiled": Expanded(network),
        f"{EXPANDED}, uncompiled": Expanded(subject.model),
    }
    actions = {name: Sample(subject, form, bench.dtype, steps) for name, form in forms.items()}
    outputs = {name: action().float() for name, action in actions.items()}
    timings = in_turns(actions, bench.device, min(3, args.rounds), warm_up=1, shortest=0.0)
    base, first = list(forms)[-1], next(iter(forms))
    for name, timing in timings.items():
        flops = steps * batch * shape.forward_flops(levels=1).total / timing.median
        rate = bench.rate.flops if bench.rate else math.nan
        off = float((outputs[name] - outputs[base]).abs().max())
        note = (
            f"{timing.median:.3f} s for {batch} images of {steps} steps, MFU {flops / rate:.1%}; "
            f"largest difference from {base} {off:.2g}"
        )
        yield Finding("sample-xl2", name, batch / timing.median, "images/s", note)
    ratio = timings[first].times_faster_than(timings[base])
    yield Finding("sample-xl2", f"{first} against {base}", ratio, "times the per-token uncompiled path")


def attend(bench: Bench) -> Iterator[Finding]:
    """Backends on rows that pack several samples, one of them isolated conditions too; whole rows as the yardstick."""
    rows, tokens, each = (1, 64, 16) if bench.args.dry else (4, 4096, 320)
    sample = torch.arange(tokens, device=bench.device).div(each, rounding_mode="floor").expand(rows, -1)
    condition = torch.arange(tokens, device=bench.device).remainder(each).lt(each // 5).expand(rows, -1)
    patterns = {"packed": Pattern(sample), "packed, conditions isolated": Pattern(sample, condition)}
    for heads, width in ((2, 8),) if bench.args.dry else ((16, 72), (24, 128)):
        shape = (rows, heads, tokens, width)
        made = [torch.randn(shape, device=bench.device).to(bench.dtype).requires_grad_() for _ in range(3)]
        reference: dict[str, torch.Tensor] = {}
        for pattern_name, pattern in patterns.items():
            for backend in BACKENDS:
                setting = f"{backend}, {pattern_name}, {heads} heads of {width}"
                try:
                    yield one_attention(bench, setting, backend, pattern, made, reference)
                except Exception as error:  # noqa: BLE001 - a backend may not know a shape; the others are timed
                    said = str(error).strip().splitlines()
                    yield Finding("attention", setting, None, "ms", f"failed: {said[0][:120] if said else error!r}")
            reference.clear()


def one_attention(
    bench: Bench, setting: str, backend: str, pattern: Pattern, made: list[torch.Tensor], reference: dict
) -> Finding:
    call = attention(backend, pattern)

    def both() -> None:
        for x in made:
            x.grad = None
        call(*made).float().square().sum().backward()

    with torch.no_grad():
        out = call(*made).float()
        off = float((out - reference.setdefault("sdpa", out)).abs().max())
        forward = in_turns({"f": lambda: call(*made)}, bench.device, bench.args.rounds, warm_up=2)["f"]
    backward = in_turns({"b": both}, bench.device, bench.args.rounds, warm_up=2)["b"]
    note = f"forward; with backward {1e3 * backward.median:.3f} ms; largest difference from sdpa {off:.1e}"
    return Finding("attention", setting, 1e3 * forward.median, "ms", note)


JOBS: dict[str, Callable[[Bench], Iterator[Finding]]] = {
    "train-675m": partial(train, job="train-675m"),
    "train-4b": partial(train, job="train-4b"),
    "steps-4b": steps_4b,
    "sample-xl2": sample_xl2,
    "attention": attend,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--minutes", type=float, default=9.0, help="no job is begun that would end later")
    parser.add_argument("--jobs", default=",".join(JOBS), type=lambda text: [w for w in text.split(",") if w])
    parser.add_argument("--tokens", type=int, default=256, help="image tokens per sample of the joint presets")
    parser.add_argument("--text-tokens", type=int, default=64)
    parser.add_argument("--trials-675m", default="128,192,64", help="samples per step; 96r recomputes activations")
    parser.add_argument("--trials-4b", default="32,40,96r,24")
    parser.add_argument("--sample-batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50, help="solver steps of XL/2 sampling")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", choices=["blocks", "whole", "none"], default="blocks", help="for training")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--dry", action="store_true", help="everything tiny, on a CPU")
    args = parser.parse_args()
    if unknown := [name for name in args.jobs if name not in JOBS]:
        parser.error(f"there is no job {unknown[0]}; there are {', '.join(JOBS)}")
    if args.dry:
        args.trials_675m = args.trials_4b = "2,2r"
        args.rounds, args.minutes = 2, min(args.minutes, 2.0)
        if args.backend == "inductor":
            args.backend = "aot_eager"  # traces and differentiates as on the accelerator, and compiles nothing
    elif not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; --dry runs everything at toy size on a CPU")
    dynamo.recompile_limit = max(dynamo.recompile_limit, 64)
    Bench(args).run()


if __name__ == "__main__":
    main()
