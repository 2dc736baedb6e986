"""A fine-tuning run: data, spec, model and batches, put together and handed to the engine that trains."""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from selfflow_mm.config import from_dict
from selfflow_mm.data.writing import write_video
from selfflow_mm.errors import UserError
from selfflow_mm.flow.objectives import Objective
from selfflow_mm.generation.pipeline import Geometry, Pipeline, refuse_other_text, write_layout
from selfflow_mm.models.joint import JointConfig, JointTransformer
from selfflow_mm.models.lora import add_lora, load_lora, lora_state, merge_lora, trainable
from selfflow_mm.randomness import Randomness
from selfflow_mm.training import ema
from selfflow_mm.training.checkpoint import checkpoint_to_resume
from selfflow_mm.training.engine import as_called, run_steps
from selfflow_mm.training.initialise import initialise
from selfflow_mm.training.parts import blind_to_word_order, build_model, build_text_encoder, pick_device, pick_dtype
from selfflow_mm.training.posthoc_ema import FOLDER as SNAPSHOTS
from selfflow_mm.training.posthoc_ema import PowerAverages, drop_snapshots_after
from selfflow_mm.training.ranks import Ranks, joined
from selfflow_mm.training.run_folder import RunFolder, refuse_taken
from selfflow_mm.training.state import State
from selfflow_mm.training.step import Work
from selfflow_mm.training.trackers import require_trackers
from selfflow_mm.weights import find_weights
from selfflow_tokenizers import ByteTextEncoder, load_tokenizer
from selfflow_tokenizers.media import Video
from selfflow_tokenizers.tensor_file import save_tensors
from selfflow_tokenizers.text import TextEncoder
from selfflow_tokenizers.text_cache import CachedTextEncoder

from ..adapter.model import RobotModel
from ..adapter.spec import RobotSpec
from ..adapter.tasks import TASKS, VIDEO
from .batches import RobotBatches
from .config import FinetuneConfig
from .latents import CachedWindows, encode_episodes
from .offline import OfflineResult, evaluate
from .parts import (
    RobotData,
    episodes_of,
    joint_config,
    lora_config,
    open_data,
    robot_spec,
    robot_statistics,
    robot_tokenizer,
)
from .report import OFFLINE_FILE, write_robot_report
from .streaming import StreamedWindows
from .windows import WindowSource

__all__ = ["finetune"]

KIND = "robot"
ADAPTER_FILE = "lora.safetensors"


def finetune(config: FinetuneConfig, out: Path, *, resume: bool = False) -> Path:
    """Run or resume a fine-tuning run in folder ``out``, in one process or in those that torchrun started.

    Returns:
        the folder of the exported model: a pipeline's, with ``robot.json``.

    Raises:
        UserError: impossible settings or data, or a loss that is no longer finite (the last good checkpoint stays).
        Stopped: it was asked to stop, and has saved itself.
    """
    with joined() as ranks:
        return _finetune(config, out, resume, ranks)


def _finetune(config: FinetuneConfig, out: Path, resume: bool, ranks: Ranks) -> Path:
    share = ranks.share(config.data.batch)
    device, tokenizer, text_encoder = _place_and_encoders(config)
    data = open_data(config)
    # What may be wrong is looked at before there is a folder.
    require_trackers(config.run.trackers)
    if not resume and ranks.first:
        refuse_taken(out)
    elif resume and (out / "model" / "config.json").exists():
        refuse_other_text(out / "model", text_encoder)
    start = checkpoint_to_resume(out / "checkpoints", ranks) if resume else None
    if ranks.first:  # measured once, by one process
        robot_statistics(config, data, out, begun=resume, resumed=start is not None)
    ranks.wait()
    statistics = robot_statistics(config, data, out, begun=True, resumed=start is not None)
    spec = robot_spec(config, data, statistics, tokenizer)
    kept, kept_tokenizers = _kept_audio(config, out if start else None)
    model_config = joint_config(config, spec, tokenizer, text_encoder, kept)
    if start:
        _refuse_other_shape(out / "model", model_config)
    if ranks.first and (note := blind_to_word_order(model_config, text_encoder)):
        print(note)
    held_out = episodes_of(data.held_out_files, data.held_out) if ranks.first else []
    model, first_weights = _first_model(config, model_config, out if start else None, quiet=not ranks.first)

    run = None
    if ranks.first:
        run = RunFolder(
            out,
            config=config,
            seed=config.run.seed,
            kind=KIND,
            resume=resume,
            trackers=config.run.trackers,
            project=config.run.project,
        )
    try:
        if run:
            if run.changed:
                print(f"going on with other settings than before: {', '.join(run.changed)}")
            if first_weights:
                run.write("init.json", first_weights)
            tokenizers = {VIDEO: tokenizer, **kept_tokenizers}
            layout = (model_config, tokenizers, _geometry(spec), config.sampling, config.objective.text_level)
            write_layout(out / "model", *layout, text_encoder=text_encoder)
            spec.save(out / "model")
        tokenizer.to(device)
        windows = _windows(config, data, tokenizer, spec, out, ranks)
        text_encoder = _cached_text(config, text_encoder, windows, out, device)
        model = model.to(device)
        teacher = ema.copy_for_ema(model)
        optimizer = torch.optim.AdamW(
            trainable(model),
            config.optimizer.lr,
            config.optimizer.betas,
            weight_decay=config.optimizer.weight_decay,
            fused=True,
        )
        batches = RobotBatches(config, windows, spec, tokenizer, text_encoder, share)
        averages = config.run.posthoc_ema
        state = State(
            model,
            teacher,
            optimizer,
            batches,
            PowerAverages(model, averages.stds) if averages.every else None,
            0,
            ranks,
        )
        if start:
            state.load(start)
        if run:
            run.truncate_log(state.step)
            drop_snapshots_after(out / SNAPSHOTS, state.step)
        objective = Objective(config.robot_objective(), {VIDEO: tokenizer.spec.train_shift})
        student, seen = as_called(config.run, model, teacher)
        decay = config.run.ema_decay or ema.decay_for(config.run.steps, config.run.ema_half_life)
        dtype = pick_dtype(config.run.precision, device)
        random = Randomness(config.run.seed)
        work = Work(student, seen, objective, random, decay, device, dtype, out / "checkpoints")
        robot = _robot_model(config, teacher, tokenizer, text_encoder, spec, dtype)

        def report() -> None:
            write_robot_report(out, config, title=out.name)

        def samples(step: int) -> None:
            if run is None:
                return
            found = _measured(config, robot, held_out)
            folder = run.samples_dir(step)
            _write_json(folder / OFFLINE_FILE, found.numbers)
            _write_films(folder, found, spec)

        trains = {modality for name in config.trained for modality in TASKS[name].conditions().generate}
        run_steps(config.run, config.optimizer, run, state, work, trains=trains, report=report, samples=samples)
        if run:
            found = _measured(config, robot, held_out)
            run.write(OFFLINE_FILE, found.numbers)
            _write_films(run.samples_dir(state.step), found, spec)
            _export(
                config, teacher, {VIDEO: tokenizer, **kept_tokenizers}, text_encoder, spec, out / "model", state.step
            )
            report()
        ranks.wait()
    finally:
        if run:
            run.close()
    return out / "model"


def _place_and_encoders(config: FinetuneConfig) -> tuple[torch.device, Any, Any]:
    device = pick_device(config.run.device)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    return device, robot_tokenizer(config), build_text_encoder(config.text)


def _refuse_other_shape(folder: Path, model: JointConfig) -> None:
    """UserError, before anything is written, where a run would go on with a model that its checkpoints do not fit."""
    path = folder / "config.json"
    stated = from_dict(JointConfig, json.loads(path.read_text(encoding="utf-8"))["model"], str(path))
    names = [f.name for f in fields(JointConfig) if getattr(stated, f.name) != getattr(model, f.name)]
    if names := [name for name in names if name != "preset"]:
        raise UserError(
            f"the model in {folder} has another {' and '.join(names)}; go on with the settings that it was begun with"
        )


def _kept_audio(config: FinetuneConfig, resumed: Path | None) -> tuple[dict[str, int], dict[str, Any]]:
    """Channels and tokenizer of the sound layers that stay in the model; a run in ``resumed`` has its own copy."""
    if config.audio != "kept":
        return {}, {}
    if resumed is not None:
        tokenizer: Any = load_tokenizer(resumed / "model" / "tokenizers" / "audio")
    else:
        tokenizer = Pipeline.from_pretrained(find_weights(config.init)).tokenizers.get("audio")
    if tokenizer is None:
        raise UserError(f"audio: kept, but {config.init} has no sound to keep; set audio=dropped")
    return {"audio": tokenizer.spec.channels}, {"audio": tokenizer}


def _first_model(
    config: FinetuneConfig, shape: JointConfig, resumed: Path | None, *, quiet: bool
) -> tuple[JointTransformer, dict[str, Any] | None]:
    """A new model with the weights that ``init`` names, LoRA laid around it where asked for; one whose weights come
    from a checkpoint of the run in ``resumed`` needs no others.
    """
    model, report = build_model(shape, config.run.seed), None
    if config.init and resumed is None:
        report = initialise(model, config.init)
        if not quiet:
            print(report.text())
    if config.lora.rank:
        # What started fresh has nothing to adapt and is trained whole; a resumed run must do as it did.
        kept = json.loads((resumed / "init.json").read_text())["fresh"] if resumed else []
        fresh = sorted(report.fresh) if report else kept
        lora = replace(config.lora, full=(*lora_config(config).full, *map(re.escape, fresh)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.run.seed)
            add_lora(model, lora)
        if config.adapter and resumed is None:
            load_lora(model, _adapter(config.adapter))
    return model, report.as_dict() if report else None


def _adapter(name: str) -> dict[str, Tensor]:
    path = Path(name) / ADAPTER_FILE if Path(name).is_dir() else Path(name)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"adapter: {path} cannot be read as safetensors ({error})") from None


def _windows(
    config: FinetuneConfig, data: RobotData, tokenizer: Any, spec: RobotSpec, out: Path, ranks: Ranks
) -> WindowSource:
    """Windows out of episodes encoded once, where the tokenizer allows it, else encoded as they come."""
    wanted, seed = config.data, config.run.seed
    if wanted.latents == "off" or tokenizer.spec.time_compression != 1:
        return StreamedWindows(
            data.files, tokenizer, spec, camera=wanted.camera, seed=seed, stride=wanted.stride, ranks=ranks,
            without=data.left_out,
        )  # fmt: skip
    folder = Path(wanted.latents) if wanted.latents else out / "latents"
    if ranks.first:
        encoded = encode_episodes(data.files, data.train, tokenizer, spec, wanted.camera, folder)
        for reason in encoded.quarantine:
            print(f"left out: {reason}")
    ranks.wait()
    if not ranks.first:
        encoded = encode_episodes(data.files, data.train, tokenizer, spec, wanted.camera, folder)
    return CachedWindows(encoded, spec, seed=seed, stride=wanted.stride, ranks=ranks)


def _cached_text(
    config: FinetuneConfig, encoder: TextEncoder, windows: WindowSource, out: Path, device: torch.device
) -> TextEncoder:
    """An encoder that runs once for each instruction; the bundled one, which costs nothing, as it is."""
    if isinstance(encoder, ByteTextEncoder):
        return encoder
    cached = CachedTextEncoder(encoder.to(device), config.text.cache or out / "text")
    if isinstance(windows, CachedWindows):  # all instructions are known, so the encoder can leave the memory
        cached.fill(["", *windows.data.instructions])
        cached.unload()
    return cached


def _robot_model(
    config: FinetuneConfig, teacher: JointTransformer, tokenizer: Any, text_encoder: Any, spec: RobotSpec, dtype: Any
) -> RobotModel:
    return RobotModel(
        teacher,
        tokenizer,
        text_encoder,
        spec,
        steps=config.sampling.steps,
        shift=config.sampling.shift,
        text_level=config.objective.text_level,
        dtype=dtype,
    )


def _measured(config: FinetuneConfig, robot: RobotModel, episodes: list[Any]) -> OfflineResult:
    wanted = config.offline
    return evaluate(
        robot,
        episodes,
        windows=wanted.windows,
        batch=wanted.batch,
        steps=wanted.steps or None,
        camera=config.data.camera,
    )


def _export(
    config: FinetuneConfig,
    teacher: JointTransformer,
    tokenizers: dict[str, Any],
    text_encoder: Any,
    spec: RobotSpec,
    folder: Path,
    step: int,
) -> None:
    """The model's folder: the EMA weights, LoRA merged into them; beside it LoRA's own, a small file."""
    if config.lora.rank:
        beside = folder.parent / f".{ADAPTER_FILE}.tmp"
        save_tensors({n: t.cpu().contiguous() for n, t in lora_state(teacher).items()}, beside)
        os.replace(beside, folder.parent / ADAPTER_FILE)
    merge_lora(teacher)
    pipeline = Pipeline(
        teacher.cpu(), tokenizers, _geometry(spec), config.sampling, config.objective.text_level, text_encoder
    )
    about = {"steps": str(step), "seed": str(config.run.seed)}
    pipeline.save_pretrained(folder, half=config.run.weights == "float16", metadata=about)


def _geometry(spec: RobotSpec) -> Geometry:
    return Geometry(spec.frames(spec.horizon), spec.height, spec.width, spec.video_rate, 0)


def _write_films(folder: Path, found: OfflineResult, spec: RobotSpec) -> None:
    for number, (_, frames) in enumerate(found.films):
        pictures = torch.from_numpy(np.ascontiguousarray(frames))
        write_video(folder / f"world-{number:02d}.mp4", Video(pictures, spec.control_rate))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)
