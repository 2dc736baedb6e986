"""What each named model is and takes: parameters, FLOPs per token, memory to train and to sample."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from ..errors import UserError
from ..flow.objectives import ObjectiveConfig
from ..models.flops import Flops, imagenet_forward_flops, joint_forward_flops, training_step_flops
from ..models.imagenet import IMAGENET_XL_2, ImageNetConfig, SelfFlowPerTokenDiT
from ..models.joint import JointConfig
from ..models.presets import ABOUT, OURS, PRESETS, SOURCES, count_parameters, counted, preset
from .memory import TrainingMemory, activations_of, sampling_bytes, training_memory

#: The ImageNet transformer's row.
IMAGENET = "xl/2"
NAMES = (*PRESETS, IMAGENET)
#: Where a field of a joint config that no preset sets comes from.
_UNSET = {
    "preset": "the name itself",
    "modalities": "the tokenizers; here the channels of the counting convention",
    "text_channels": "the text encoder; here the counting convention's",
}


@dataclass(frozen=True)
class Load:
    """What is asked of a model.

    Attributes:
        tokens: media tokens of one sample, all of one modality.
        text_tokens: of one sample; the ImageNet transformer has none.
        batch: samples on one device.
        bytes_per_value: of matrix products (2: bfloat16); weights are float32.
        recompute: keep only what goes into a block for the backward pass.
    """

    tokens: int = 256
    text_tokens: int = 64
    batch: int = 16
    bytes_per_value: int = 2
    recompute: bool = False

    def __post_init__(self) -> None:
        if min(self.tokens, self.text_tokens, self.batch) < 1:
            raise UserError("tokens, text-tokens and batch are at least 1")


@dataclass(frozen=True)
class Size:
    """One row of the table.

    Attributes:
        name, about: of the model.
        config: its shape.
        counts: parameters by part.
        parameters: without the projector, as the name says.
        tokens: of one sample, text included.
        forward: FLOPs of a forward pass over one sample, one noise level (sampling).
        step: FLOPs of a Self-Flow training step over one sample: student with P, teacher up to block k.
        training, sampling: bytes on one device.
    """

    name: str
    about: str
    config: JointConfig | ImageNetConfig
    counts: dict[str, int]
    parameters: int
    tokens: int
    forward: Flops
    step: Flops
    training: TrainingMemory
    sampling: int

    @property
    def blocks(self) -> str:
        c = self.config
        return str(c.depth) if isinstance(c, ImageNetConfig) else f"{c.double_blocks} + {c.single_blocks}"

    @property
    def width(self) -> int:
        return self.config.hidden_size if isinstance(self.config, ImageNetConfig) else self.config.width

    @property
    def heads(self) -> int:
        return self.config.num_heads if isinstance(self.config, ImageNetConfig) else self.config.heads

    def fields(self) -> list[tuple[str, Any, str]]:
        """(field, value, where it comes from) of the config."""
        if isinstance(self.config, ImageNetConfig):
            return [(f.name, getattr(self.config, f.name), "the released weights") for f in fields(self.config)]
        known = {**_UNSET, **SOURCES[self.name]}
        return [(f.name, getattr(self.config, f.name), known.get(f.name, OURS)) for f in fields(self.config)]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; memory in bytes."""
        return {
            "name": self.name,
            "about": self.about,
            "config": asdict(self.config),
            "sources": {name: source for name, _, source in self.fields()},
            "parameters": self.parameters,
            "parameters_by_part": self.counts,
            "tokens": self.tokens,
            "forward_flops": self.forward.total,
            "forward_flops_by_part": self.forward.parts,
            "forward_flops_per_token": self.forward.total / self.tokens,
            "training_step_flops": self.step.total,
            "training_step_flops_per_token": self.step.total / self.tokens,
            "training_bytes": {**asdict(self.training), "total": self.training.total},
            "sampling_bytes": self.sampling,
        }


def size_of(name: str, load: Load) -> Size:
    """Everything the table says of one model; nothing is allocated.

    Raises:
        UserError: an unknown name; the nearest is named.
    """
    if name == IMAGENET:
        return _imagenet(load)
    if name not in PRESETS:
        near = difflib.get_close_matches(name.lower(), NAMES, n=1, cutoff=0.5)
        hint = f"the nearest is '{near[0]}'" if near else f"there are {', '.join(NAMES)}"
        raise UserError(f"there is no model '{name}'; {hint}")
    config = preset(name)
    counts = count_parameters(config)
    tokens, text = {next(iter(config.modalities)): load.tokens}, load.text_tokens
    _, k = ObjectiveConfig().layers(config.depth)
    student = joint_forward_flops(config, tokens, text, levels=2, projector=True)
    teacher = joint_forward_flops(config, tokens, text, blocks=k)
    return _size(
        name,
        ABOUT[name],
        config,
        counts,
        load.tokens + text,
        joint_forward_flops(config, tokens, text),
        training_step_flops(student, teacher),
        load,
    )


def count_imagenet(config: ImageNetConfig) -> dict[str, int]:
    """Exact parameters by top-level part, projector and fixed positions included; nothing is allocated."""
    with torch.device("meta"):
        net = SelfFlowPerTokenDiT.from_config(config)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    return {**counts, "pos_embed": net.pos_embed.numel()}


def _imagenet(load: Load) -> Size:
    config = IMAGENET_XL_2
    counts = count_imagenet(config)
    _, k = ObjectiveConfig().layers(config.depth)
    student = imagenet_forward_flops(config, load.tokens, levels=2, projector=True)
    teacher = imagenet_forward_flops(config, load.tokens, blocks=k)
    return _size(
        IMAGENET,
        "the paper's ImageNet model, SiT-XL/2, in the layout of its released weights",
        config,
        counts,
        load.tokens,
        imagenet_forward_flops(config, load.tokens),
        training_step_flops(student, teacher),
        load,
    )


def _size(
    name: str,
    about: str,
    config: JointConfig | ImageNetConfig,
    counts: Mapping[str, int],
    tokens: int,
    forward: Flops,
    step: Flops,
    load: Load,
) -> Size:
    activations = activations_of(config, tokens, load.batch, load.bytes_per_value, recompute=load.recompute)
    return Size(
        name,
        about,
        config,
        dict(counts),
        counted(counts),
        tokens,
        forward,
        step,
        training_memory(sum(counts.values()), activations, load.bytes_per_value),
        sampling_bytes(sum(counts.values()), config, tokens, 2 * load.batch, load.bytes_per_value),
    )
