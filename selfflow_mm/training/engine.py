"""What every training run of a transformer does: steps, checkpoints, log, stopping and going on.

A killed and resumed run ends in the bits of the run that was never killed: weights, EMA, optimizer and the data's place
are in the checkpoint, and all randomness is a function of (seed, step, sample id). Who trains what (``loop.py``, the
robot's fine-tuning) builds the parts and hands them over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch

from ..errors import UserError
from ..flow.objectives import Batch
from ..models.joint import JointTransformer
from . import posthoc_ema
from .checkpoint import latest_checkpoint
from .checkpoint_writing import CheckpointWriter
from .config import OptimizerConfig, RunConfig
from .gradient_watch import GradientWatch
from .guards import bad_step, describe_batch, stopping
from .meter import Meter
from .panel import open_console
from .ranks import ONE, Ranks
from .recompute import compile_blocks, recompute_blocks
from .run_folder import RunFolder
from .sharding import sharded
from .state import State
from .step import Work, take_step
from .stopping import Stopped, stop_requests
from .throughput import Throughput, peak_of

#: Every task and bucket of a run is a graph of its own to the compiler: other streams, other lengths, other levels.
_GRAPHS = 256


def as_called(
    settings: RunConfig, model: JointTransformer, teacher: JointTransformer, ranks: Ranks = ONE
) -> tuple[JointTransformer, JointTransformer]:
    """Student and teacher as the steps call them. The models themselves stay as they are, for saving and sampling."""
    for m in (model, teacher):
        m.attention_backend = settings.attention
    if settings.recompute == "blocks":
        recompute_blocks(model)
    if ranks.context > 1:
        from .context import in_context

        return in_context(model, ranks), in_context(teacher, ranks)
    if not settings.compile:
        return model, teacher
    from torch._dynamo import config as dynamo  # takes seconds to import

    dynamo.recompile_limit = max(dynamo.recompile_limit, _GRAPHS)
    if sharded(model):  # gathering weights between blocks is no part of a graph
        for m in (model, teacher):
            compile_blocks(m)
        return model, teacher
    compiled: Any = tuple(torch.compile(m, fullgraph=True, dynamic=False) for m in (model, teacher))
    return compiled


def run_steps(
    settings: RunConfig,
    optimizer: OptimizerConfig,
    run: RunFolder | None,
    state: State,
    work: Work,
    *,
    trains: Collection[str],
    report: Callable[[], None],
    samples: Callable[[int], None],
) -> None:
    """Train to the last step, or until asked to stop.

    Args:
        settings, optimizer: of the run.
        run: its folder; None in all processes but the first.
        state: where it stands; goes on from there.
        work: how a step is done.
        trains: modalities that its tasks generate; see :mod:`.gradient_watch`.
        report: writes the run's page.
        samples: draws samples at a step.

    Raises:
        Stopped: somebody asked for it; everything is saved.
        UserError: more bad steps in a row than ``run.skip_steps`` allows; none of them has changed anything.
    """
    steps, meter, speed = settings.steps, Meter(), _speed(state, work)
    kept, ranks = settings.posthoc_ema, state.ranks
    watch = GradientWatch(state.model, trains, work.objective.config.weights)
    console = open_console(settings.console, work.checkpoints.parent.name, state.step, steps, first=ranks.first)
    if run:
        run.open_trackers()
    saving = state.writer(work.checkpoints, settings)
    with stop_requests() as asked, watch.watching(state.optimizer), console as view, saving as writer:
        if run:
            run.tell = view.note
        while state.step < steps:
            speed.start()
            source, task, batch = state.batches.at(state.step)
            losses = take_step(settings, optimizer, state, work, batch.to(work.device))
            gives_up = ""
            if state.guard.reason:
                meter.skip()
                gives_up = _bad_step(settings, run, state, work, writer, source, task, batch)
            else:
                meter.add(losses)  # reads the numbers, so the device is done
                watch.add(batch)
            speed.stop(batch, state.step)
            state.step += 1
            last = state.step == steps
            view.step(state.step, lambda: {**meter.means(), **_times(ranks, speed.rates())})
            if state.step % settings.log_every == 0 or last:
                line = meter.take() | {"lr": optimizer.lr_at(state.step - 1, steps)}
                line |= _over_processes(speed.take(), ranks, work.device) | _memory(work.device)
                troubles = watch.take(ranks, work.device)
                if run:
                    run.log(state.step, **line)
                    for cause, text in troubles.items():
                        run.warn(state.step, text, cause)
                view.line(state.step, line)
            if state.averages and (state.step % kept.every == 0 or last):
                folder = run.path / posthoc_ema.FOLDER if run else None
                state.averages.save_snapshots(folder, state.step, kept.weights)
            if settings.sample_every and state.step % settings.sample_every == 0:
                with view.aside():
                    samples(state.step)
                if run:
                    run.track_samples(state.step)
            stop = ranks.any(bool(asked) or writer.failed, work.device)
            if stop or gives_up or state.step % settings.save_every == 0 or last:
                if gives_up:
                    state.guard.in_a_row = 0  # whoever goes on has the whole patience again
                state.save(writer)
                view.saved(state.step)
                if run:
                    report()
            if gives_up:
                raise UserError(gives_up)
            if stop:
                raise Stopped(f"stopped at step {state.step} with everything saved; go on with --resume")


def _bad_step(
    settings: RunConfig,
    run: RunFolder | None,
    state: State,
    work: Work,
    writer: CheckpointWriter,
    source: str,
    task: str,
    batch: Batch,
) -> str:
    """Tell of a step that was skipped; returns why the run has to stop, or nothing. All processes come here together.

    Raises:
        UserError: no step may be skipped. Nothing is saved: going on from the last checkpoint does this step again.
    """
    guard = state.guard
    parts = state.ranks.gather(describe_batch(batch, source, task, state.batches.numbers(source, batch)))
    text, data_to_blame = bad_step(state.step, guard.reason, parts)
    if not settings.skip_steps:
        writer.wait()  # or the last good one might not be there yet
        last_good = latest_checkpoint(work.checkpoints)
        raise UserError(stopping(text, data_to_blame, f"the last good checkpoint is {last_good}"))
    if run:
        run.warn(state.step + 1, f"{text}; the step is skipped", f"bad step {state.step}")
    if guard.in_a_row <= settings.skip_steps:
        return ""
    saved = f"it is bad step {guard.in_a_row} in a row; all is saved as it was before them, and --resume goes on"
    return stopping(text, data_to_blame, saved)


def _times(ranks: Ranks, rates: dict[str, float]) -> dict[str, float]:
    """The rates of all parts of a batch together, each by the processes that share it; of the peak, each process's."""
    return {name: rate / ranks.context if name == "mfu" else rate * ranks.shares for name, rate in rates.items()}


def _over_processes(rates: dict[str, float], ranks: Ranks, device: torch.device) -> dict[str, float]:
    """The same, exactly: samples differ in length, and so do the shares of a batch."""
    if ranks.world == 1:
        return rates
    means = ranks.mean({name: torch.tensor(rate, device=device) for name, rate in rates.items()})
    return _times(ranks, {name: float(mean) for name, mean in means.items()})


def _memory(device: torch.device) -> dict[str, float]:
    """The most that tensors took on the device up to now."""
    return {"memory_gib": torch.cuda.max_memory_allocated(device) / 2**30} if device.type == "cuda" else {}


def _speed(state: State, work: Work) -> Throughput:
    frozen = not all(parameter.requires_grad for parameter in state.model.parameters())
    return Throughput(state.model.config, work.objective, lora=frozen, peak=peak_of(work.device, work.dtype))
