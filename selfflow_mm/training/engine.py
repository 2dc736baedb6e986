"""What every training run of a transformer does: batch, loss, step, EMA; checkpoints, log, stopping and going on.

A killed and resumed run ends in the bits of the run that was never killed: weights, EMA, optimizer and the data's place
are in the checkpoint, and all randomness is a function of (seed, step, sample id). Who trains what (``loop.py``, the
robot's fine-tuning) builds the parts and hands them over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import UserError
from ..flow.objectives import Batch, Objective
from ..models.joint import JointTransformer
from ..randomness import Randomness
from . import ema, posthoc_ema
from .checkpoint import latest_checkpoint, load_checkpoint, load_optimizer_tensors, optimizer_tensors, save_checkpoint
from .config import OptimizerConfig, RunConfig
from .ranks import Ranks
from .recompute import recompute_blocks
from .run_folder import RunFolder
from .stopping import Stopped, stop_requests
from .throughput import Throughput

#: Every task of a run is a graph of its own to the compiler: other streams, other lengths, other levels.
_GRAPHS = 64


class BatchSource(Protocol):
    """An endless sequence of batches whose place can be saved."""

    def at(self, step: int) -> tuple[str, str, Batch]:
        """The batch of a step (name of its source, its task, batch); called for every step in turn."""
        ...

    def numbers(self, name: str, batch: Batch) -> list[Any]:
        """What the batch's samples are called in their source, for messages."""
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

    def save(self, folder: Path, keep: int) -> None:
        tensors = {
            "model": self.model.state_dict(),
            "ema": self.teacher.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.model),
            **(self.averages.state() if self.averages else {}),
        }
        places = self.ranks.gather(self.batches.state_dict())
        if self.ranks.first:
            # Where all processes are at the same place, any number of them can go on from it.
            same = all(place == places[0] for place in places)
            save_checkpoint(folder, self.step, tensors, places[0] if same else {"ranks": places}, keep)
        self.ranks.wait()

    def load(self, path: Path) -> None:
        self.step, tensors, state = load_checkpoint(path)
        try:
            self.model.load_state_dict(tensors["model"])
            self.teacher.load_state_dict(tensors["ema"])
        except (RuntimeError, KeyError) as error:
            raise UserError(f"{path} is of a model of another shape: {str(error).splitlines()[-1].strip()}") from None
        load_optimizer_tensors(self.optimizer, self.model, tensors["optimizer"])
        if self.averages:
            self.averages.load(tensors, path)
        places = state.get("ranks", [state] * self.ranks.world)
        if len(places) != self.ranks.world:
            raise UserError(
                f"{path} was written by {len(places)} processes, each with a place of its own in the data; go on with "
                f"as many, not {self.ranks.world}"
            )
        self.batches.load_state_dict(places[self.ranks.rank])


@dataclass
class Work:
    """What a step is done with: the models as they are called (compiled, where asked for), and the loss."""

    student: JointTransformer
    teacher: JointTransformer
    objective: Objective
    random: Randomness
    decay: float
    device: torch.device
    dtype: torch.dtype
    checkpoints: Path


def as_called(
    settings: RunConfig, model: JointTransformer, teacher: JointTransformer
) -> tuple[JointTransformer, JointTransformer]:
    """Student and teacher as the steps call them. The models themselves stay as they are, for saving and sampling."""
    for m in (model, teacher):
        m.attention_backend = settings.attention
    if settings.recompute == "blocks":
        recompute_blocks(model)
    if not settings.compile:
        return model, teacher
    from torch._dynamo import config as dynamo  # takes seconds to import

    dynamo.recompile_limit = max(dynamo.recompile_limit, _GRAPHS)
    compiled: Any = tuple(torch.compile(m, fullgraph=True, dynamic=False) for m in (model, teacher))
    return compiled


def run_steps(
    settings: RunConfig,
    optimizer: OptimizerConfig,
    run: RunFolder | None,
    state: State,
    work: Work,
    *,
    report: Callable[[], None],
    samples: Callable[[int], None],
) -> None:
    """Train to the last step, or until asked to stop.

    Args:
        settings, optimizer: of the run.
        run: its folder; None in all processes but the first.
        state: where it stands; goes on from there.
        work: how a step is done.
        report: writes the run's page.
        samples: draws samples at a step.

    Raises:
        Stopped: somebody asked for it; everything is saved.
        UserError: a loss is no longer finite; the last good checkpoint stays.
    """
    steps, meter, speed = settings.steps, _Meter(), _speed(state, work)
    kept, ranks = settings.posthoc_ema, state.ranks
    bar = tqdm(total=steps, initial=state.step, desc="training", unit="step", disable=not ranks.first)
    with stop_requests() as asked, bar as progress:
        while state.step < steps:
            speed.start()
            source, task, batch = state.batches.at(state.step)
            losses = _step(settings, optimizer, state, work, batch.to(work.device))
            meter.add(losses)  # reads the numbers, so the device is done
            speed.stop(batch, state.step)
            if not all(bool(torch.isfinite(value)) for value in losses.values()):
                numbers = state.batches.numbers(source, batch)
                last_good = latest_checkpoint(run.checkpoints) if run else None
                raise UserError(_not_finite(state.step, losses, batch, source, task, numbers, last_good))
            state.step += 1
            progress.update()
            last = state.step == steps
            if state.step % settings.log_every == 0 or last:
                means, rates = meter.take(), speed.take()
                rates = {name: rate * ranks.world for name, rate in rates.items()}
                if run:
                    run.log(state.step, **means, lr=optimizer.lr_at(state.step - 1, steps), **rates)
                work_done = tqdm.format_sizeof(rates["tflops"] * 1e12, "FLOP/s")
                progress.set_postfix_str(
                    f"loss {means['loss']:.3f}, {rates['samples_per_second']:.3g} samples/s, {work_done}"
                )
            if run and state.averages and (state.step % kept.every == 0 or last):
                state.averages.save_snapshots(run.path / posthoc_ema.FOLDER, state.step, kept.weights)
            if run and settings.sample_every and state.step % settings.sample_every == 0:
                samples(state.step)
            stop = ranks.any(bool(asked), work.device)
            if stop or state.step % settings.save_every == 0 or last:
                state.save(work.checkpoints, settings.keep)
                if run:
                    report()
            if stop:
                raise Stopped(f"stopped at step {state.step} with everything saved; go on with --resume")


def _step(settings: RunConfig, optimizer: OptimizerConfig, state: State, work: Work, batch: Batch) -> dict[str, Tensor]:
    """One optimizer step and one step of every average."""
    for group in state.optimizer.param_groups:
        group["lr"] = optimizer.lr_at(state.step, settings.steps)
    with torch.autocast(work.device.type, dtype=torch.bfloat16, enabled=work.dtype == torch.bfloat16):
        loss, parts = work.objective.loss(work.student, work.teacher, batch, work.random, state.step)
    loss.backward()
    state.ranks.mean_gradients(state.model)
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), optimizer.clip)
    finite = bool(torch.isfinite(norm))
    if finite:  # a bad gradient must not reach the weights that the caller may still save
        state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)  # now, so that gradients take no memory while activations do
    if finite:
        ema.update(state.teacher, state.model, work.decay)
        if state.averages:
            state.averages.update(state.model, state.step + 1)
    means = state.ranks.mean({"loss": loss.detach(), **parts})
    return {**means, "grad_norm": norm.detach()}


def _not_finite(
    step: int,
    report: dict[str, Tensor],
    batch: Batch,
    source: str,
    task: str,
    samples: list[Any],
    last_good: Path | None,
) -> str:
    """What to tell of a loss that is not finite: which, on what, and where to go on from.

    One bad token spoils every loss of its batch through attention, so the latents are looked at, too.
    """
    bad = [name for name, value in report.items() if not bool(torch.isfinite(value))]
    spoilt = []
    for modality, stream in batch.streams.items():
        rows = (~torch.isfinite(stream.values)).flatten(1).any(dim=1).tolist()
        which = [str(number) for number, is_bad in zip(samples, rows, strict=True) if is_bad]
        if which:
            spoilt.append(f"the {modality} latents of sample {', '.join(which)} are not finite themselves; ")
    return (
        f"step {step}: {', '.join(bad)} is not finite (source {source}, task {task}, samples "
        f"{', '.join(map(str, samples))}); {''.join(spoilt)}the last good checkpoint is {last_good}; "
        + ("repair or drop these samples" if spoilt else "lower optimizer.lr or look at these samples")
    )


def _speed(state: State, work: Work) -> Throughput:
    frozen = not all(parameter.requires_grad for parameter in state.model.parameters())
    return Throughput(state.model.config, work.objective, lora=frozen)


class _Meter:
    """Means since the last log line; a modality that was absent from a batch does not count in its mean."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, report: dict[str, Tensor]) -> None:
        for name, value in report.items():
            total = self._sums.setdefault(name, [0.0, 0])
            total[0] += float(value)
            total[1] += 1

    def take(self) -> dict[str, float]:
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means
