"""What a run would take, before it takes it: resolved settings, exact parameter counts, a memory estimate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..conditions import Conditions
from ..config import dump_yaml, load_config
from ..errors import UserError
from ..flow.objectives import Objective
from ..generation.pipeline import Geometry
from ..models.joint import JointConfig, JointTransformer
from .config import TrainConfig
from .parts import build_text_encoder, clip_geometry, complete_model_config, load_tokenizers, pick_device, pick_dtype


def count_parameters(config: JointConfig) -> dict[str, int]:
    """Exact parameters by top-level part, counted on a model that takes no memory (meta device)."""
    with torch.device("meta"):
        model = JointTransformer(config)
    return {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}


def activation_bytes(config: JointConfig, tokens: int, batch: int, bytes_per_value: int) -> int:
    """Estimate of what a backward pass keeps: per block and token, inputs of every matrix product and of every
    elementwise step that needs its input again, in float32 where the residual stream is."""
    d, hidden = config.width, config.hidden
    matrices = 5 * d + 3 * hidden  # normed inputs, q, k, v, attention's output; SwiGLU's two halves and product
    residual = 6 * d  # float32: norms, modulated values, q and k before rotation
    return config.depth * tokens * batch * (matrices * bytes_per_value + residual * 4)


def describe(path: Path | None, overrides: Sequence[str] = ()) -> str:
    """The dry run of a training config, in words."""
    return describe_config(load_config(TrainConfig, path, overrides))


def describe_config(config: TrainConfig) -> str:
    tokenizers, _ = load_tokenizers(config.tokenizers)
    model = complete_model_config(config, tokenizers, build_text_encoder())
    counts = count_parameters(model)
    total = sum(counts.values())
    device = pick_device(config.run.device)
    dtype = pick_dtype(config.run.precision, device)
    batch = max((s.batch for s in config.data.sources.values()), default=1)
    tokens = _tokens(config, tokenizers)
    weights = total * 4 * 5  # weights, gradient, two AdamW moments and the EMA, all float32
    activations = activation_bytes(model, tokens, batch, 2 if dtype == torch.bfloat16 else 4)
    student, teacher = Objective(config.objective).config.layers(model.depth)
    lines = [
        dump_yaml(config).rstrip(),
        "",
        f"Parameters: {total:,} ({total / 1e6:.1f} M), of them",
        *(f"  {name:18} {count:>14,}" for name, count in counts.items()),
        f"Features: student after block {student}, teacher after block {teacher}, of {model.depth}",
        f"Device: {device}, matrix products in {str(dtype).removeprefix('torch.')}",
        f"Memory estimate: {_gib(weights)} for weights, gradients, AdamW and EMA,",
        f"  {_gib(activations)} for activations of {batch} samples of about {tokens} tokens; "
        f"{_gib(weights + activations)} in all",
    ]
    return "\n".join(lines)


def _tokens(config: TrainConfig, tokenizers: dict) -> int:
    """Tokens per sample of the largest task, for the clips of the configured data where these can be opened, text
    (about 16) included.
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
    tasks = [task for s in config.data.sources.values() for task in s.tasks]
    return 16 + max((sum(sizes[m] for m in Conditions.named(t).modalities) for t in tasks), default=sum(sizes.values()))


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
