"""The joint transformer: streams of every modality and text, one sequence, one velocity per token.

The block layout is FLUX.2's: double-stream blocks (text and media keep weights of their own and attend
together), then single-stream blocks (attention and feed-forward in parallel on one sequence);
modulation layers are shared by all blocks of a kind, and each modality has one input and one output
layer. Nothing here knows of losses, solvers or devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..tokens import NoiseLevels, TokenStream
from .layers import (
    LevelEmbedding,
    Modulation,
    QKNorm,
    SwiGLU,
    attention,
    modulated_norm,
    per_token,
    split_heads,
    swiglu,
)
from .positions import rope_table


@dataclass(frozen=True)
class JointConfig:
    """Shape of a joint transformer.

    Attributes:
        width: D; a multiple of ``heads``.
        double_blocks, single_blocks: blocks of each kind; depth is their sum.
        mlp_ratio: hidden width of the feed-forward over D.
        rope_axes: head channels for seconds, row, column, index; even, summing to ``width / heads``.
        rope_theta, time_rate: see :func:`positions.rope_table`.
        bias: whether linear layers have biases (FLUX.2 [klein] has none; the paper names qkv biases).
        modalities: name -> channels of its tokens; empty takes them from the tokenizers' specs.
        text_channels: channels of the text tokens; 0 takes them from the text encoder's spec.
        projector_ratio: hidden width over D of the head P that predicts the teacher's features (the released weights
            have 2).
    """

    width: int = 1152
    heads: int = 16
    double_blocks: int = 7
    single_blocks: int = 14
    mlp_ratio: float = 4.0
    rope_axes: tuple[int, int, int, int] = (24, 20, 20, 8)
    rope_theta: float = 2000.0
    time_rate: float = 24.0
    bias: bool = True
    modalities: dict[str, int] = field(default_factory=dict)
    text_channels: int = 0
    projector_ratio: float = 2.0

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width < 1 or self.width % self.heads:
            raise UserError(f"width {self.width} is not a multiple of heads {self.heads}")
        if len(self.rope_axes) != 4 or any(a < 0 or a % 2 for a in self.rope_axes):
            raise UserError(f"rope_axes needs four even widths, got {tuple(self.rope_axes)}")
        if sum(self.rope_axes) != self.width // self.heads:
            raise UserError(
                f"rope_axes sums to {sum(self.rope_axes)}, the head width is {self.width // self.heads} (width / heads)"
            )
        if self.double_blocks < 0 or self.single_blocks < 0 or self.depth < 1:
            raise UserError("a transformer needs at least one block; set double_blocks or single_blocks")
        if self.mlp_ratio <= 0 or self.projector_ratio <= 0:
            raise UserError("mlp_ratio and projector_ratio must be positive")

    @property
    def depth(self) -> int:
        return self.double_blocks + self.single_blocks

    @property
    def hidden(self) -> int:
        return round(self.width * self.mlp_ratio)


@dataclass
class Output:
    """What a forward pass gives: ``velocity`` per modality ``(B, N, C)``, and on request hidden ``features`` per
    modality ``(B, N, D)``.
    """

    velocity: dict[str, Tensor]
    features: dict[str, Tensor]


class _Half(nn.Module):
    """One stream's weights in a double-stream block."""

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        d, bias = config.width, config.bias
        self.heads = config.heads
        self.qkv = nn.Linear(d, 3 * d, bias=bias)
        self.norm = QKNorm(d // config.heads)
        self.proj = nn.Linear(d, d, bias=bias)
        self.mlp = SwiGLU(d, config.hidden, bias=bias)

    def queries(self, x: Tensor, table: Tensor, choice: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        shift, scale = table[:, :, 0], table[:, :, 1]
        return split_heads(self.qkv(modulated_norm(x, shift, scale, choice)), self.heads, self.norm)

    def update(self, x: Tensor, attended: Tensor, table: Tensor, choice: Tensor | None) -> Tensor:
        _, _, gate, mlp_shift, mlp_scale, mlp_gate = table.unbind(2)
        x = x + per_token(gate, choice) * self.proj(attended)
        return x + per_token(mlp_gate, choice) * self.mlp(modulated_norm(x, mlp_shift, mlp_scale, choice))


class DoubleBlock(nn.Module):
    """Text and media with weights of their own, one attention over both."""

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        self.text, self.media = _Half(config), _Half(config)

    def forward(
        self,
        text: Tensor,
        media: Tensor,
        tables: tuple[Tensor, Tensor],
        choices: tuple[Tensor | None, Tensor | None],
        rope: tuple[Tensor, Tensor],
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        text_qkv = self.text.queries(text, tables[0], choices[0])
        media_qkv = self.media.queries(media, tables[1], choices[1])
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(text_qkv, media_qkv, strict=True))
        attended = attention(q, k, v, rope, mask)
        n = text.shape[1]
        text = self.text.update(text, attended[:, :n], tables[0], choices[0])
        media = self.media.update(media, attended[:, n:], tables[1], choices[1])
        return text, media


class SingleBlock(nn.Module):
    """Attention and feed-forward side by side on the joint sequence, one matrix in and one out."""

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        d = config.width
        self.heads, self.widths = config.heads, (3 * d, 2 * config.hidden)
        self.up = nn.Linear(d, sum(self.widths), bias=config.bias)
        self.norm = QKNorm(d // config.heads)
        self.down = nn.Linear(d + config.hidden, d, bias=config.bias)

    def forward(
        self, x: Tensor, table: Tensor, choice: Tensor | None, rope: tuple[Tensor, Tensor], mask: Tensor | None
    ) -> Tensor:
        shift, scale, gate = table.unbind(2)
        qkv, mlp = self.up(modulated_norm(x, shift, scale, choice)).split(self.widths, dim=-1)
        attended = attention(*split_heads(qkv, self.heads, self.norm), rope, mask)
        return x + per_token(gate, choice) * self.down(torch.cat([attended, swiglu(mlp)], dim=-1))


class JointTransformer(nn.Module):
    """See the module's docstring. Parameters are float32; run under autocast for bfloat16 matrices."""

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        if not config.modalities or not config.text_channels:
            raise UserError("a joint transformer needs the channels of its modalities and of its text")
        self.config = config
        d, bias = config.width, config.bias
        self.level = LevelEmbedding(d, bias=bias)
        self.text_in = nn.Linear(config.text_channels, d, bias=bias)
        self.media_in = nn.ModuleDict({m: nn.Linear(c, d, bias=bias) for m, c in config.modalities.items()})
        self.text_modulation, self.media_modulation = Modulation(d, 6, bias), Modulation(d, 6, bias)
        self.single_modulation = Modulation(d, 3, bias)
        self.double_blocks = nn.ModuleList(DoubleBlock(config) for _ in range(config.double_blocks))
        self.single_blocks = nn.ModuleList(SingleBlock(config) for _ in range(config.single_blocks))
        self.out_modulation = Modulation(d, 2, bias)
        self.media_out = nn.ModuleDict({m: nn.Linear(d, c, bias=bias) for m, c in config.modalities.items()})
        hidden = round(d * config.projector_ratio)
        self.projector = nn.Sequential(nn.Linear(d, hidden), nn.SiLU(), nn.Linear(hidden, d))
        self._initialise()

    def _initialise(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.endswith("modulation.linear"):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                if name.startswith("media_out"):
                    nn.init.zeros_(module.weight)  # the first velocity is zero, as in DiT

    def forward(
        self,
        streams: Mapping[str, TokenStream],
        levels: Mapping[str, NoiseLevels],
        text: TokenStream,
        features_after: int | None = None,
        features_only: bool = False,
    ) -> Output:
        """Velocity (noise - data) of every media token.

        Args:
            streams: modality -> noisy tokens; any non-empty subset of the config's modalities.
            levels: stream name -> noise levels, with one entry ``"text"`` for the text tokens.
            text: the text encoder's tokens; at least one per row (an empty caption is a token too).
            features_after: also return the media tokens' hidden state after this block, counted from 1.
            features_only: stop there and return no velocity (the teacher's pass).

        Raises:
            UserError: an unknown modality, levels that do not fit, ``features_after`` outside the depth.
        """
        self._check(streams, levels, text, features_after, features_only)
        names = list(streams)
        sizes = [streams[m].values.shape[1] for m in names]
        n_text = text.values.shape[1]

        x_text = self.text_in(text.values)
        x = torch.cat([self.media_in[m](streams[m].values) for m in names], dim=1)
        rope = rope_table(
            torch.cat([text.positions, *(streams[m].positions for m in names)], dim=1),
            self.config.rope_axes,
            self.config.rope_theta,
            self.config.time_rate,
        )
        mask = _same_sample([text, *(streams[m] for m in names)])

        media_levels = NoiseLevels.concatenate([levels[m] for m in names])
        all_levels = NoiseLevels.concatenate([levels["text"], media_levels])
        embedding = self.level(all_levels.levels)
        n_text_levels = levels["text"].levels.shape[1]
        media_embedding = embedding[:, n_text_levels:]
        text_choice, media_choice = _one_hot(levels["text"]), _one_hot(media_levels)
        tables = self.text_modulation(embedding[:, :n_text_levels]), self.media_modulation(media_embedding)

        features: dict[str, Tensor] = {}
        x_text, x = x_text.float(), x.float()  # the residual stream stays in float32
        for i, double in enumerate(self.double_blocks, start=1):
            x_text, x = double(x_text, x, tables, (text_choice, media_choice), rope, mask)
            if i == features_after:
                features = dict(zip(names, x.split(sizes, dim=1), strict=True))
                if features_only:
                    return Output({}, features)
        x = torch.cat([x_text, x], dim=1)
        table, choice = self.single_modulation(embedding), _one_hot(all_levels)
        for i, single in enumerate(self.single_blocks, start=1 + len(self.double_blocks)):
            x = single(x, table, choice, rope, mask)
            if i == features_after:
                features = dict(zip(names, x[:, n_text:].split(sizes, dim=1), strict=True))
                if features_only:
                    return Output({}, features)
        shift, scale = self.out_modulation(media_embedding).unbind(2)
        x = modulated_norm(x[:, n_text:], shift, scale, media_choice)
        velocity = {m: self.media_out[m](part) for m, part in zip(names, x.split(sizes, dim=1), strict=True)}
        return Output(velocity, features)

    def _check(
        self,
        streams: Mapping[str, TokenStream],
        levels: Mapping[str, NoiseLevels],
        text: TokenStream,
        features_after: int | None,
        features_only: bool,
    ) -> None:
        if not streams:
            raise UserError("the model was called without any media tokens")
        for name, stream in {**streams, "text": text}.items():
            channels = self.config.text_channels if name == "text" else self.config.modalities.get(name)
            if channels is None:
                raise UserError(f"the model has no modality '{name}'; it has {', '.join(self.config.modalities)}")
            if stream.values.shape[2] != channels:
                raise UserError(f"{name} tokens have {stream.values.shape[2]} channels, the model's have {channels}")
            if name not in levels:
                raise UserError(f"there are no noise levels for {name}")
            if levels[name].group.shape != stream.values.shape[:2]:
                raise UserError(
                    f"noise levels of {name} are for {tuple(levels[name].group.shape)} tokens, "
                    f"its stream has {tuple(stream.values.shape[:2])}"
                )
        if features_only and features_after is None:
            raise UserError("features_only needs features_after")
        if features_after is not None and not 1 <= features_after <= self.config.depth:
            raise UserError(f"features_after is {features_after}; the blocks are counted from 1 to {self.config.depth}")


def _one_hot(levels: NoiseLevels) -> Tensor | None:
    groups = levels.levels.shape[1]
    return None if groups == 1 else F.one_hot(levels.group, groups).to(levels.levels.dtype)


def _same_sample(streams: list[TokenStream]) -> Tensor | None:
    """Additive attention mask ``(B, 1, N, N)``: tokens see those of their own sample. Padding (-1) sees padding, so
    no row is empty.
    """
    if all(s.full for s in streams):
        return None
    sample = torch.cat([s.sample for s in streams], dim=1)
    same = sample.unsqueeze(1) == sample.unsqueeze(2)
    return torch.zeros(same.shape, device=sample.device).masked_fill_(~same, -torch.inf).unsqueeze(1)
