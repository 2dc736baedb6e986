"""The training loop of the transformer: batch, loss, step, EMA; and everything that lets it stop and go on.

A killed and resumed run ends in the bits of the run that was never killed: weights, EMA, optimizer and data
cursors are in the checkpoint, and all randomness is a function of (seed, step, sample id).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import UserError
from ..flow.objectives import Batch, Objective
from ..generation.pipeline import Pipeline, refuse_other_text, write_layout
from ..models.joint import JointConfig, JointTransformer
from ..randomness import Randomness
from . import ema, posthoc_ema
from .batches import Batches
from .checkpoint import latest_checkpoint, load_checkpoint, load_optimizer_tensors, optimizer_tensors, save_checkpoint
from .config import TrainConfig
from .encoders import build_features
from .parts import (
    blind_to_word_order,
    build_model,
    build_text_encoder,
    clip_geometry,
    complete_model_config,
    encode_captions,
    encode_sources,
    load_tokenizers,
    pick_device,
    pick_dtype,
)
from .recompute import recompute_blocks
from .report import write_report
from .run_folder import RunFolder, refuse_taken
from .stopping import Stopped, stop_requests
from .throughput import Throughput

#: Every task of a run is a graph of its own to the compiler: other streams, other lengths, other levels.
_GRAPHS = 64


@dataclass
class State:
    """What a checkpoint holds."""

    model: JointTransformer
    teacher: JointTransformer
    optimizer: torch.optim.Optimizer
    batches: Batches
    averages: posthoc_ema.PowerAverages | None = None
    step: int = 0

    def save(self, folder: Path, keep: int) -> None:
        tensors = {
            "model": self.model.state_dict(),
            "ema": self.teacher.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.model),
            **(self.averages.state() if self.averages else {}),
        }
        save_checkpoint(folder, self.step, tensors, {"cursors": self.batches.cursors}, keep)

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
        self.batches.cursors.update(state["cursors"])


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


def train(config: TrainConfig, out: Path, *, resume: bool = False) -> Path:
    """Run or resume a training run in folder ``out``; returns the folder of the exported model.

    Raises:
        UserError: impossible settings or data, or a loss that is no longer finite (the last good checkpoint stays).
    """
    device = pick_device(config.run.device)
    dtype = pick_dtype(config.run.precision, device)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    tokenizers, named = load_tokenizers(config.tokenizers)
    text_encoder = build_text_encoder(config.text)
    model_config = complete_model_config(config, tokenizers, text_encoder)
    if note := blind_to_word_order(model_config, text_encoder):
        print(note)
    if not config.data.sources:
        raise UserError("data.sources names no data set; add one, e.g. data.sources.clips.path=SHARDS")
    # What may be wrong is looked at before there is a folder: data sets, encoders, first weights.
    if not resume:
        refuse_taken(out)
    elif (out / "model" / "config.json").exists():
        refuse_other_text(out / "model", text_encoder)
    geometry = clip_geometry(config)
    features = None
    if config.objective.encoders:
        features = build_features(config.objective.encoders, tokenizers).to(device)
    start = latest_checkpoint(out / "checkpoints") if resume else None
    model, first_weights = _first_model(config, model_config, goes_on=start is not None)

    with RunFolder(out, config=config, seed=config.run.seed, kind="transformer", resume=resume) as run:
        half = config.run.weights == "float16"
        text_level = config.objective.text_level
        if run.changed:
            print(f"going on with other settings than before: {', '.join(run.changed)}")
        if first_weights:
            run.write("init.json", first_weights)
        layout = (model_config, tokenizers, geometry, config.sampling, text_level)
        write_layout(out / "model", *layout, text_encoder=text_encoder)
        for tokenizer in tokenizers.values():
            tokenizer.to(device)
        sources = encode_sources(config, tokenizers, named, out)
        text_encoder = encode_captions(config, text_encoder, sources, out, device)
        batches = Batches(sources, text_encoder, config.run.seed, config.objective.caption_dropout)
        model = model.to(device)
        teacher = ema.copy_for_ema(model)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            config.optimizer.lr,
            config.optimizer.betas,
            weight_decay=config.optimizer.weight_decay,
            fused=True,  # no temporaries as large as the model
        )
        kept = config.run.posthoc_ema
        averages = posthoc_ema.PowerAverages(model, kept.stds) if kept.every else None
        state = State(model, teacher, optimizer, batches, averages)
        if start:
            state.load(start)
        run.truncate_log(state.step)
        posthoc_ema.drop_snapshots_after(out / posthoc_ema.FOLDER, state.step)
        objective = Objective(config.objective, {m: t.spec.train_shift for m, t in tokenizers.items()}, features)
        pipeline = Pipeline(teacher, tokenizers, geometry, config.sampling, text_level, text_encoder)
        student, seen = _as_called(config, model, teacher)
        decay = config.run.ema_decay or ema.decay_for(config.run.steps, config.run.ema_half_life)
        work = Work(student, seen, objective, Randomness(config.run.seed), decay, device, dtype)
        _loop(config, run, state, work, pipeline)
        pipeline.model = teacher.cpu()
        about = {"steps": str(state.step), "seed": str(config.run.seed)}
        pipeline.save_pretrained(out / "model", half=half, metadata=about)
        write_report(out, config, title=out.name)
    return out / "model"


def _first_model(
    config: TrainConfig, model_config: JointConfig, *, goes_on: bool
) -> tuple[JointTransformer, dict[str, Any] | None]:
    """A new model, with the weights that ``init`` names and what was taken from them; a run that goes on needs none."""
    model = build_model(model_config, config.run.seed)
    if not config.init or goes_on:
        return model, None
    from .initialise import initialise

    report = initialise(model, config.init)
    print(report.text())
    return model, report.as_dict()


def _as_called(
    config: TrainConfig, model: JointTransformer, teacher: JointTransformer
) -> tuple[JointTransformer, JointTransformer]:
    """Student and teacher as the steps call them. The models themselves stay as they are, for saving and sampling."""
    for m in (model, teacher):
        m.attention_backend = config.run.attention
    if config.run.recompute == "blocks":
        recompute_blocks(model)
    if not config.run.compile:
        return model, teacher
    from torch._dynamo import config as dynamo  # takes seconds to import

    dynamo.recompile_limit = max(dynamo.recompile_limit, _GRAPHS)
    compiled: Any = tuple(torch.compile(m, fullgraph=True, dynamic=False) for m in (model, teacher))
    return compiled


def _loop(config: TrainConfig, run: RunFolder, state: State, work: Work, pipeline: Pipeline) -> None:
    steps, meter, speed = config.run.steps, _Meter(), Throughput(state.model.config, work.objective)
    kept = config.run.posthoc_ema
    with stop_requests() as asked, tqdm(total=steps, initial=state.step, desc="training", unit="step") as progress:
        while state.step < steps:
            speed.start()
            source, task, batch = state.batches.at(state.step)
            report = _step(config, state, work, batch.to(work.device))
            meter.add(report)  # reads the numbers, so the device is done
            speed.stop(batch, state.step)
            if not all(bool(torch.isfinite(value)) for value in report.values()):
                samples = state.batches.numbers(source, batch)
                last_good = latest_checkpoint(run.checkpoints)
                raise UserError(_not_finite(state.step, report, batch, source, task, samples, last_good))
            state.step += 1
            progress.update()
            last = state.step == steps
            if state.step % config.run.log_every == 0 or last:
                means, rates = meter.take(), speed.take()
                run.log(state.step, **means, lr=config.optimizer.lr_at(state.step - 1, steps), **rates)
                work_done = tqdm.format_sizeof(rates["tflops"] * 1e12, "FLOP/s")
                progress.set_postfix_str(
                    f"loss {means['loss']:.3f}, {rates['samples_per_second']:.3g} samples/s, {work_done}"
                )
            if state.averages and (state.step % kept.every == 0 or last):
                state.averages.save_snapshots(run.path / posthoc_ema.FOLDER, state.step, kept.weights)
            if config.run.sample_every and state.step % config.run.sample_every == 0:
                _draw_samples(config, run, state.step, pipeline)
            if asked or state.step % config.run.save_every == 0 or last:
                state.save(run.checkpoints, config.run.keep)
                write_report(run.path, config, title=run.path.name)
            if asked:
                raise Stopped(f"stopped at step {state.step} with everything saved; go on with --resume")


def _step(config: TrainConfig, state: State, work: Work, batch: Batch) -> dict[str, Tensor]:
    """One optimizer step and one step of every average."""
    for group in state.optimizer.param_groups:
        group["lr"] = config.optimizer.lr_at(state.step, config.run.steps)
    with torch.autocast(work.device.type, dtype=torch.bfloat16, enabled=work.dtype == torch.bfloat16):
        loss, parts = work.objective.loss(work.student, work.teacher, batch, work.random, state.step)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.optimizer.clip)
    finite = bool(torch.isfinite(norm))
    if finite:  # a bad gradient must not reach the weights that the caller may still save
        state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)  # now, so that gradients take no memory while activations do
    if finite:
        ema.update(state.teacher, state.model, work.decay)
        if state.averages:
            state.averages.update(state.model, state.step + 1)
    return {"loss": loss.detach(), **parts, "grad_norm": norm.detach()}


def _not_finite(
    step: int,
    report: dict[str, Tensor],
    batch: Batch,
    source: str,
    task: str,
    samples: list[int],
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


def _draw_samples(config: TrainConfig, run: RunFolder, step: int, pipeline: Pipeline) -> None:
    prompts = list(config.run.prompts) or [""]
    tasks = {task for s in config.data.sources.values() for task, share in s.tasks.items() if share > 0}
    folder = run.samples_dir(step)
    for task in sorted(tasks & {"t2va", "t2v", "t2a", "t2i"}):
        for i, result in enumerate(pipeline(prompts, task, seed=config.run.seed)):
            result.save(folder / f"{task}-{i:02d}{result.endings[0]}")
