"""Training of tokenizers: batch, reconstruction, loss, step, average; stops and goes on to the same bits.

Weights, their average and the optimizer are in the checkpoint; clips, cuts and noise are functions of
(seed, step, clip), so a run that was killed and resumed ends in the weights of one that was not.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from tqdm import tqdm

from selfflow_tokenizers.folder import load_tokenizer

from ..data.shards import ShardDataset
from ..errors import UserError
from ..randomness import Randomness
from . import ema
from .checkpoint import checkpoint_to_resume, read_state
from .parts import pick_device, pick_dtype
from .run_folder import RunFolder
from .stopping import Stopped, stop_requests
from .tokenizer_audio import AudioTask
from .tokenizer_config import TokenizerTrainConfig
from .tokenizer_data import draw
from .tokenizer_latents import divergence, reconstruct
from .tokenizer_report import write_tokenizer_report
from .tokenizer_state import State, build_adversary, build_autoencoder, build_optimizer, count_parts
from .tokenizer_video import VideoTask

Task = VideoTask | AudioTask


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
        path = checkpoint_to_resume(run.checkpoints) if resume else None
        began_with = read_state(path)["state"].get("perceptual") if path else None
        load = VideoTask.load if config.video is not None else AudioTask.load
        task: Task = load(config, shards, began_with)
        task.to(device)
        model = build_autoencoder(config)
        if config.run.linear_start and path is None:
            task.fit_linear(model)
        model.to(device)
        adversary = build_adversary(config, device, bfloat16)
        perceptual = task.perceptual.kind if isinstance(task, VideoTask) else "none"
        state = State(model, ema.copy_for_ema(model), build_optimizer(model, config), adversary, perceptual)
        if path:
            state.load(path)
        run.truncate_log(state.step)
        if state.step == 0:
            run.log(0, **task.evaluate(task.tokenizer(state.average, None)))
        _loop(config, run, state, task, device, bfloat16)
        exported = out / "tokenizer"
        finished = task.finish(state.average, device)
        statistics = task.measure(finished, device)
        dtype = torch.float16 if config.weights == "float16" else torch.float32
        task.tokenizer(finished, statistics).save_pretrained(exported, dtype=dtype)
        final = load_tokenizer(exported).to(device)
        scores = task.evaluate(final) | statistics.scores()
        parts = count_parts(model)
        write_tokenizer_report(run.path, config, scores, statistics, task.cards(final), parts, task.notes())
    return exported


def _loop(
    config: TokenizerTrainConfig, run: RunFolder, state: State, task: Task, device: torch.device, bfloat16: bool
) -> None:
    settings = config.run
    random, decay = Randomness(settings.seed), ema.decay_for(settings.steps, settings.ema_half_life)
    seen: dict[str, list[float]] = {}
    bar = tqdm(total=settings.steps, initial=state.step, desc="training", unit="step")
    with stop_requests() as asked, bar as progress:
        for note in task.notes():
            progress.write(note)
        while state.step < settings.steps:
            terms = _step(config, state, task, random, decay, device, bfloat16)
            state.step += 1
            progress.update()
            for name, value in terms.items():
                seen.setdefault(name, []).append(value)
            last = state.step == settings.steps
            if last or state.step % settings.log_every == 0:
                means = {name: sum(values) / len(values) for name, values in seen.items()}
                run.log(state.step, **means, lr=config.optimizer.lr_at(state.step - 1, settings.steps))
                progress.set_postfix_str(f"loss {means['loss']:.3f}")
                seen = {}
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
    """One step of the optimizer, of the discriminator's and of the average; the terms of the loss."""
    rate = config.optimizer.lr_at(state.step, config.run.steps)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    ids = draw(random, state.step, config.run.batch, task.count)
    media = task.media(task.batch(random, state.step, ids).to(device))
    adversary = state.adversary
    weight = adversary.weight_at(state.step) if adversary else 0.0
    frozen = weight > 0 and config.adversarial.freeze_encoder

    def noise(values: int) -> torch.Tensor:
        return random.normal("latent", state.step, ids, values).to(device)

    made = reconstruct(state.model, media, noise, config.run.latent_noise, bfloat16, frozen)
    terms = task.terms(made.output, media, random, state.step, ids, bfloat16)
    kl = None
    if made.log_variance is not None and not frozen:
        kl = task.part.loss.kl * divergence(made.mean, made.log_variance).mean()
    state.optimizer.zero_grad(set_to_none=True)
    facts: dict[str, float] = {}
    if adversary is not None and weight > 0:
        real, fake = (task.views(x, media, random, state.step, ids) for x in (media, made.output))
        against = adversary.judge(fake, real)
        last = task.last_layer(state.model)
        terms["adversarial"], facts = adversary.backward(terms, kl, against, weight, made.output, last)
        facts |= adversary.learn(fake, real, config.optimizer.clip)
    if kl is not None:
        terms["kl"] = kl
    loss = torch.stack(list(terms.values())).sum()
    if adversary is None or weight == 0:
        loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.optimizer.clip)
    report = {"loss": float(loss.detach()), "grad_norm": float(norm)} | {k: float(v.detach()) for k, v in terms.items()}
    report |= facts
    bad = [name for name, value in report.items() if not math.isfinite(value)]
    if bad:
        lower = "the discriminator's lr" if bad[0] in facts else "optimizer.lr"
        raise UserError(
            f"step {state.step}: {bad[0]} is not finite (training clips {ids.tolist()[:4]}...); the last good "
            f"checkpoint stays; lower {lower} or look at these clips, then go on with --resume"
        )
    state.optimizer.step()
    if facts and adversary is not None:
        adversary.step(rate / config.optimizer.lr)
    ema.update(state.average, state.model, decay)
    return report
