"""What a run would take, before it takes it: resolved settings, exact parameter counts, FLOPs, a memory estimate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from selfflow_tokenizers import ByteTextEncoder
from selfflow_tokenizers.text import TextEncoder

from ..config import dump_yaml, load_config
from ..data.sizes import captions_at
from ..errors import UserError
from ..models.imagenet import ImageNetConfig
from ..models.joint import JointConfig
from ..models.presets import count_parameters
from ..weights import find_weights
from .cluster import Cluster
from .config import TrainConfig
from .data_sums import DataSums, data_sums
from .memory import TrainingMemory, activations_of, training_memory
from .packed_steps import PackedSteps, packed_steps
from .parts import blind_to_word_order, complete_model_config, pick_device, pick_dtype, refuse_uneven
from .ranks import ONE, Ranks
from .sizes import count_imagenet
from .stand_ins import StatedText, planned_text_encoder, planned_tokenizers
from .workload import TEXT_TOKENS, Draw, draws_of, largest, mean_step_flops


@dataclass(frozen=True)
class Plan:
    """A run's parts in numbers.

    Attributes:
        config: of the run.
        model: its shape, with channels filled in.
        counts: parameters by top-level part.
        dtype: of matrix products.
        text: the encoder of captions; None where labels take their place.
        draws: the kinds of batches.
        notes: what the numbers leave open.
    """

    config: TrainConfig
    model: JointConfig | ImageNetConfig
    counts: dict[str, int]
    device: torch.device
    dtype: torch.dtype
    text: TextEncoder | None
    draws: list[Draw]
    notes: list[str]

    @property
    def parameters(self) -> int:
        return sum(self.counts.values())

    @property
    def recompute(self) -> bool:
        return self.config.run.recompute == "blocks"

    @property
    def channels(self) -> dict[str, int]:
        """Modality -> channels of its tokens; ``text`` where captions are stored as embeddings."""
        if isinstance(self.model, ImageNetConfig):
            return {"image": self.model.token_channels}
        stored = self.text is not None and not isinstance(self.text, ByteTextEncoder)
        return {**self.model.modalities, **({"text": self.model.text_channels} if stored else {})}

    def refuse_uneven(self, ranks: Ranks) -> None:
        """As the run would.

        Raises:
            UserError: batches or heads cannot be shared so.
        """
        if isinstance(self.model, JointConfig):  # train has no other yet
            refuse_uneven(self.config, self.model, ranks)

    def packed(self, ranks: Ranks = ONE) -> PackedSteps:
        """Of a run that packs.

        Raises:
            UserError: a step holds fewer samples than the processes have rows.
        """
        return packed_steps(self.draws, self.config.data.pack, ranks.shares, self.config.run.accumulate)

    def pass_of(self, draw: Draw, ranks: Ranks = ONE) -> tuple[int, int]:
        """Rows that a process takes at once, and tokens of each."""
        if draw.packed:
            return 1, self.packed(ranks).row
        return math.ceil(draw.batch / ranks.shares / self.config.run.accumulate), draw.tokens

    def memory(self, draw: Draw, ranks: Ranks = ONE) -> TrainingMemory:
        """Of one of the processes that share a batch, where each holds a copy of everything."""
        run, size = self.config.run, self.dtype.itemsize
        rows, tokens = self.pass_of(draw, ranks)
        # Captions differ in length, so rows of several samples are padded, and padding is masked.
        masked = run.attention == "sdpa" and isinstance(self.model, JointConfig) and (draw.packed or rows > 1)
        activations = activations_of(
            self.model, tokens, rows, size, recompute=self.recompute, masked=masked, context=ranks.context
        )
        kept = run.posthoc_ema
        memory = training_memory(
            self.parameters,
            activations,
            size,
            averages=1 + (len(kept.stds) if kept.every else 0),
            accumulates=run.accumulate > 1,
        )
        return memory if ranks.world == 1 else replace(memory, averaged=memory.gradients)

    def data(self) -> list[DataSums]:
        """What its data sets hold."""
        return data_sums(self.config, self.draws, self.channels, self.text.values_dtype.itemsize if self.text else 0)


def make_plan(config: TrainConfig, *, for_gpu: bool = False) -> Plan:
    """Everything that can be counted of a run without running it.

    Args:
        config: of the run.
        for_gpu: planned for a GPU that is not here: ``run.precision`` auto is bfloat16.

    Raises:
        UserError: what the run would refuse, except weights and data that are not here but known in numbers.
    """
    tokenizers, notes = planned_tokenizers(config.tokenizers)
    if config.init:
        find_weights(config.init)  # a wrong name should not wait for the run
    device = pick_device(config.run.device)
    dtype = pick_dtype(config.run.precision, device)
    if for_gpu:
        if config.run.precision == "float32":
            raise UserError("the rates of GPUs are those of bfloat16 products, but run.precision is float32")
        dtype = torch.bfloat16
    if config.imagenet:
        draws = draws_of(config, config.imagenet, tokenizers, 0)
        for draw in draws if config.data.sources else ():
            if draw.tokens != config.imagenet.tokens:
                raise UserError(f"imagenet takes {config.imagenet.tokens} tokens, these pictures have {draw.tokens}")
        notes.append(
            "note: train cannot train the ImageNet transformer yet (no reader of class labels); this is a plan"
        )
        counts = count_imagenet(config.imagenet)
        return Plan(config, config.imagenet, counts, device, dtype, None, draws, notes)
    encoder, about_text = planned_text_encoder(config)
    model = complete_model_config(config, tokenizers, encoder)
    draws = draws_of(config, model, tokenizers, _text_tokens(config, encoder))
    blind = blind_to_word_order(model, encoder)
    notes += [*about_text, *([blind] if blind else [])]
    return Plan(config, model, count_parameters(model), device, dtype, encoder, draws, notes)


def describe(path: Path | None, overrides: Sequence[str] = ()) -> str:
    """The dry run of a training config, in words."""
    return describe_config(load_config(TrainConfig, path, overrides))


def describe_config(config: TrainConfig, cluster: Cluster | None = None) -> str:
    """The dry run, and what the run takes on ``cluster`` where that is asked for."""
    from .plan_cluster import cluster_lines

    plan = make_plan(config, for_gpu=cluster is not None)
    if cluster is None:
        # How many processes there will be is not known: the fewest that can share samples so.
        plan.refuse_uneven(Ranks(0, config.parallel.context, config.parallel.context))
    most, steps = largest(plan.draws), config.run.steps
    student, teacher = config.objective.layers(plan.model.depth)
    memory = plan.memory(most)
    dtype = str(plan.dtype).removeprefix("torch.")
    lines = [
        dump_yaml(config).rstrip(),
        "",
        f"Parameters: {plan.parameters:,} ({plan.parameters / 1e6:.1f} M), of them",
        *(f"  {name:18} {count:>14,}" for name, count in plan.counts.items()),
        f"Features: student after block {student}, teacher after block {teacher}, of {plan.model.depth}",
        f"Device{' here' if cluster else ''}: {plan.device}, matrix products in {dtype}",
        *(_packed_lines(plan) if most.packed else [_largest_line(most)]),
        *([_text_line(plan.text, most.text)] if plan.text else []),
        *_data_lines(plan),
        f"Work: {_work(plan, most)}, {amount(steps * mean_step_flops(plan.draws))}FLOPs for {steps:,} of what is drawn",
        f"Memory estimate: {size(memory.state)} for weights, gradients, AdamW and EMA"
        f"{' and bfloat16 copies' if memory.casts else ''},",
        f"  {size(memory.activations)} for activations{_of_pass(plan)}; {size(memory.total)} at the fullest moment",
        *_not_shared(config, cluster),
        *(cluster_lines(plan, cluster) if cluster else []),
        *plan.notes,
    ]
    return "\n".join(lines)


def amount(count: float) -> str:
    """A large number with a prefix: 3.2 T."""
    for factor, prefix in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{count / factor:.3g} {prefix}"
    return f"{count:.0f} "


def size(count: float) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _largest_line(most: Draw) -> str:
    return (
        f"Largest batch: {most.batch} samples of {most.task}, about {most.tokens} tokens each "
        f"({', '.join(f'{m} {n}' for m, n in most.sizes.items())}, text about {most.text})"
    )


def _packed_lines(plan: Plan) -> Iterator[str]:
    """What a step holds that is no batch."""
    samples = sum(d.batch for d in plan.draws)
    tokens = sum(d.batch * d.tokens for d in plan.draws)
    yield (
        f"Packed steps: {plan.config.data.pack:,} tokens at most, text included; in the mean {tokens:,.0f} tokens of "
        f"{samples:,.4g} samples"
    )
    for d in plan.draws:
        yield f"  {d.batch:,.4g} of {d.name}, about {d.tokens:,} tokens each (text about {d.text})"


def _work(plan: Plan, most: Draw) -> str:
    if most.packed:
        return f"{amount(mean_step_flops(plan.draws))}FLOPs for a step in the mean"
    return f"{amount(most.batch * most.flops)}FLOPs for a step on it"


def _of_pass(plan: Plan) -> str:
    passes = plan.config.run.accumulate
    return (" with recomputation" if plan.recompute else "") + (f" of one of {passes} passes" if passes > 1 else "")


def _not_shared(config: TrainConfig, cluster: Cluster | None) -> Iterator[str]:
    """Settings that say nothing of one process."""
    if cluster is None and (config.parallel.shard != 1 or config.parallel.context > 1):
        yield "  of one process alone; what parallel.shard and parallel.context save is planned with --gpu and --gpus"


def _data_lines(plan: Plan) -> Iterator[str]:
    """Of data sets whose size is known."""
    for d in plan.data():
        if not d.samples:
            continue
        text = f", stored captions {amount(d.all_text_bytes)}B" if d.text_bytes else ""
        tokens = f"{d.tokens:,} tokens{f' in the mean of {d.buckets} sizes' if d.buckets > 1 else ''}"
        yield (
            f"Data: {d.name}, {d.samples:,} samples of {tokens} ({amount(d.all_tokens)}tokens); latents "
            f"{amount(d.all_latent_bytes)}B{text}; the run sees each {d.passes:.3g} times"
        )


def _text_tokens(config: TrainConfig, encoder: TextEncoder) -> int:
    """Tokens of a long caption of the data, which sets a batch's length, or of the mean caption where steps are packed;
    without data what captions usually have.
    """
    if isinstance(encoder, ByteTextEncoder):
        return TEXT_TOKENS
    captions = [" ".join(["word"] * TEXT_TOKENS)]
    try:
        for source in config.data.sources.values():
            captions += captions_at(source.path, first=64)
    except UserError:  # a dry run needs no data
        pass
    counts = encoder.count(captions[1:] or captions)
    if not config.data.pack:
        return max(counts)
    return round(sum(counts) / len(counts))


def _text_line(encoder: TextEncoder, tokens: int) -> str:
    channels, settings = encoder.spec.channels, encoder.settings
    line = f"Text: {settings['encoder']}, {channels} channels, at most {encoder.max_tokens} tokens"
    if isinstance(encoder, ByteTextEncoder):
        return line
    kilobytes = tokens * channels * encoder.values_dtype.itemsize / 1024
    stored = f"stored, {kilobytes:.0f} KiB for a caption of {tokens}"
    if isinstance(encoder, StatedText):
        return f"{line} ({encoder.spec.name}); {stored}"
    return f"{line}, layers {', '.join(map(str, settings['layers']))} ({encoder.spec.name}); {stored}"
