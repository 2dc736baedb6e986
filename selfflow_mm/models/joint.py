"""The joint transformer: streams of every modality and text, one sequence, one velocity per token.

The block layout is FLUX.2's: double-stream blocks (text and media keep weights of their own and attend
together), then single-stream blocks (attention and feed-forward in parallel on one sequence);
modulation layers are shared by all blocks of a kind, and each modality has one input and one output
layer. Nothing here knows of losses, solvers or devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..tokens import NoiseLevels, TokenStream
from .attention import Attend, Pattern, attention, plain
from .layers import LevelEmbedding, Modulation, QKNorm, choice_of, split_heads
from .lean import gated_sum, modulated_norm, swiglu
from .positions import rope_table, rotate


@dataclass(frozen=True)
class JointConfig:
    """Shape of a joint transformer.

    Attributes:
        preset: the name of the preset that the values started from; says nothing by itself.
        width: D; a multiple of ``heads``.
        double_blocks, single_blocks: blocks of each kind; depth is their sum.
        mlp_ratio: hidden width of the feed-forward over D.
        rope_axes: head channels for seconds, row, column, index; even, summing to ``width / heads``.
        rope_theta, time_rate: see :func:`positions.rope_table`.
        bias, qkv_bias: whether linear layers have biases, and those of queries, keys and values (FLUX.2 [klein] has
            none at all; the paper names qkv biases).
        modalities: name -> channels of its tokens; empty takes them from the tokenizers' specs.
        text_channels: channels of the text tokens; 0 takes them from the text encoder's spec.
        projector_ratio: hidden width over D of the head P that predicts the teacher's features (the released weights
            have 2).
        projector_channels: what P gives; 0 is D, for teachers of the same kind. REPA sets its encoder's width.
        isolate_conditions: text and given tokens attend only to themselves, so that their keys and values are
            computed once per sample instead of once per step (:meth:`JointTransformer.condition`). Another model: it
            must be trained so.
        absolute_positions: tokens are also told where they are at the input, by the sines and cosines that their keys
            are turned by. Rotary positions alone say how far two tokens are apart: enough where the answer stands
            where it is given (a picture), not where an action must say in numbers at which place something lies.
        data_std: modality -> standard deviation of its clean tokens. Its velocity is then what the best linear denoiser
            of such data says plus what the network adds (:func:`linear_velocity`), as in EDM's preconditioning. Another
            model: it must be trained so.
    """

    preset: str = ""
    width: int = 1152
    heads: int = 16
    double_blocks: int = 7
    single_blocks: int = 14
    mlp_ratio: float = 4.0
    rope_axes: tuple[int, int, int, int] = (24, 20, 20, 8)
    rope_theta: float = 2000.0
    time_rate: float = 24.0
    bias: bool = True
    qkv_bias: bool = True
    modalities: dict[str, int] = field(default_factory=dict)
    text_channels: int = 0
    projector_ratio: float = 2.0
    projector_channels: int = 0
    isolate_conditions: bool = False
    absolute_positions: bool = False
    data_std: dict[str, float] = field(default_factory=dict)

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
        if self.bias and not self.qkv_bias:
            raise UserError("bias without qkv_bias is not built; set qkv_bias too, or bias to false")
        for name, std in self.data_std.items():
            if not 0 < std < math.inf:
                raise UserError(f"data_std.{name} is a standard deviation above 0, got {std}")
        if self.projector_channels < 0:
            raise UserError(f"projector_channels cannot be negative, got {self.projector_channels}")
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
    """What a forward pass gives.

    Attributes:
        velocity: modality -> ``(B, N, C)``; empty where only features were asked for.
        features: block, counted from 1 -> modality -> hidden state ``(B, N, D)`` after it.
    """

    velocity: dict[str, Tensor]
    features: dict[int, dict[str, Tensor]]


@dataclass
class KeysValues:
    """Keys and values ``(B, heads, N, d)`` of the condition tokens in one block: kept at their first pass, put before
    those of the other tokens ever after.
    """

    keys: Tensor | None = None
    values: Tensor | None = None

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys is None or self.values is None:
            self.keys, self.values = k, v
            return k, v
        return torch.cat([self.keys, k], dim=2), torch.cat([self.values, v], dim=2)


@dataclass
class Past:
    """What :meth:`JointTransformer.condition` computed: keys and values per block, and which of the condition tokens
    are real, ``(B, N)`` bool (None: all).
    """

    blocks: list[KeysValues]
    real: Tensor | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of generated tokens to everything but padding among the conditions."""
        if self.real is None:
            return plain(q, k, v)
        own = self.real.new_ones(len(self.real), k.shape[2] - self.real.shape[1])
        mask = torch.cat([self.real, own], dim=1)[:, None, None]
        return rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), "b h n d -> b n (h d)")


def _attended(
    qkv: tuple[Tensor, Tensor, Tensor], rope: tuple[Tensor, Tensor], attend: Attend, past: KeysValues | None
) -> Tensor:
    """Rotary attention -> ``(B, N, D)``; angles in float32, products in the values' dtype."""
    q, k, v = qkv
    q, k = rotate(q, rope).to(v.dtype), rotate(k, rope).to(v.dtype)
    if past is not None:
        k, v = past.extend(k, v)
    return attend(q, k, v)


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))`` (Shazeer 2020), gate and up as one matrix."""

    def __init__(self, width: int, hidden: int, bias: bool = False) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(swiglu(self.up(x)))


class _Half(nn.Module):
    """One stream's weights in a double-stream block."""

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        d, bias = config.width, config.bias
        self.heads = config.heads
        self.qkv = nn.Linear(d, 3 * d, bias=config.qkv_bias)
        self.norm = QKNorm(d // config.heads)
        self.proj = nn.Linear(d, d, bias=bias)
        self.mlp = SwiGLU(d, config.hidden, bias=bias)

    def queries(self, x: Tensor, table: Tensor, choice: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        shift, scale = table[:, :, 0], table[:, :, 1]
        return split_heads(self.qkv(modulated_norm(x, shift, scale, choice)), self.heads, self.norm)

    def update(self, x: Tensor, attended: Tensor, table: Tensor, choice: Tensor | None) -> Tensor:
        _, _, gate, mlp_shift, mlp_scale, mlp_gate = table.unbind(2)
        x = gated_sum(x, gate, self.proj(attended), choice)
        return gated_sum(x, mlp_gate, self.mlp(modulated_norm(x, mlp_shift, mlp_scale, choice)), choice)


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
        attend: Attend,
        past: KeysValues | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``text`` or ``media`` may have no tokens: then its half does nothing."""
        halves = [(self.text, text, tables[0], choices[0]), (self.media, media, tables[1], choices[1])]
        parts = [half.queries(x, table, choice) for half, x, table, choice in halves if x.shape[1]]
        q, k, v = (torch.cat(same, dim=2) for same in zip(*parts, strict=True))
        attended = _attended((q, k, v), rope, attend, past).split([text.shape[1], media.shape[1]], dim=1)
        text, media = (
            half.update(x, seen, table, choice) if x.shape[1] else x
            for (half, x, table, choice), seen in zip(halves, attended, strict=True)
        )
        return text, media


class SingleBlock(nn.Module):
    """Attention and feed-forward side by side on the joint sequence, one matrix in and one out."""

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        d = config.width
        self.heads, self.widths = config.heads, (3 * d, 2 * config.hidden)
        self.up = nn.Linear(d, sum(self.widths), bias=config.bias)
        lone = config.qkv_bias and not config.bias  # a bias for the first 3 D rows of the matrix only
        self.qkv_bias = nn.Parameter(torch.zeros(3 * d)) if lone else None
        self.norm = QKNorm(d // config.heads)
        self.down = nn.Linear(d + config.hidden, d, bias=config.bias)

    def forward(
        self,
        x: Tensor,
        table: Tensor,
        choice: Tensor | None,
        rope: tuple[Tensor, Tensor],
        attend: Attend,
        past: KeysValues | None = None,
    ) -> Tensor:
        shift, scale, gate = table.unbind(2)
        qkv, mlp = self.up(modulated_norm(x, shift, scale, choice)).split(self.widths, dim=-1)
        if self.qkv_bias is not None:
            qkv = qkv + self.qkv_bias.to(qkv.dtype)
        attended = _attended(split_heads(qkv, self.heads, self.norm), rope, attend, past)
        return gated_sum(x, gate, self.down(torch.cat([attended, swiglu(mlp)], dim=-1)), choice)


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
        self.place_in = nn.Linear(d // config.heads, d, bias=False) if config.absolute_positions else None
        self.text_modulation, self.media_modulation = Modulation(d, 6, bias), Modulation(d, 6, bias)
        self.single_modulation = Modulation(d, 3, bias)
        self.double_blocks = nn.ModuleList(DoubleBlock(config) for _ in range(config.double_blocks))
        self.single_blocks = nn.ModuleList(SingleBlock(config) for _ in range(config.single_blocks))
        self.out_modulation = Modulation(d, 2, bias)
        self.media_out = nn.ModuleDict({m: nn.Linear(d, c, bias=bias) for m, c in config.modalities.items()})
        hidden = round(d * config.projector_ratio)
        self.projector = nn.Sequential(
            nn.Linear(d, hidden), nn.SiLU(), nn.Linear(hidden, config.projector_channels or d)
        )
        self.attention_backend: str | Callable[[Pattern], Attend] = "sdpa"
        self._initialise()

    def _initialise(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.endswith("modulation.linear"):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                # The first velocity is zero, as in DiT; a model taught without places begins as it was.
                if name.startswith(("media_out", "place_in")):
                    nn.init.zeros_(module.weight)

    def forward(
        self,
        streams: Mapping[str, TokenStream],
        levels: Mapping[str, NoiseLevels],
        text: TokenStream,
        features_after: tuple[int, ...] = (),
        features_only: bool = False,
        given: Mapping[str, Tensor] | None = None,
    ) -> Output:
        """Velocity (noise - data) of every media token.

        Args:
            streams: modality -> noisy tokens; any non-empty subset of the config's modalities.
            levels: stream name -> noise levels, with one entry ``"text"`` for the text tokens.
            text: the text encoder's tokens; at least one per row (an empty caption is a token too).
            features_after: also return the media tokens' hidden state after these blocks, counted from 1.
            features_only: stop after the last of them and return no velocity (the teacher's pass).
            given: modality -> ``(B, N)`` bool of given tokens; read where ``isolate_conditions`` is set.

        Raises:
            UserError: an unknown modality, levels that do not fit, ``features_after`` outside the depth.
        """
        self._check(streams, levels, text, features_after, features_only)
        pattern = _pattern([text, *streams.values()], _conditions(streams, text, given) if self._isolates else None)
        return self._run(
            streams, levels, text, attention(self.attention_backend, pattern), features_after, features_only
        )

    def condition(
        self, streams: Mapping[str, TokenStream], levels: Mapping[str, NoiseLevels], text: TokenStream
    ) -> Past:
        """The keys and values of text and given tokens in every block, for :meth:`conditioned`.

        Args:
            streams: modality -> given tokens (and nothing but those), without padding; may be empty.
            levels, text: as in a forward pass, text padded or not; the levels of these tokens cannot change while
                sampling.

        Raises:
            UserError: the model was not built with ``isolate_conditions``, or a row packs several samples.
        """
        if not self._isolates:
            raise UserError("only a model with isolate_conditions has conditions that can be computed beforehand")
        if not all(s.full for s in streams.values()) or bool((text.sample > 0).any()):
            raise UserError("conditions are computed beforehand for one sample per row")
        self._check(streams, levels, text, (), False, at_least=0)
        pattern = _pattern([text, *streams.values()], None)
        real = None if pattern.sample is None else pattern.sample == 0
        past = Past([KeysValues() for _ in range(self.config.depth)], real)
        self._run(streams, levels, text, attention(self.attention_backend, pattern), past=past)
        return past

    def conditioned(
        self, streams: Mapping[str, TokenStream], levels: Mapping[str, NoiseLevels], past: Past
    ) -> dict[str, Tensor]:
        """The velocity of generated tokens, given what :meth:`condition` computed; equal to that of a forward pass."""
        self._check(streams, levels, None, (), False)
        return self._run(streams, levels, None, past.attend, past=past).velocity

    @property
    def _isolates(self) -> bool:
        return self.config.isolate_conditions

    def _run(
        self,
        streams: Mapping[str, TokenStream],
        levels: Mapping[str, NoiseLevels],
        text: TokenStream | None,
        attend: Attend,
        features_after: tuple[int, ...] = (),
        features_only: bool = False,
        past: Past | None = None,
    ) -> Output:
        names = list(streams)
        sizes = [streams[m].values.shape[1] for m in names]
        parts = [s for s in (text, *streams.values()) if s is not None]
        batch, n_text = len(parts[0].values), 0 if text is None else text.values.shape[1]
        positions = torch.cat([p.positions for p in parts], dim=1)
        rope = rope_table(positions, self.config.rope_axes, self.config.rope_theta, self.config.time_rate)
        nothing = positions.new_zeros(batch, 0, self.config.width, dtype=torch.float32)

        x_text = nothing if text is None else self.text_in(text.values).float()
        x = torch.cat([nothing, *(self.media_in[m](streams[m].values).float() for m in names)], dim=1)  # stays float32
        if self.place_in is not None:
            of_all = self.place_in(torch.cat(rope, dim=-1).squeeze(1)).float()
            x_text, x = x_text + of_all[:, :n_text], x + of_all[:, n_text:]

        # A modulation per noise level, whatever the number of tokens; each block looks up what it needs.
        text_levels, media_levels = [] if text is None else [levels["text"]], [levels[m] for m in names]
        all_levels = NoiseLevels.concatenate([*text_levels, *media_levels])
        embedding = self.level(all_levels.levels)
        of_text, of_media = embedding.split(
            [sum(lv.levels.shape[1] for lv in g) for g in (text_levels, media_levels)], 1
        )
        choices = [choice_of(NoiseLevels.concatenate(g)) if g else None for g in (text_levels, media_levels)]
        tables = self.text_modulation(of_text), self.media_modulation(of_media)

        features: dict[int, dict[str, Tensor]] = {}
        last = max(features_after) if features_only else 0
        kept = [None] * self.config.depth if past is None else past.blocks
        for i, double in enumerate(self.double_blocks, start=1):
            x_text, x = double(x_text, x, tables, (choices[0], choices[1]), rope, attend, kept[i - 1])
            if among(i, features_after):
                features[i] = dict(zip(names, x.split(sizes, dim=1), strict=True))
            if i == last:
                return Output({}, features)
        x = torch.cat([x_text, x], dim=1)
        table, choice = self.single_modulation(embedding), choice_of(all_levels)
        for i, single in enumerate(self.single_blocks, start=1 + len(self.double_blocks)):
            x = single(x, table, choice, rope, attend, kept[i - 1])
            if among(i, features_after):
                features[i] = dict(zip(names, x[:, n_text:].split(sizes, dim=1), strict=True))
            if i == last:
                return Output({}, features)
        if not names:
            return Output({}, features)
        shift, scale = self.out_modulation(of_media).unbind(2)
        x = modulated_norm(x[:, n_text:], shift, scale, choices[1])
        velocity = {m: self.media_out[m](part) for m, part in zip(names, x.split(sizes, dim=1), strict=True)}
        for m, std in self.config.data_std.items():
            if m in velocity:
                t = levels[m].per_token()[..., None]
                velocity[m] = velocity[m] + linear_velocity(t, std).to(velocity[m].dtype) * streams[m].values
        return Output(velocity, features)

    def _check(
        self,
        streams: Mapping[str, TokenStream],
        levels: Mapping[str, NoiseLevels],
        text: TokenStream | None,
        features_after: tuple[int, ...],
        features_only: bool,
        at_least: int = 1,
    ) -> None:
        if len(streams) < at_least:
            raise UserError("the model was called without any media tokens")
        for name, stream in {**streams, **({} if text is None else {"text": text})}.items():
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
        if features_only and not features_after:
            raise UserError("features_only needs features_after")
        for block in features_after:
            if not 1 <= block <= self.config.depth:
                raise UserError(f"features_after is {block}; the blocks are counted from 1 to {self.config.depth}")


def linear_velocity(t: Tensor, std: float) -> Tensor:
    """c of the least squares estimate ``c x_t`` of the velocity x1 - x0, for independent x0 ~ N(0, std^2) and
    x1 ~ N(0, 1) on the path x_t = (1 - t) x0 + t x1: Cov(x1 - x0, x_t) / Var(x_t) (Karras et al. 2022,
    arXiv:2206.00364, app. B.6).
    """
    return (t - (1 - t) * std**2) / (t**2 + (1 - t) ** 2 * std**2)


def among(block: int, chosen: tuple[int, ...]) -> bool:
    """``block in chosen``, which a compiler gets wrong once it has seen different choices and holds them symbolic."""
    return any(block == other for other in chosen)


def _pattern(streams: list[TokenStream], condition: Tensor | None) -> Pattern:
    full = all(s.full for s in streams)
    return Pattern(None if full else torch.cat([s.sample for s in streams], dim=1), condition)


def _conditions(streams: Mapping[str, TokenStream], text: TokenStream, given: Mapping[str, Tensor] | None) -> Tensor:
    """``(B, N)`` bool over text and media tokens: those that see only each other."""
    masks = [
        given[m] if given and m in given else torch.zeros_like(s.sample, dtype=torch.bool) for m, s in streams.items()
    ]
    return torch.cat([torch.ones_like(text.sample, dtype=torch.bool), *masks], dim=1)
