"""What every training run of a transformer does: steps, checkpoints, log, stopping and going on.

A killed and resumed run ends in the bits of the run that was never killed: weights, EMA, optimizer and the data's place
are in the checkpoint, and all randomness is a function of (seed, step, sample id). Who trains what (``loop.py``, the
robot's fine-tuning) builds the parts and hands them over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm

from ..errors import UserError
from ..models.joint import JointTransformer
from . import posthoc_ema
from .checkpoint import latest_checkpoint
from .config import OptimizerConfig, RunConfig
from .guards import not_finite
from .meter import Meter
from .recompute import recompute_blocks
from .run_folder import RunFolder
from .state import State
from .step import Work, take_step
from .stopping import Stopped, stop_requests
from .throughput import Throughput

#: Every task of a run is a graph of its own to the compiler: other streams, other lengths, other levels.
_GRAPHS = 64


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
    steps, meter, speed = settings.steps, Meter(), _speed(state, work)
    kept, ranks = settings.posthoc_ema, state.ranks
    bar = tqdm(total=steps, initial=state.step, desc="training", unit="step", disable=not ranks.first)
    with stop_requests() as asked, bar as progress, state.writer(work.checkpoints, settings) as writer:
        while state.step < steps:
            speed.start()
            source, task, batch = state.batches.at(state.step)
            losses = take_step(settings, optimizer, state, work, batch.to(work.device))
            meter.add(losses)  # reads the numbers, so the device is done
            speed.stop(batch, state.step)
            if not all(bool(torch.isfinite(value)) for value in losses.values()):
                numbers = state.batches.numbers(source, batch)
                writer.wait()  # or the last good one might not be there yet
                last_good = latest_checkpoint(run.checkpoints) if run else None
                raise UserError(not_finite(state.step, losses, batch, source, task, numbers, last_good))
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
            stop = ranks.any(bool(asked) or writer.failed, work.device)
            if stop or state.step % settings.save_every == 0 or last:
                state.save(writer)
                if run:
                    report()
            if stop:
                raise Stopped(f"stopped at step {state.step} with everything saved; go on with --resume")


def _speed(state: State, work: Work) -> Throughput:
    frozen = not all(parameter.requires_grad for parameter in state.model.parameters())
    return Throughput(state.model.config, work.objective, lora=frozen)
