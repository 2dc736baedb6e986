"""The settings of a transformer's training run; every field can be set by its dotted name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..conditions import TASKS
from ..errors import UserError
from ..flow.objectives import ObjectiveConfig
from ..generation.sampling import SamplingConfig
from ..models.imagenet import ImageNetConfig
from ..models.joint import JointConfig
from .posthoc_ema import PostHocConfig


@dataclass(frozen=True)
class SampleShape:
    """What a data set that is not here will hold, for plans (``--dry-run``). Where the data are, they speak themselves.

    Attributes:
        samples: in the data set.
        captions: wordings per sample.
        height, width: of pictures, in pixels.
        frames, fps: of videos.
        seconds: of sound.

    Zero is not known.
    """

    samples: int = 0
    captions: int = 1
    height: int = 0
    width: int = 0
    frames: int = 0
    fps: float = 0.0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if min(self.samples, self.height, self.width, self.frames, self.fps, self.seconds) < 0 or self.captions < 1:
            raise UserError("nothing that a sample is can be negative, and it has at least one caption")


@dataclass(frozen=True)
class SourceConfig:
    """A data set and what is learnt from it.

    Attributes:
        path: a folder of shards (``prepare`` and ``make-world`` write them) or plain WebDataset tars;
            or their latents, as ``encode`` writes them; on a disk, or the URL of a store (``s3://bucket/data``).
        tasks: task name (``t2va``, ``t2v``, ``t2a``, ``t2i``, ``i2va``, ``v2a``, ...) -> share of the source's batches.
        ratio: share of batches drawn from this source, relative to the others.
        batch: samples per batch.
        max_samples: use the first so many samples; 0 uses all.
        weight: of each of its samples in the loss of a packed step, beside those of other sources.
        captions: kind of caption -> how often it is drawn, relative to the other kinds that a sample has (its json's
            ``caption_kinds``); kinds that are not named are not drawn. Empty: every caption as often as another.
        expects: what the data are, for plans made before they are here.
    """

    path: str
    tasks: dict[str, float]
    ratio: float = 1.0
    batch: int = 16
    max_samples: int = 0
    weight: float = 1.0
    captions: dict[str, float] = field(default_factory=dict)
    expects: SampleShape = field(default_factory=SampleShape)

    def __post_init__(self) -> None:
        for task, share in self.tasks.items():
            if task not in TASKS:
                raise UserError(f"tasks names '{task}'; known tasks are {', '.join(TASKS)}")
            if share < 0:
                raise UserError(f"tasks.{task} is a share and cannot be negative, got {share}")
        if not sum(self.tasks.values()) > 0:
            raise UserError("tasks needs at least one task with a positive share")
        if self.ratio < 0 or self.batch < 1 or self.max_samples < 0:
            raise UserError("ratio and max_samples cannot be negative and batch is at least 1")
        if not self.weight > 0:
            raise UserError(f"weight is above 0, got {self.weight}; ratio 0 leaves a source out")
        for kind, share in self.captions.items():
            if share < 0:
                raise UserError(f"captions.{kind} is a share and cannot be negative, got {share}")
        if self.captions and not sum(self.captions.values()) > 0:
            raise UserError("captions needs at least one kind with a positive share; {} draws every caption alike")


@dataclass(frozen=True)
class DataConfig:
    """Where training data come from.

    Attributes:
        sources: name -> data set.
        latents: folder in which encoded data sets are kept and found again; empty: the run folder's ``latents``.
        pack: tokens of a step, text included, in which samples of all sources and tasks are packed; 0: a step is a
            batch of one task of one source, of ``batch`` samples.
    """

    sources: dict[str, SourceConfig] = field(default_factory=dict)
    latents: str = ""
    pack: int = 0

    def __post_init__(self) -> None:
        if self.pack < 0:
            raise UserError(f"pack is a number of tokens, or 0; got {self.pack}")
        for name, source in self.sources.items():
            if source.weight != 1 and not self.pack:
                raise UserError(
                    f"sources.{name}.weight tells apart the samples of a packed step, and without pack a step is of "
                    "one source alone; set pack, or change ratio"
                )
        if self.sources and not sum(s.ratio for s in self.sources.values()) > 0:
            raise UserError("no source has a positive ratio, so no batch could be drawn")


@dataclass(frozen=True)
class TextConfig:
    """How captions become tokens. The encoder is frozen; docs/tokenizers.md says what each family gives.

    Attributes:
        encoder: ``bytes``, the bundled one, or folder or hub id of an encoder of transformers.
        max_tokens: a longer caption is cut to so many tokens, fewer where the encoder takes fewer.
        pad_to: a batch's captions are padded to a multiple of so many tokens; ``run.compile`` makes a graph for every
            length that it meets. Not for packed rows.
        layers: hidden states that are concatenated along channels; empty takes those usual for the family.
        template: ``chat``, or a text with ``{}`` where the caption goes; empty is the caption alone; null takes what is
            usual for the family.
        skip: tokens left out at the start, such as those of a template's opening.
        precision: of the encoder's computation on accelerators; on the CPU it is float32.
        rounding: the type that embeddings are rounded to and stored in.
        cache: folder of stored embeddings, which several runs may share; empty: the run folder's ``text``.
    """

    encoder: str = "bytes"
    max_tokens: int = 256
    pad_to: int = 1
    layers: tuple[int, ...] = ()
    template: str | None = None
    skip: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    rounding: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    cache: str = ""

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.pad_to < 1 or self.skip < 0:
            raise UserError("max_tokens is at least 1, as is pad_to, and skip cannot be negative")
        if self.encoder == "bytes":
            for name in ("layers", "template", "skip", "precision", "rounding", "cache"):
                if getattr(self, name) != getattr(type(self), name):
                    raise UserError(f"{name} is of encoders of transformers; the bundled encoder 'bytes' has none")

    def settings(self) -> dict[str, Any]:
        """What :func:`selfflow_tokenizers.load_text_encoder` takes."""
        if self.encoder == "bytes":
            return {"encoder": self.encoder, "max_tokens": self.max_tokens}
        names = ("encoder", "max_tokens", "layers", "template", "skip", "precision", "rounding")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its learning rate: linear warm-up, constant, linear decay to zero over the last ``decay`` of the
    run.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float = 1.0
    warmup_steps: int = 0
    decay: float = 0.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.clip <= 0:
            raise UserError("lr and clip must be positive")
        if self.warmup_steps < 0 or not 0 <= self.decay <= 1:
            raise UserError("warmup_steps cannot be negative and decay is a fraction of the run in [0, 1]")

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of step ``step`` (from 0) of ``steps``."""
        up = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        down = min(1.0, (steps - step) / (self.decay * steps)) if self.decay else 1.0
        return self.lr * min(up, down)


@dataclass(frozen=True)
class ParallelConfig:
    """How the processes that torchrun starts share the work.

    Attributes:
        shard: neighbouring processes that keep one copy of model, teacher and optimizer among them (FSDP2); 1: each
            keeps its own; 0: all share one. Between 1 and all, copies are kept by groups (hybrid sharding).
        context: neighbouring processes that work on the same samples, each on a part of their tokens.
    """

    shard: int = 1
    context: int = 1

    def __post_init__(self) -> None:
        if self.shard < 0 or self.context < 1:
            raise UserError("parallel.shard is 0 or more and parallel.context at least 1")


@dataclass(frozen=True)
class RunConfig:
    """The run itself.

    Attributes:
        steps: optimizer steps in all.
        seed: keys all randomness.
        ema_half_life: half-life of the EMA as a fraction of the run, see ``ema.decay_for``; .9999 bounds it.
        ema_decay: a fixed decay in its place, such as the paper's .9999 at any length; 0 takes the half-life.
        posthoc_ema: averages beside it, from which ``posthoc-ema`` makes any other after training.
        precision: of matrix products; ``auto`` takes bfloat16 where the device is fast at it.
        compile: ``torch.compile`` student and teacher: a minute or more of waiting, then faster steps.
        recompute: ``blocks`` keeps only each block's input for the backward pass and computes the rest again: a third
            more work in the student for a fraction of the memory. Results are the same.
        attention: the backend of attention, see ``models.attention``.
        accumulate: passes in which a process takes its part of a batch: less memory, the same step.
        device: ``auto`` (CUDA, else MPS, else CPU), or a torch device.
        threads: CPU threads for torch; 0 leaves its choice. Exact resume needs the same number.
        prefetch: batches that ``train`` makes ahead of the step, in a thread of their own; 0 makes each when its step
            begins, as fine-tuning on robot episodes always does. Results are the same.
        log_every, save_every, sample_every: in steps; 0 turns samples off.
        keep: the last so many checkpoints are kept.
        keep_every: checkpoints at multiples of so many steps are kept beside them; 0: none.
        async_save: train on while a checkpoint is written, at the price of a copy of it in host memory.
        retry_seconds: for so long a checkpoint that cannot be written is tried again before the run stops.
        prompts: captions of the samples drawn during training.
        weights: how the exported weights are stored; checkpoints are always float32.
        skip_steps: bad steps (a loss or gradient that is not finite, or a spike) that are skipped in a row before the
            run saves and stops; 0 stops at the first, without saving.
        spike: a gradient norm above so many times the median of the last 100 steps is a spike; 0 looks for none.
        console: how a run shows itself: a live ``panel``, ``plain`` lines, nothing (``quiet``); ``auto`` is the panel
            on a terminal and lines elsewhere.
        trackers: what the log goes to beside log.jsonl: ``tensorboard`` (where it is installed), ``wandb``,
            ``trackio``.
        project: of wandb and trackio; the run's name there is its folder's.
    """

    steps: int = 1000
    seed: int = 0
    ema_half_life: float = 0.02
    ema_decay: float = 0.0
    posthoc_ema: PostHocConfig = field(default_factory=PostHocConfig)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    recompute: Literal["none", "blocks"] = "none"
    attention: Literal["sdpa", "flex", "varlen"] = "sdpa"
    accumulate: int = 1
    device: str = "auto"
    threads: int = 0
    prefetch: int = 2
    log_every: int = 10
    save_every: int = 500
    sample_every: int = 0
    keep: int = 2
    keep_every: int = 0
    async_save: bool = True
    retry_seconds: float = 300.0
    prompts: tuple[str, ...] = ()
    weights: Literal["float32", "float16"] = "float32"
    skip_steps: int = 0
    spike: float = 0.0
    console: Literal["auto", "panel", "plain", "quiet"] = "auto"
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    project: str = "selfflow-mm"

    def __post_init__(self) -> None:
        if self.skip_steps < 0:
            raise UserError(f"skip_steps counts steps and cannot be negative, got {self.skip_steps}")
        if self.spike and not self.spike > 1:
            raise UserError(f"spike is a multiple of the usual gradient norm above 1, or 0 for none; got {self.spike}")
        if len(set(self.trackers)) < len(self.trackers) or not self.project:
            raise UserError("trackers names each tracker once, and project has a name")
        if self.steps < 1 or self.log_every < 1 or self.save_every < 1 or self.keep < 1:
            raise UserError("steps, log_every, save_every and keep are at least 1")
        if self.accumulate < 1:
            raise UserError(f"accumulate is a number of passes, at least 1; got {self.accumulate}")
        if self.prefetch < 0:
            raise UserError(f"prefetch is a number of batches, or 0 for none, got {self.prefetch}")
        if self.keep_every < 0 or self.keep_every % self.save_every:
            raise UserError(
                f"keep_every is a multiple of save_every ({self.save_every}), or checkpoints would not fall on it; "
                f"got {self.keep_every}"
            )
        if not 0 <= self.retry_seconds < float("inf"):
            raise UserError(f"retry_seconds is a number of seconds, got {self.retry_seconds}")
        if self.seed < 0 or self.seed >= 2**64:
            raise UserError(f"seed lies in [0, 2**64), got {self.seed}")
        if self.compile and self.attention == "varlen":
            raise UserError("varlen attention looks for the samples' borders and cannot be compiled; take sdpa or flex")
        if not 0 < self.ema_half_life <= 1:
            raise UserError(f"ema_half_life is a fraction of the run in (0, 1], got {self.ema_half_life}")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay lies in (0, 1), or is 0 for the half-life's; got {self.ema_decay}")


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run.

    Attributes:
        tokenizers: modality -> folder of its tokenizer; ``tiny/video`` or ``tiny/audio`` for the bundled ones; a
            pretrained one, ``NAME`` or ``NAME:FOLDER_OR_ID`` (``wan2.2:weights/wan``); or the hub id of one of ours.
            Two modalities may share one (image and video).
        text: the encoder of captions.
        init: a checkpoint, model folder, exported file or bundled model that a new run takes its first weights from, as
            far as they fit; empty starts from random ones. What was taken is in the run's init.json.
        imagenet: the ImageNet transformer in place of the joint one. ``train`` can plan it (``--dry-run``) and not
            train it: there is no reader of class labels yet.
    """

    model: JointConfig = field(default_factory=JointConfig)
    imagenet: ImageNetConfig | None = None
    init: str = ""
    tokenizers: dict[str, str] = field(
        default_factory=lambda: {"image": "tiny/video", "video": "tiny/video", "audio": "tiny/audio"}
    )
    text: TextConfig = field(default_factory=TextConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    run: RunConfig = field(default_factory=RunConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if self.data.pack and self.run.compile:
            raise UserError(
                "data.pack gives every step other lengths, for each of which run.compile would compile anew; set one "
                "of them"
            )
        if self.data.pack and self.text.pad_to > 1:
            raise UserError("data.pack leaves no padding between captions; set text.pad_to to 1 or data.pack to 0")
        if self.parallel.context > 1 and (self.run.compile or self.run.attention == "flex"):
            raise UserError(
                "parallel.context exchanges tokens within attention, which neither run.compile nor flex attention "
                "sees through; take attention sdpa or varlen and leave compile out"
            )
        if not self.tokenizers:
            raise UserError("tokenizers names no modality; add at least one, e.g. video: tiny/video")
        for name, source in self.data.sources.items():
            for task in source.tasks:
                generate, given = TASKS[task]
                for modality in (*generate, *given):
                    if modality not in self.tokenizers:
                        raise UserError(
                            f"data.sources.{name}.tasks: {task} needs a tokenizer for {modality}; "
                            f"add tokenizers.{modality}"
                        )
