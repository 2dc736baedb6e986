"""The training loop of the transformer: batch, loss, step, EMA; and everything that lets it stop and go on.

A killed and resumed run ends in the bits of the run that was never killed: weights, EMA, optimizer and data
cursors are in the checkpoint, and all randomness is a function of (seed, step, sample id).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import UserError
from ..flow.objectives import Batch, Objective
from ..generation.pipeline import Pipeline, write_layout
from ..models.joint import JointTransformer
from ..randomness import Randomness
from . import ema
from .batches import Batches
from .checkpoint import latest_checkpoint, load_checkpoint, load_optimizer_tensors, optimizer_tensors, save_checkpoint
from .config import TrainConfig
from .parts import (
    build_model,
    build_text_encoder,
    clip_geometry,
    complete_model_config,
    encode_sources,
    load_tokenizers,
    pick_device,
    pick_dtype,
)
from .report import write_report
from .run_folder import RunFolder
from .stopping import Stopped, stop_requests


@dataclass
class State:
    """What a checkpoint holds."""

    model: JointTransformer
    teacher: JointTransformer
    optimizer: torch.optim.Optimizer
    batches: Batches
    step: int = 0

    def save(self, folder: Path, keep: int) -> None:
        tensors = {
            "model": self.model.state_dict(),
            "ema": self.teacher.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.model),
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
        self.batches.cursors.update(state["cursors"])


def train(config: TrainConfig, out: Path, *, resume: bool = False) -> Path:
    """Run or resume a training run in folder ``out``; returns the folder of the exported model.

    Raises:
        UserError: impossible settings or data, or a loss that is no longer finite (the last good checkpoint stays).
    """
    device = pick_device(config.run.device)
    dtype = pick_dtype(config.run.precision, device)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    tokenizers, folders = load_tokenizers(config.tokenizers)
    text_encoder = build_text_encoder()
    model_config = complete_model_config(config, tokenizers, text_encoder)
    if not config.data.sources:
        raise UserError("data.sources names no data set; add one, e.g. data.sources.clips.path=SHARDS")
    geometry = clip_geometry(config)  # opens the data sets, so a wrong path stops the run before it has a folder

    with RunFolder(out, config=config, seed=config.run.seed, kind="transformer", resume=resume) as run:
        half = config.run.weights == "float16"
        text_level = config.objective.text_level
        if run.changed:
            print(f"going on with other settings than before: {', '.join(run.changed)}")
        write_layout(out / "model", model_config, tokenizers, geometry, config.sampling, text_level)
        for tokenizer in tokenizers.values():
            tokenizer.to(device)
        sources = encode_sources(config, tokenizers, folders, out)
        batches = Batches(sources, text_encoder, config.run.seed, config.objective.caption_dropout)
        model = build_model(model_config, config.run.seed).to(device)
        teacher = ema.copy_for_ema(model)
        optimizer = torch.optim.AdamW(
            model.parameters(), config.optimizer.lr, config.optimizer.betas, weight_decay=config.optimizer.weight_decay
        )
        state = State(model, teacher, optimizer, batches)
        if resume and (path := latest_checkpoint(run.checkpoints)):
            state.load(path)
        run.truncate_log(state.step)
        if config.run.compile:
            model.compile()
            teacher.compile()
        objective = Objective(config.objective, {m: t.spec.train_shift for m, t in tokenizers.items()})
        pipeline = Pipeline(teacher, tokenizers, geometry, config.sampling, text_level)
        _loop(config, run, state, objective, pipeline, device, dtype)
        pipeline.model = teacher.cpu()
        about = {"steps": str(state.step), "seed": str(config.run.seed)}
        pipeline.save_pretrained(out / "model", half=half, metadata=about)
        write_report(out, config, title=out.name)
    return out / "model"


def _loop(
    config: TrainConfig,
    run: RunFolder,
    state: State,
    objective: Objective,
    pipeline: Pipeline,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    random = Randomness(config.run.seed)
    decay = ema.decay_for(config.run.steps, config.run.ema_half_life)
    steps, meter = config.run.steps, _Meter()
    with stop_requests() as asked, tqdm(total=steps, initial=state.step, desc="training", unit="step") as progress:
        while state.step < steps:
            source, task, batch = state.batches.at(state.step)
            report = _step(config, state, objective, batch.to(device), random, decay, device, dtype)
            meter.add(report)
            if not all(bool(torch.isfinite(value)) for value in report.values()):
                bad = ", ".join(name for name, value in report.items() if not bool(torch.isfinite(value)))
                raise UserError(
                    f"step {state.step}: {bad} is not finite (source {source}, task {task}, samples "
                    f"{batch.ids.tolist()[:4]}...); "
                    f"the last good checkpoint is {latest_checkpoint(run.checkpoints)}; lower optimizer.lr "
                    f"or look at these samples"
                )
            state.step += 1
            progress.update()
            if state.step % config.run.log_every == 0 or state.step == steps:
                means = meter.take()
                run.log(state.step, **means, lr=config.optimizer.lr_at(state.step - 1, steps))
                progress.set_postfix_str(f"loss {means['loss']:.3f}")
            if config.run.sample_every and state.step % config.run.sample_every == 0:
                _draw_samples(config, run, state.step, pipeline)
            if asked or state.step % config.run.save_every == 0 or state.step == steps:
                state.save(run.checkpoints, config.run.keep)
                write_report(run.path, config, title=run.path.name)
            if asked:
                raise Stopped(f"stopped at step {state.step} with everything saved; go on with --resume")


def _step(
    config: TrainConfig,
    state: State,
    objective: Objective,
    batch: Batch,
    random: Randomness,
    decay: float,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """One optimizer step and one EMA step."""
    for group in state.optimizer.param_groups:
        group["lr"] = config.optimizer.lr_at(state.step, config.run.steps)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss, parts = objective.loss(state.model, state.teacher, batch, random, state.step)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.optimizer.clip)
    if bool(torch.isfinite(norm)):  # a bad gradient must not reach the weights that the caller may still save
        state.optimizer.step()
        ema.update(state.teacher, state.model, decay)
    return {"loss": loss.detach(), **parts, "grad_norm": norm.detach()}


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
