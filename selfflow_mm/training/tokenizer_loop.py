"""Training of tokenizers: batch, reconstruction, loss, step, average; stops and goes on to the same bits.

Weights, their average and the optimizer are in the checkpoint; clips, cuts and noise are functions of
(seed, step, clip), so a run that was killed and resumed ends in the weights of one that was not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from selfflow_tokenizers.audio_autoencoder import AudioAutoencoder
from selfflow_tokenizers.folder import load_tokenizer
from selfflow_tokenizers.video_autoencoder import VideoAutoencoder

from ..data.shards import ShardDataset
from ..errors import UserError
from ..randomness import Randomness
from . import ema
from .checkpoint import latest_checkpoint, load_checkpoint, load_optimizer_tensors, optimizer_tensors, save_checkpoint
from .parts import pick_device, pick_dtype
from .run_folder import RunFolder
from .stopping import Stopped, stop_requests
from .tokenizer_audio import AudioTask
from .tokenizer_config import TokenizerTrainConfig
from .tokenizer_data import draw
from .tokenizer_report import write_tokenizer_report
from .tokenizer_video import VideoTask

Task = VideoTask | AudioTask


@dataclass
class State:
    """What a checkpoint holds."""

    model: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0

    def save(self, folder: Path, keep: int) -> None:
        tensors = {
            "model": self.model.state_dict(),
            "ema": self.average.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.model),
        }
        save_checkpoint(folder, self.step, tensors, {}, keep)

    def load(self, path: Path) -> None:
        self.step, tensors, _ = load_checkpoint(path)
        try:
            self.model.load_state_dict(tensors["model"])
            self.average.load_state_dict(tensors["ema"])
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(f"{path} is of a tokenizer of another shape: {reason}") from None
        load_optimizer_tensors(self.optimizer, self.model, tensors["optimizer"])


def build_autoencoder(config: TokenizerTrainConfig) -> VideoAutoencoder | AudioAutoencoder:
    """A freshly initialised autoencoder; the initialisation depends on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        if config.video is not None:
            return VideoAutoencoder(config.video.model)
        assert config.audio is not None
        return AudioAutoencoder(config.audio.model)


def train_tokenizer(config: TokenizerTrainConfig, data: Path, out: Path, *, resume: bool = False) -> Path:
    """Train on the shards in ``data``, in run folder ``out``; returns the folder of the exported tokenizer.

    Raises:
        UserError: impossible settings or data, or a loss that is no longer finite (the last good checkpoint stays).
        Stopped: asked to stop by a signal, with everything saved.
    """
    device = pick_device(config.run.device)
    bfloat16 = pick_dtype(config.run.precision, device) == torch.bfloat16
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    shards = ShardDataset(data)
    with RunFolder(out, config=config, seed=config.run.seed, kind=f"{config.kind}-tokenizer", resume=resume) as run:
        task: Task = VideoTask.load(config, shards) if config.video is not None else AudioTask.load(config, shards)
        model = build_autoencoder(config)
        path = latest_checkpoint(run.checkpoints) if resume else None
        if config.run.linear_start and path is None:
            task.fit_linear(model)
        model.to(device)
        state = State(model, ema.copy_for_ema(model), _optimizer(model, config))
        if path:
            state.load(path)
        run.truncate_log(state.step)
        if state.step == 0:
            run.log(0, **task.evaluate(task.tokenizer(state.average, None)))
        _loop(config, run, state, task, device, bfloat16)
        exported = out / "tokenizer"
        statistics = task.measure(state.average, device)
        dtype = torch.float16 if config.weights == "float16" else torch.float32
        task.tokenizer(state.average, statistics).save_pretrained(exported, dtype=dtype)
        final = load_tokenizer(exported).to(device)
        scores = task.evaluate(final)
        write_tokenizer_report(run.path, config, scores, statistics, task.cards(final), count_parts(model))
    return exported


def _optimizer(model: nn.Module, config: TokenizerTrainConfig) -> torch.optim.AdamW:
    """AdamW; gains and offsets are not decayed."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
    o = config.optimizer
    return torch.optim.AdamW(groups, o.lr, o.betas, weight_decay=o.weight_decay)


def _loop(
    config: TokenizerTrainConfig, run: RunFolder, state: State, task: Task, device: torch.device, bfloat16: bool
) -> None:
    settings = config.run
    random, decay = Randomness(settings.seed), ema.decay_for(settings.steps, settings.ema_half_life)
    sums: dict[str, float] = {}
    since = 0
    bar = tqdm(total=settings.steps, initial=state.step, desc="training", unit="step")
    with stop_requests() as asked, bar as progress:
        while state.step < settings.steps:
            terms = _step(config, state, task, random, decay, device, bfloat16)
            state.step += 1
            since += 1
            progress.update()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value
            last = state.step == settings.steps
            if last or state.step % settings.log_every == 0:
                means = {name: value / since for name, value in sums.items()}
                run.log(state.step, **means, lr=config.optimizer.lr_at(state.step - 1, settings.steps))
                progress.set_postfix_str(f"loss {means['loss']:.3f}")
                sums, since = {}, 0
            if last or (settings.evaluate_every and state.step % settings.evaluate_every == 0):
                scores = task.evaluate(task.tokenizer(state.average, None))
                run.log(state.step, **scores)
                progress.write(f"step {state.step}: " + ", ".join(f"{k} {v:.2f}" for k, v in scores.items()))
            if asked or last or state.step % settings.save_every == 0:
                state.save(run.checkpoints, settings.keep)
            if asked:
                raise Stopped(f"stopped at step {state.step} with everything saved; go on with --resume")


def _step(
    config: TokenizerTrainConfig,
    state: State,
    task: Task,
    random: Randomness,
    decay: float,
    device: torch.device,
    bfloat16: bool,
) -> dict[str, float]:
    """One optimizer step and one step of the average; the terms of the loss."""
    for group in state.optimizer.param_groups:
        group["lr"] = config.optimizer.lr_at(state.step, config.run.steps)
    ids = draw(random, state.step, config.run.batch, task.count)
    batch = task.batch(random, state.step, ids).to(device)
    noise = config.run.latent_noise * _noise(random, state.step, ids, task.latent_values(batch)).to(device)
    terms = task.loss(state.model, batch, noise, bfloat16)
    loss = torch.stack(list(terms.values())).sum()
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.optimizer.clip)
    report = {"loss": float(loss.detach()), "grad_norm": float(norm)} | {k: float(v.detach()) for k, v in terms.items()}
    bad = [name for name, value in report.items() if not torch.isfinite(torch.tensor(value))]
    if bad:
        raise UserError(
            f"step {state.step}: {bad[0]} is not finite (training clips {ids.tolist()[:4]}...); the last good "
            f"checkpoint stays; lower optimizer.lr or look at these clips, then go on with --resume"
        )
    state.optimizer.step()
    ema.update(state.average, state.model, decay)
    return report


def _noise(random: Randomness, step: int, ids: Tensor, values: int) -> Tensor:
    return random.normal("latent", step, ids, values)


def count_parts(model: nn.Module) -> dict[str, int]:
    """Exact numbers of parameters by top-level part."""
    return {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
