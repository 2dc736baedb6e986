"""What a fine-tuning run would take, before it takes it: settings, parameters, tokens per task, FLOPs, memory."""

from __future__ import annotations

from typing import Any

import torch

from selfflow_mm.config import dump_yaml
from selfflow_mm.flow.objectives import Batch, Objective
from selfflow_mm.models.presets import count_parameters
from selfflow_mm.training.memory import activations_of, training_memory
from selfflow_mm.training.parts import blind_to_word_order, build_text_encoder, pick_device, pick_dtype
from selfflow_mm.training.plan import amount
from selfflow_mm.training.throughput import Throughput
from selfflow_mm.weights import find_weights

from ..adapter.spec import RobotSpec
from ..adapter.streams import video_positions
from ..adapter.tasks import TASKS
from .batches import batch_of
from .config import FinetuneConfig
from .parts import joint_config, open_data, robot_spec, robot_statistics, robot_tokenizer
from .windows import TokenWindows

__all__ = ["describe"]

_INSTRUCTION = "pick coke can from bottom drawer and place on counter"  # a long one of RT-1's


def describe(config: FinetuneConfig) -> str:
    """The dry run of a config, in words. It reads the data's columns, for these decide the model's layers.

    Raises:
        UserError: what the run itself would refuse before its first step.
    """
    data = open_data(config)
    tokenizer = robot_tokenizer(config)
    text_encoder = build_text_encoder(config.text)
    if config.init:
        find_weights(config.init)
    spec = robot_spec(config, data, robot_statistics(config, data, None), tokenizer)
    model = joint_config(config, spec, tokenizer, text_encoder, {})
    counts = count_parameters(model)
    total = sum(counts.values())
    device = pick_device(config.run.device)
    dtype = pick_dtype(config.run.precision, device)
    objective = Objective(config.robot_objective())
    lines = [
        dump_yaml(config).rstrip(),
        "",
        f"Data: {len(data.train):,} episodes of {config.data.path}, {len(data.held_out)} held out; {spec.robot} at "
        f"{spec.control_rate:g} actions a second",
        f"Window: {spec.horizon} actions of {len(spec.action_names)} numbers, {spec.frames(spec.horizon)} frames of "
        f"{spec.height} x {spec.width} at {spec.video_rate:g} a second",
        f"Parameters: {total:,} ({total / 1e6:.1f} M), of them",
        *(f"  {name:18} {count:>14,}" for name, count in counts.items()),
        f"Device: {device}, matrix products in {str(dtype).removeprefix('torch.')}",
        "Tasks:",
    ]
    largest, mean = 0, 0.0
    shares = sum(config.tasks[name] for name in config.trained)
    for name in config.trained:
        batch = _empty_batch(name, spec, tokenizer, text_encoder)
        sizes = {m: s.values.shape[1] for m, s in batch.streams.items()}
        text = batch.text.values.shape[1] if not isinstance(batch.text, torch.Tensor) else 0
        flops = Throughput(model, objective, lora=config.lora.rank > 0).flops(batch, step=0)
        mean += config.tasks[name] / shares * flops
        largest = max(largest, text + sum(sizes.values()))
        tokens = ", ".join(f"{m} {n}" for m, n in sizes.items())
        lines.append(
            f"  {name:8} {config.tasks[name] / shares:4.0%} of batches, tokens: {tokens}, text about {text}; "
            f"{amount(flops)}FLOPs a sample"
        )
    kept = config.run.posthoc_ema
    recompute = config.run.recompute == "blocks"
    memory = training_memory(
        total,
        activations_of(model, largest, config.data.batch, dtype.itemsize, recompute=recompute),
        dtype.itemsize,
        averages=1 + (len(kept.stds) if kept.every else 0),
    )
    step = mean * config.data.batch
    lines += [
        f"Work: {amount(step)}FLOPs for a step of {config.data.batch} windows in the mean, "
        f"{amount(step * config.run.steps)}FLOPs for {config.run.steps:,} of them",
        f"Memory estimate with all parameters trained: {memory.state / 2**30:.2f} GiB for weights, AdamW and EMA,"
        f" {memory.activations / 2**30:.2f} GiB for activations",
    ]
    if note := blind_to_word_order(model, text_encoder):
        lines.append(note)
    return "\n".join(lines)


def _empty_batch(task: str, spec: RobotSpec, tokenizer: Any, text_encoder: Any) -> Batch:
    """One sample of a task, with the sizes that count and values that do not."""
    frames = 1 if TASKS[task].video == "present" else spec.frames(spec.horizon)
    tokens = len(video_positions(tokenizer, spec, frames))
    windows = TokenWindows(
        video=torch.zeros(1, tokens, tokenizer.spec.channels),
        actions=torch.zeros(1, spec.horizon, len(spec.action_names)),
        states=torch.zeros(1, len(spec.state_names)) if spec.state_names else None,
        instructions=[_INSTRUCTION],
        ids=torch.zeros(1, dtype=torch.int64),
        names=[""],
    )
    return batch_of(task, windows, [_INSTRUCTION], spec, tokenizer, text_encoder)
