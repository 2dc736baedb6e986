"""What is measured: a network of a preset's shape with random weights, and a batch of random tokens for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..conditions import Conditions
from ..errors import UserError
from ..flow.objectives import PAPER_MASK_RATIO, Batch, Objective, ObjectiveConfig
from ..models.flops import Flops, imagenet_forward_flops, joint_forward_flops, training_step_flops
from ..models.imagenet import IMAGENET_XL_2, ImageNetConfig, ImageNetModel, SelfFlowPerTokenDiT
from ..models.joint import JointConfig, JointTransformer
from ..models.presets import preset
from ..randomness import Randomness
from ..tokens import NoiseLevels, TokenStream
from .plan import Plan

#: Two levels of a sample, as dual timesteps may draw them.
T, S = 0.7, 0.2
MODALITY = "image"
_INIT_STD = 0.02

Config = JointConfig | ImageNetConfig


@dataclass(frozen=True)
class Shape:
    """A network and how many tokens it is given: all that operations and memory follow from.

    Attributes:
        config: of the network.
        tokens: media tokens per sample.
        text_tokens: text tokens per sample; 0 for the ImageNet transformer.
    """

    config: Config
    tokens: int
    text_tokens: int

    @classmethod
    def of(cls, plan: Plan) -> Shape:
        if plan.imagenet:
            edge = round(plan.tokens**0.5)
            return cls(replace(IMAGENET_XL_2, input_size=edge * IMAGENET_XL_2.patch_size), plan.tokens, 0)
        return cls(preset(plan.preset), plan.tokens, plan.text_tokens)

    @property
    def imagenet(self) -> bool:
        return isinstance(self.config, ImageNetConfig)

    @property
    def sequence(self) -> int:
        """Tokens of a sample in all."""
        return self.tokens + self.text_tokens

    @property
    def widths(self) -> tuple[int, int]:
        """Of the residual stream and of the feed-forward."""
        c = self.config
        return (c.hidden_size if isinstance(c, ImageNetConfig) else c.width), c.hidden

    def network(self) -> nn.Module:
        if isinstance(self.config, ImageNetConfig):
            return ImageNetModel(SelfFlowPerTokenDiT.from_config(self.config))
        return JointTransformer(self.config)

    def parameters(self) -> int:
        """Exact count, from a network that takes no memory."""
        with torch.device("meta"):
            return sum(p.numel() for p in self.network().parameters())

    def forward_flops(self, *, levels: int = 1, per_token: bool = False, **options: Any) -> Flops:
        """Of one sample; see ``models.flops``."""
        if isinstance(self.config, ImageNetConfig):
            return imagenet_forward_flops(self.config, levels=levels, per_token=per_token, **options)
        tokens = {MODALITY: self.tokens}
        return joint_forward_flops(self.config, tokens, self.text_tokens, levels=levels, per_token=per_token, **options)

    def step_flops(self) -> Flops:
        """Of one sample's Self-Flow training step: student with P forward and backward, teacher up to block k."""
        _, k = ObjectiveConfig().layers(self.config.depth)
        student = self.forward_flops(levels=2, projector=True)
        return training_step_flops(student, self.forward_flops(levels=1, blocks=k))


@dataclass
class Subject:
    """A network with a batch on one device.

    Attributes:
        shape: what was built.
        model: in training mode's arithmetic, without dropout; parameters are float32.
        batch: clean tokens of one modality.
    """

    shape: Shape
    model: nn.Module
    batch: Batch

    @property
    def device(self) -> torch.device:
        return self.batch.ids.device

    @property
    def stream(self) -> TokenStream:
        return self.batch.streams[MODALITY]

    def dual_levels(self) -> dict[str, NoiseLevels]:
        """Two levels per sample on a random mask of the paper's ratio; text at level 0."""
        stream, n = self.stream, len(self.batch.ids)
        t, s = (torch.full((n,), level, device=self.device) for level in (T, S))
        u = Randomness(0).uniform("bench/mask", 0, self.batch.ids, stream.values.shape[1])
        return self._with_text(NoiseLevels.dual(t, s, u < PAPER_MASK_RATIO[MODALITY], stream.sample))

    def uniform_levels(self, t: float) -> dict[str, NoiseLevels]:
        """One level for all media tokens, as in sampling; text at level 0."""
        level = torch.full((len(self.batch.ids),), t, device=self.device)
        return self._with_text(NoiseLevels.uniform(level, self.stream.sample))

    def _with_text(self, levels: NoiseLevels) -> dict[str, NoiseLevels]:
        text = self.batch.text
        if not isinstance(text, TokenStream):
            return {MODALITY: levels}
        zero = torch.zeros(len(self.batch.ids), device=self.device)
        return {MODALITY: levels, "text": NoiseLevels.uniform(zero, text.sample)}


def build(shape: Shape, batch: int, device: torch.device, *, seed: int = 0, open_gates: bool = True) -> Subject:
    """The network with random weights and ``batch`` samples, made on ``device`` (never copied there).

    ``open_gates`` fills what an initialisation leaves zero: a fresh network's velocity is zero whatever it is told, and
    forms that give zero agree about nothing.

    Raises:
        UserError: the network has no image tokens.
    """
    config = shape.config
    if isinstance(config, JointConfig) and MODALITY not in config.modalities:
        raise UserError(f"the benchmark's batch is of {MODALITY} tokens; the model has {', '.join(config.modalities)}")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        with device:
            model = shape.network().to(device)
        if open_gates:
            _fill_zeros(model)
        with device:
            stream = TokenStream.dense(torch.randn(batch, shape.tokens, _channels(config)), _grid(shape.tokens))
            text: TokenStream | Tensor
            if isinstance(config, ImageNetConfig):
                text = torch.randint(config.num_classes, (batch,))
            else:
                positions = torch.zeros(shape.text_tokens, 4)
                positions[:, 3] = torch.arange(shape.text_tokens)
                text = TokenStream.dense(torch.randn(batch, shape.text_tokens, config.text_channels), positions)
            ids = torch.arange(batch)
    return Subject(shape, model, Batch({MODALITY: stream}, Conditions((MODALITY,)), text, ids))


def objective() -> Objective:
    """Self-Flow with the paper's settings."""
    return Objective(ObjectiveConfig(name="self-flow"), {})


def _channels(config: Config) -> int:
    return config.token_channels if isinstance(config, ImageNetConfig) else config.modalities[MODALITY]


def _grid(tokens: int) -> Tensor:
    """Positions ``(N, 4)`` of a picture about as high as wide, row by row."""
    width = max(1, round(tokens**0.5))
    index = torch.arange(tokens)
    positions = torch.zeros(tokens, 4)
    positions[:, 1], positions[:, 2] = index // width, index % width
    return positions


def _fill_zeros(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and not bool(parameter.any()):
                parameter.normal_(std=_INIT_STD)
