"""What the steps of a planned run are made of: tasks, how often each is drawn, its tokens, its arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from selfflow_tokenizers.stream import TokenStream

from ..conditions import Conditions
from ..data.latents import VERSION_SEVERAL, LatentDataset, is_latents, read_about
from ..data.shards import ShardDataset
from ..data.sizes import samples_at, stated_buckets
from ..errors import UserError
from ..flow.objectives import Batch, Objective, ObjectiveConfig
from ..flow.schedules import dual_timesteps
from ..generation.pipeline import Geometry
from ..models.flops import imagenet_forward_flops, training_step_flops
from ..models.imagenet import ImageNetConfig
from ..models.joint import JointConfig
from .config import SourceConfig, TrainConfig
from .packed_steps import packed_steps
from .packing import refuse_large
from .parts import geometry_of
from .throughput import Throughput

#: Tokens of a caption, about, where no encoder or data say better.
TEXT_TOKENS = 16
#: What is planned for where the config names no task.
_USUAL = ("t2va", "t2v", "t2a", "t2i")


#: Which of a sample's sizes tell samples of a modality apart.
_TOLD_BY = {"video": ("frames", "height", "width"), "image": ("height", "width"), "audio": ("samples",)}


@dataclass(frozen=True)
class Draw:
    """One kind of batch; or one kind of sample of packed steps, of which every step has some.

    Attributes:
        source: name of its data set; empty where the config has none.
        task: what it trains.
        share: of all steps, in [0, 1].
        batch: samples of a step, all devices together; in the mean where steps are packed.
        sizes: modality -> tokens of a sample.
        text: tokens of a caption; 0 for the ImageNet transformer.
        flops: of one sample in a training step, by the formula of ``models.flops``.
        again: FLOPs that recomputation adds to that; no work of the model.
        bucket: what tells it from others of the task, where samples of the source differ in size.
        packed: it shares its step with other kinds.
    """

    source: str
    task: str
    share: float
    batch: float
    sizes: Mapping[str, int]
    text: int
    flops: int = 0
    again: int = 0
    bucket: str = ""
    packed: bool = False

    @property
    def name(self) -> str:
        """Source, task and bucket."""
        return f"{self.source} {self.task}" + (f" ({self.bucket})" if self.bucket else "")

    @property
    def tokens(self) -> int:
        """Of one sample, text included."""
        return self.text + sum(self.sizes.values())


def draws_of(
    config: TrainConfig, model: JointConfig | ImageNetConfig, tokenizers: Mapping[str, Any], text_tokens: int
) -> list[Draw]:
    """Every kind of batch that the run draws.

    Samples have the shape of the data where these are here, else that which ``expects`` says, else the bundled world's.
    Where their sizes differ, each bucket is a kind of its own. Where steps are packed (``data.pack``), every kind is in
    each of them, by its share of the samples.

    Raises:
        UserError: no task can be made of these tokenizers, or a sample is larger than a packed step.
    """
    sources = {n: s for n, s in config.data.sources.items() if s.ratio > 0}
    if not sources:
        sizes = _tokens(Geometry(), tokenizers)
        possible = [t for t in _USUAL if set(Conditions.named(t).modalities) <= set(sizes)]
        if not possible:
            names = ", ".join(sizes)
            raise UserError(f"there is no task for the tokenizers of {names}; name one in data.sources.NAME.tasks")
        largest = max(possible, key=lambda t: sum(sizes[m] for m in Conditions.named(t).modalities))
        return [_counted(config, model, Draw("", largest, 1.0, 1, _of_task(largest, sizes), text_tokens))]
    ratios = sum(s.ratio for s in sources.values())
    draws = []
    for name, source in sources.items():
        shares = sum(source.tasks.values())
        for task, share in source.tasks.items():
            if share > 0:
                part = source.ratio / ratios * share / shares
                buckets = _buckets(source, Conditions.named(task).modalities, tokenizers)
                for bucket, (held, sizes) in buckets.items():
                    draw = Draw(name, task, part * held, source.batch, sizes, text_tokens, bucket=bucket)
                    draws.append(_counted(config, model, draw))
    if not config.data.pack:
        return draws
    for draw in draws:
        refuse_large(config.data.pack, draw.source, draw.task, draw.tokens - draw.text, config.text.max_tokens)
    counts = packed_steps(draws, config.data.pack).counts
    return [replace(d, share=1.0, batch=n, packed=True) for d, n in zip(draws, counts, strict=True)]


def _buckets(
    source: SourceConfig, modalities: tuple[str, ...], tokenizers: Mapping[str, Any]
) -> dict[str, tuple[float, dict[str, int]]]:
    """What the batches of a task differ in: bucket -> its share of them, and modality -> tokens of a sample.

    A bucket without a name where all samples are alike, or nothing is known of their sizes.
    """
    found: dict[str, tuple[float, dict[str, int]]] = {}
    try:
        if is_latents(source.path):
            if read_about(Path(source.path))["version"] == VERSION_SEVERAL:
                data = LatentDataset(Path(source.path), source.max_samples)
                for name, ids in data.buckets(modalities).items():
                    found[name] = (len(ids), {m: data.tokens(m, ids[0]) for m in modalities})
        else:
            for bucket in stated_buckets(ShardDataset(source.path).info):
                if bucket.modalities >= set(modalities):
                    sizes = _tokens(replace(Geometry(), **bucket.sizes), tokenizers)
                    told = {n for m in modalities for n in _TOLD_BY[m]}
                    name = ", ".join(f"{n} {value:g}" for n, value in bucket.sizes.items() if n in told)
                    found[name] = (found.get(name, (0, {}))[0] + bucket.samples, {m: sizes[m] for m in modalities})
    except UserError:  # a dry run needs no data
        pass
    if len(found) < 2:
        sizes = _tokens(shape_of(source, tokenizers), tokenizers)
        return {"": (1.0, {m: sizes[m] for m in modalities})}
    samples = sum(count for count, _ in found.values())
    return {name: (count / samples, sizes) for name, (count, sizes) in found.items()}


def largest(draws: Sequence[Draw]) -> Draw:
    """The batch with most tokens."""
    return max(draws, key=lambda d: d.batch * d.tokens)


def mean_step_flops(draws: Sequence[Draw]) -> float:
    """FLOPs of a step, in the mean over what is drawn."""
    return sum(d.share * d.batch * d.flops for d in draws)


def shape_of(source: SourceConfig, tokenizers: Mapping[str, Any]) -> Geometry:
    """The shape of a data set's samples: the data's own, or what the config expects of them."""
    try:
        return geometry_of([source.path])
    except UserError:  # a dry run needs no data
        expected = source.expects
    known = {n: getattr(expected, n) for n in ("frames", "height", "width", "fps") if getattr(expected, n)}
    if expected.seconds and "audio" in tokenizers:
        known["samples"] = round(expected.seconds * tokenizers["audio"].spec.sample_rate)
    return replace(Geometry(), **known)


def samples_of(source: SourceConfig) -> int:
    """Samples in a data set: the data's own, or as many as the config expects; 0 where nobody says."""
    try:
        return samples_at(source.path)
    except UserError:
        return source.expects.samples


def _tokens(g: Geometry, tokenizers: Mapping[str, Any]) -> dict[str, int]:
    """Modality -> tokens of one sample."""
    return {
        m: len(
            t.positions(g.samples)
            if m == "audio"
            else t.positions(g.frames if m == "video" else 1, g.height, g.width, g.fps)
        )
        for m, t in tokenizers.items()
    }


def _of_task(task: str, sizes: Mapping[str, int]) -> dict[str, int]:
    return {m: sizes[m] for m in Conditions.named(task).modalities}


def _counted(config: TrainConfig, model: JointConfig | ImageNetConfig, draw: Draw) -> Draw:
    """``draw`` with its FLOPs."""
    flops = sample_flops(config.objective, model, draw)
    if config.run.recompute != "blocks":
        return replace(draw, flops=flops)
    return replace(draw, flops=flops, again=sample_flops(config.objective, model, draw, recompute=True) - flops)


def sample_flops(
    objective: ObjectiveConfig, model: JointConfig | ImageNetConfig, draw: Draw, *, recompute: bool = False
) -> int:
    """FLOPs of one sample in a training step, counted as the log's ``tflops`` are.

    Args:
        objective: of the run.
        model: with its channels filled in.
        draw: the task and its tokens.
        recompute: also the blocks' second forward pass.
    """
    counted = Objective(objective, features=lambda _: {})  # none is computed, only counted
    if isinstance(model, ImageNetConfig):
        levels = 2 if counted.method.schedule is dual_timesteps else 1
        student = imagenet_forward_flops(model, levels=levels, projector=counted.method.target is not None)
        teacher = None
        if counted.needs_teacher:
            teacher = imagenet_forward_flops(model, blocks=objective.layers(model.depth)[1])
        return training_step_flops(student, teacher, recompute=recompute).total
    streams = {m: _empty(n, model.modalities[m]) for m, n in draw.sizes.items()}
    text = _empty(draw.text, model.text_channels)
    batch = Batch(streams, Conditions.named(draw.task), text, torch.zeros(1, dtype=torch.int64))
    return Throughput(model, counted, recompute=recompute).flops(batch, step=0)


def _empty(tokens: int, channels: int) -> TokenStream:
    return TokenStream.dense(torch.empty(1, tokens, channels), torch.zeros(tokens, 4))
