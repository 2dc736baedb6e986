"""``bench model``: every job of a plan, its forms side by side in one process.

On a CPU the memory of each is measured in a process of its own.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._dynamo import config as dynamo
from tqdm import tqdm

from ..models.imagenet import ImageNetConfig, ImageNetModel
from ..training.parts import pick_device, pick_dtype
from . import child, memory
from .forms import EXPANDED, GROUPED, REFERENCE, Expanded, Reference
from .jobs import Action, Form, Forward, Sample, Step, Training
from .model import Shape, Subject, build
from .plan import Plan
from .rate import better, matrix_rate
from .report import Job, Report, Row, machine
from .timing import Timing, in_turns

#: The authors' code has no training step, so its row is missing there.
FORMS = {
    "forward": (GROUPED, EXPANDED, REFERENCE),
    "sample": (GROUPED, EXPANDED, REFERENCE),
    "train": (GROUPED, EXPANDED),
}
COMPARED = {"forward": "velocities", "sample": "latents", "train": "loss and gradient norm on the same weights"}
#: Every form of every job is a graph of its own to the compiler.
_GRAPHS = 64


def run(plan: Plan, shape: Shape | None = None) -> Report:
    """Measure everything the plan asks for.

    Args:
        plan: see :class:`Plan`.
        shape: another network than the preset's.

    Raises:
        UserError: the device is not there, or its memory cannot hold the network.
    """
    device = pick_device(plan.device)
    dtype = pick_dtype(plan.precision, device)
    shape = shape or Shape.of(plan)
    parameters = shape.parameters()
    for what in plan.what:
        need = memory_needed(plan, shape, what, parameters, dtype)
        hint = ", or leave training out with --what forward,sample" if what == "train" else ""
        memory.refuse_what_does_not_fit(f"{plan.preset}, {what},", need, device, hint)
    if plan.compile:
        dynamo.recompile_limit = max(dynamo.recompile_limit, _GRAPHS)
    children = _variants(plan) if device.type == "cpu" else []
    ticks = len(children) + len(plan.what) * (plan.rounds + 1)
    with tqdm(total=ticks, desc="measuring", unit="part", leave=False) as progress:
        peaks: dict[tuple[str, str], memory.Peak | None] = {}
        for what, form in children:  # before this process takes memory of its own
            peaks[what, form] = child.peak_of(plan, shape, what, form)
            progress.update()
        rate = matrix_rate(device, dtype)
        subject = build(shape, plan.batch, device)
        found = []
        for what in plan.what:
            found.append(_measure(plan, subject, what, dtype, peaks, progress))
            gc.collect()
            torch.compiler.reset()
        rate = better(rate, matrix_rate(device, dtype))
    jobs = tuple(_job(plan, shape, m, rate.flops) for m in found)
    how = next((p.how for m in found for p in m.peaks.values() if p), "not measured")
    return Report(machine(device), plan, parameters, str(dtype).removeprefix("torch."), rate, how, jobs)


@dataclass
class _Measured:
    """What one job gave, by form."""

    what: str
    timings: dict[str, Timing]
    peaks: dict[str, memory.Peak | None]
    outputs: dict[str, Tensor]


def prepare(request: child.Request) -> Action:
    """One job of one form as a call, for a process of its own; sampling takes a single step, which has the peak."""
    plan = replace(request.plan, steps=1)
    device = torch.device("cpu")
    dtype = pick_dtype(plan.precision, device)
    subject = build(request.shape, plan.batch, device)
    action = _actions(plan, subject, request.what, dtype, (request.form,))[request.form]
    if request.form == REFERENCE:
        subject.model = torch.nn.Identity()  # it has handed its weights over
    return action


def memory_needed(plan: Plan, shape: Shape, what: str, parameters: int, dtype: torch.dtype) -> int:
    """Estimate in bytes for the larger form of one job."""
    width, hidden = shape.widths
    train = what == "train"
    # A modulation per token: 6 vectors for each block, or a table of 11 for all of them together.
    each = 6 if shape.imagenet else 11 / shape.config.depth
    activations = memory.activation_bytes(
        width, hidden, shape.config.depth, plan.batch * shape.sequence, each=each,
        bytes_per_value=2 if dtype == torch.bfloat16 else 4, train=train, recompute=plan.recompute,
    )  # fmt: skip
    copies = 1 if plan.reference and not train else 0
    return memory.needed(parameters, train=train, copies=copies, activations=activations)


def _variants(plan: Plan) -> list[tuple[str, str]]:
    return [(what, form) for what in plan.what for form in FORMS[what] if form != REFERENCE or plan.reference]


def _actions(plan: Plan, subject: Subject, what: str, dtype: torch.dtype, forms: tuple[str, ...]) -> dict[str, Action]:
    """Form -> one call of the job."""
    network: Callable[[Any], Any] = _compiled if plan.compile else lambda model: model
    wraps: dict[str, Callable[[Any], Form]] = {GROUPED: lambda model: model, EXPANDED: Expanded}
    if what == "train":
        training = Training(subject, {name: wraps[name] for name in forms}, dtype, network, recompute=plan.recompute)
        return {name: Step(training, name) for name in forms}
    calls = {name: wraps[name](network(subject.model)) for name in forms if name in wraps}
    if REFERENCE in forms:
        calls[REFERENCE] = _reference(plan, subject)
    if what == "forward":
        return {name: Forward(subject, call, dtype) for name, call in calls.items()}
    return {name: Sample(subject, call, dtype, plan.steps) for name, call in calls.items()}


def _compiled(model: Any) -> Any:
    """As one graph for the shapes at hand."""
    return torch.compile(model, fullgraph=True, dynamic=False)


def _reference(plan: Plan, subject: Subject) -> Reference:
    """The authors' network with the subject's weights; never compiled, as the authors do not."""
    config, model = subject.shape.config, subject.model
    assert isinstance(config, ImageNetConfig) and isinstance(model, ImageNetModel)
    return Reference.load(Path(plan.reference), asdict(config), model.net.state_dict())


def _measure(
    plan: Plan,
    subject: Subject,
    what: str,
    dtype: torch.dtype,
    peaks: dict[tuple[str, str], memory.Peak | None],
    progress: tqdm,
) -> _Measured:
    forms = tuple(form for job, form in _variants(plan) if job == what)
    actions = _actions(plan, subject, what, dtype, forms)
    outputs = {name: action.result().double().cpu() for name, action in actions.items()}  # a warm-up, too
    if subject.device.type != "cpu":
        peaks = {(what, name): memory.measure(action, subject.device) for name, action in actions.items()}
    # torch.compile makes its kernels in the first call and settles in the second.
    timings = in_turns(
        actions, subject.device, plan.rounds, warm_up=1 if plan.compile else 0, after_round=progress.update
    )
    return _Measured(what, timings, {name: peaks.get((what, name)) for name in actions}, outputs)


def _job(plan: Plan, shape: Shape, m: _Measured, rate: float) -> Job:
    flops = plan.batch * model_flops(shape, m.what, plan.steps)
    first = next(iter(m.timings))
    rows = []
    for name, timing in m.timings.items():
        peak = m.peaks[name]
        rows.append(
            Row(
                form=name,
                seconds=timing.median,
                spread=timing.spread,
                rounds=timing.seconds,
                ratio=m.timings[first].times_faster_than(timing),
                flops_per_second=flops / timing.median,
                mfu=flops / timing.median / rate,
                peak_bytes=peak.total if peak else None,
                above_bytes=peak.above if peak else None,
                difference=float((m.outputs[name] - m.outputs[first]).abs().max()),
            )
        )
    return Job(m.what, flops, COMPARED[m.what], float(m.outputs[first].abs().max()), tuple(rows))


def model_flops(shape: Shape, what: str, steps: int) -> int:
    """Operations of one sample's job with a modulation per level: the least the network needs."""
    if what == "train":
        return shape.step_flops().total
    if what == "sample":
        return steps * shape.forward_flops(levels=1).total
    return shape.forward_flops(levels=2).total
