"""What a run would take, before it takes it: resolved settings, exact parameter counts, FLOPs, a memory estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from selfflow_tokenizers import ByteTextEncoder
from selfflow_tokenizers.stream import TokenStream
from selfflow_tokenizers.text import TextEncoder

from ..conditions import Conditions
from ..config import dump_yaml, load_config
from ..data.shards import ShardDataset
from ..errors import UserError
from ..flow.objectives import Batch, Objective
from ..generation.pipeline import Geometry
from ..models.joint import JointConfig
from ..models.presets import count_parameters
from ..weights import find_weights
from .config import TrainConfig
from .memory import activation_bytes, training_memory
from .parts import (
    blind_to_word_order,
    build_text_encoder,
    clip_geometry,
    complete_model_config,
    load_tokenizers,
    pick_device,
    pick_dtype,
)
from .throughput import Throughput

#: Tokens of a caption, about.
TEXT_TOKENS = 16


def describe(path: Path | None, overrides: Sequence[str] = ()) -> str:
    """The dry run of a training config, in words."""
    return describe_config(load_config(TrainConfig, path, overrides))


def describe_config(config: TrainConfig) -> str:
    tokenizers, _ = load_tokenizers(config.tokenizers)
    text_encoder = build_text_encoder(config.text)
    if config.init:
        find_weights(config.init)  # a wrong name should not wait for the run
    model = complete_model_config(config, tokenizers, text_encoder)
    note = blind_to_word_order(model, text_encoder)
    counts = count_parameters(model)
    total = sum(counts.values())
    device = pick_device(config.run.device)
    dtype = pick_dtype(config.run.precision, device)
    batch = max((s.batch for s in config.data.sources.values()), default=1)
    task, sizes = _largest_task(config, tokenizers)
    text_tokens = _text_tokens(config, text_encoder)
    tokens = text_tokens + sum(sizes.values())
    recompute = config.run.recompute == "blocks"
    kept = config.run.posthoc_ema
    memory = training_memory(
        total,
        activation_bytes(model, tokens, batch, dtype.itemsize, recompute=recompute),
        dtype.itemsize,
        averages=1 + (len(kept.stds) if kept.every else 0),
    )
    flops = batch * flops_per_sample(config, model, task, sizes, text_tokens)
    student, teacher = config.objective.layers(model.depth)
    lines = [
        dump_yaml(config).rstrip(),
        "",
        f"Parameters: {total:,} ({total / 1e6:.1f} M), of them",
        *(f"  {name:18} {count:>14,}" for name, count in counts.items()),
        f"Features: student after block {student}, teacher after block {teacher}, of {model.depth}",
        f"Device: {device}, matrix products in {str(dtype).removeprefix('torch.')}",
        f"Largest batch: {batch} samples of {task}, about {tokens} tokens each "
        f"({', '.join(f'{m} {n}' for m, n in sizes.items())}, text about {text_tokens})",
        _text_line(text_encoder, text_tokens),
        f"Work: {amount(flops)}FLOPs for a step on it, {amount(flops * config.run.steps)}FLOPs for "
        f"{config.run.steps:,} of them",
        f"Memory estimate: {_gib(memory.state)} for weights, gradients, AdamW and EMA"
        f"{' and bfloat16 copies' if memory.casts else ''},",
        f"  {_gib(memory.activations)} for activations{' with recomputation' if recompute else ''}; "
        f"{_gib(memory.total)} in all",
        *([note] if note else []),
    ]
    return "\n".join(lines)


def flops_per_sample(
    config: TrainConfig, model: JointConfig, task: str, sizes: Mapping[str, int], text_tokens: int = TEXT_TOKENS
) -> int:
    """FLOPs of one sample of a task in a training step, counted as the log's ``tflops`` are.

    Args:
        config: of the run.
        model: its completed config.
        task: the task's name.
        sizes: modality -> tokens.
        text_tokens: of the caption.
    """
    streams = {m: _empty(n, model.modalities[m]) for m, n in sizes.items()}
    text = _empty(text_tokens, model.text_channels)
    batch = Batch(streams, Conditions.named(task), text, torch.zeros(1, dtype=torch.int64))
    objective = Objective(config.objective, features=lambda _: {})  # none is computed, only counted
    return Throughput(model, objective).flops(batch, step=0)


def amount(count: float) -> str:
    """A large number with a prefix: 3.2 T."""
    for factor, prefix in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if count >= factor:
            return f"{count / factor:.3g} {prefix}"
    return f"{count:.0f} "


def _text_tokens(config: TrainConfig, encoder: TextEncoder) -> int:
    """Tokens of a long caption of the data; without data what captions usually have."""
    if isinstance(encoder, ByteTextEncoder):
        return TEXT_TOKENS
    captions = [" ".join(["word"] * TEXT_TOKENS)]
    try:
        for source in config.data.sources.values():
            data = ShardDataset(source.path)
            captions += [caption for i in range(min(len(data), 64)) for caption in data.captions(i)]
    except UserError:  # a dry run needs no data
        pass
    return max(encoder.count(captions[1:] or captions))


def _text_line(encoder: TextEncoder, tokens: int) -> str:
    channels, kind = encoder.spec.channels, encoder.settings["encoder"]
    line = f"Text: {kind}, {channels} channels, at most {encoder.max_tokens} tokens"
    if isinstance(encoder, ByteTextEncoder):
        return line
    layers = ", ".join(map(str, encoder.settings["layers"]))
    size = tokens * channels * encoder.values_dtype.itemsize
    return f"{line}, layers {layers} ({encoder.spec.name}); stored, {size / 1024:.0f} KiB for a caption of {tokens}"


def _largest_task(config: TrainConfig, tokenizers: Mapping[str, Any]) -> tuple[str, dict[str, int]]:
    """The task with most tokens and its tokens by modality, for the clips of the configured data where these can be
    opened.
    """
    try:
        g = clip_geometry(config)
    except UserError:  # a dry run needs no data
        g = Geometry()
    sizes = {}
    for m, t in tokenizers.items():
        positions = (
            t.positions(g.samples)
            if m == "audio"
            else t.positions(g.frames if m == "video" else 1, g.height, g.width, g.fps)
        )
        sizes[m] = len(positions)
    tasks = [task for s in config.data.sources.values() for task, share in s.tasks.items() if share > 0]
    possible = [t for t in tasks or ("t2va", "t2v", "t2a", "t2i") if set(Conditions.named(t).modalities) <= set(sizes)]
    of_task = {t: {m: sizes[m] for m in Conditions.named(t).modalities} for t in possible}
    if not of_task:
        raise UserError(
            f"there is no task for the tokenizers of {', '.join(sizes)}; name one in data.sources.NAME.tasks"
        )
    largest = max(of_task, key=lambda t: sum(of_task[t].values()))
    return largest, of_task[largest]


def _empty(tokens: int, channels: int) -> TokenStream:
    return TokenStream.dense(torch.empty(1, tokens, channels), torch.zeros(tokens, 4))


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
