"""A training run of the transformer on prepared data: its parts, put together and handed to the engine."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from ..conditions import Conditions
from ..errors import UserError
from ..flow.objectives import Objective
from ..generation.pipeline import Pipeline, refuse_other_text, write_layout
from ..models.joint import JointConfig, JointTransformer
from ..randomness import Randomness
from . import ema, posthoc_ema
from .checkpoint import checkpoint_to_resume
from .config import DataConfig, TrainConfig
from .encoders import build_features
from .engine import as_called, run_steps
from .parts import (
    blind_to_word_order,
    build_batches,
    build_model,
    build_text_encoder,
    clip_geometry,
    complete_model_config,
    encode_captions,
    encode_sources,
    encoded_geometry,
    load_tokenizers,
    pick_device,
    pick_dtype,
    refuse_other_latents,
    refuse_uneven,
    with_weights,
)
from .prefetch import Prefetched
from .ranks import Ranks, joined
from .report import write_report
from .run_folder import RunFolder, refuse_taken
from .sharding import mesh_of, put_on, sharded, whole_on_cpu
from .state import State
from .step import Work


def train(config: TrainConfig, out: Path, *, resume: bool = False) -> Path:
    """Run or resume a training run in folder ``out``, in one process or in those that torchrun started.

    Returns:
        the folder of the exported model.

    Raises:
        UserError: impossible settings or data, or a loss that is no longer finite (the last good checkpoint stays).
        Stopped: it was asked to stop, and has saved itself.
    """
    if config.imagenet:
        raise UserError(
            "imagenet: class-conditional training is not built yet; --dry-run plans it, and sample-imagenet samples "
            "weights of that kind"
        )
    with joined(config.parallel.context) as ranks:
        return _train(config, out, resume, ranks)


def _train(config: TrainConfig, out: Path, resume: bool, ranks: Ranks) -> Path:
    device = pick_device(config.run.device)
    dtype = pick_dtype(config.run.precision, device)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    tokenizers, named = load_tokenizers(config.tokenizers)
    text_encoder = build_text_encoder(config.text)
    model_config = complete_model_config(config, tokenizers, text_encoder)
    if ranks.first and (note := blind_to_word_order(model_config, text_encoder)):
        print(note)
    # What may be wrong is looked at before there is a folder: data sets, shares, encoders, first weights.
    if not config.data.sources:
        raise UserError("data.sources names no data set; add one, e.g. data.sources.clips.path=SHARDS")
    refuse_uneven(config, model_config, ranks)
    mesh = mesh_of(config.parallel.shard, ranks, device)
    if not resume and ranks.first:
        refuse_taken(out)
    elif resume and (out / "model" / "config.json").exists():
        refuse_other_text(out / "model", text_encoder)
    refuse_other_latents(config, tokenizers, named)
    clip_geometry(config)  # data that cannot be read say so here
    features = None
    if config.objective.encoders:
        features = build_features(config.objective.encoders, tokenizers).to(device)
    start = checkpoint_to_resume(out / "checkpoints", ranks) if resume else None
    model, first_weights = _first_model(config, model_config, goes_on=start is not None, quiet=not ranks.first)
    ranks.wait()  # nobody makes the folder before all have looked

    run = None
    if ranks.first:
        run = RunFolder(
            out,
            config=config,
            seed=config.run.seed,
            kind="transformer",
            resume=resume,
            trackers=config.run.trackers,
            project=config.run.project,
        )
    try:
        half = config.run.weights == "float16"
        text_level = config.objective.text_level
        if run:
            if run.changed:
                print(f"going on with other settings than before: {', '.join(run.changed)}")
            if first_weights:
                run.write("init.json", first_weights)
        for tokenizer in tokenizers.values():
            tokenizer.to(device)
        with ranks.first_alone():  # it encodes what is not encoded yet, and the others find it done
            sources = encode_sources(config, tokenizers, named, out, quiet=not ranks.first)
            text_encoder = encode_captions(config, text_encoder, sources, out, device, quiet=not ranks.first)
        geometry = encoded_geometry(sources)
        if run:
            layout = (model_config, tokenizers, geometry, config.sampling, text_level)
            write_layout(out / "model", *layout, text_encoder=text_encoder)
        batches = build_batches(config, sources, text_encoder, ranks)
        teacher = ema.copy_for_ema(model)
        for m in (model, teacher):
            put_on(m, device, mesh, dtype)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            config.optimizer.lr,
            config.optimizer.betas,
            weight_decay=config.optimizer.weight_decay,
            fused=True,  # no temporaries as large as the model
        )
        kept = config.run.posthoc_ema
        averages = posthoc_ema.PowerAverages(model, kept.stds) if kept.every else None
        state = State(model, teacher, optimizer, batches, averages, ranks=ranks)
        if start:
            state.load(start)
        if run:
            run.truncate_log(state.step)
            posthoc_ema.drop_snapshots_after(out / posthoc_ema.FOLDER, state.step)
        objective = Objective(config.objective, {m: t.spec.train_shift for m, t in tokenizers.items()}, features)
        pipeline = Pipeline(teacher, tokenizers, geometry, config.sampling, text_level, text_encoder)
        student, seen = as_called(config.run, model, teacher, ranks)
        decay = config.run.ema_decay or ema.decay_for(config.run.steps, config.run.ema_half_life)
        work = Work(student, seen, objective, Randomness(config.run.seed), decay, device, dtype, out / "checkpoints")

        def report() -> None:
            write_report(out, config, title=out.name)

        def samples(step: int) -> None:
            # Whole models are sampled in float32; the weights of one that is shared arrive in the type of training.
            with torch.autocast(device.type, dtype, enabled=sharded(teacher) and dtype != torch.float32):
                _draw_samples(config, run, step, pipeline)

        trains = generated_by(config.data)
        with _made_ahead(config, state, device):
            run_steps(config.run, config.optimizer, run, state, work, trains=trains, report=report, samples=samples)
        weights = whole_on_cpu(teacher)
        if run:
            pipeline.model = with_weights(model_config, weights)
            about = {"steps": str(state.step), "seed": str(config.run.seed)}
            pipeline.save_pretrained(out / "model", half=half, metadata=about)
            report()
        ranks.wait()
    finally:
        if run:
            run.close()
    return out / "model"


def _made_ahead(config: TrainConfig, state: State, device: torch.device) -> AbstractContextManager[object]:
    """While inside, the state's batches are made ahead of the steps."""
    if not config.run.prefetch:
        return nullcontext()
    state.batches = batches = Prefetched(state.batches, config.run.prefetch, pin=device.type == "cuda")
    return batches


def generated_by(data: DataConfig) -> set[str]:
    """The modalities that the tasks of a run generate, as far as their batches are ever drawn."""
    drawn = [source.tasks for source in data.sources.values() if source.ratio > 0]
    tasks = {task for shares in drawn for task, share in shares.items() if share > 0}
    return {modality for task in tasks for modality in Conditions.named(task).generate}


def _first_model(
    config: TrainConfig, model_config: JointConfig, *, goes_on: bool, quiet: bool
) -> tuple[JointTransformer, dict[str, Any] | None]:
    """A new model, with the weights that ``init`` names and what was taken from them; a run that goes on needs none."""
    model = build_model(model_config, config.run.seed)
    if not config.init or goes_on:
        return model, None
    from .initialise import initialise

    report = initialise(model, config.init)
    if not quiet:
        print(report.text())
    return model, report.as_dict()


def _draw_samples(config: TrainConfig, run: RunFolder | None, step: int, pipeline: Pipeline) -> None:
    """Clips of every task; a model that is shared among processes is asked by all of them, and the first one writes."""
    if run is None and not sharded(pipeline.model):
        return
    prompts = list(config.run.prompts) or [""]
    tasks = {task for s in config.data.sources.values() for task, share in s.tasks.items() if share > 0}
    folder = run.samples_dir(step) if run else None
    for task in sorted(tasks & {"t2va", "t2v", "t2a", "t2i"}):
        for i, result in enumerate(pipeline(prompts, task, seed=config.run.seed)):
            if folder:
                result.save(folder / f"{task}-{i:02d}{result.endings[0]}")
