"""The ImageNet transformer: SiT-XL/2 with a noise level per token, in the layout of the released Self-Flow weights.

A drop-in for the class of the same name in black-forest-labs/Self-Flow: same constructor, same parameter names, same
call. What differs is the cost: the adaLN modulation is computed once per noise level instead of once per token
(``NoiseLevels``), which gives the same numbers for two thirds of the work.

Time is the paper's at every boundary: t = 0 data, t = 1 noise, velocity = noise - data. The released weights were
trained in the other direction (SiT's), so the network embeds 1 - t and its output is negated; both happen in
``SelfFlowPerTokenDiT.velocity`` and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..tokens import NoiseLevels, TokenStream
from .attention import plain
from .joint import Output, among
from .layers import choice_of
from .lean import gated_sum, modulated_norm


@dataclass(frozen=True)
class ImageNetConfig:
    """Shape of an ImageNet transformer; names and defaults are those of the reference's constructor.

    Attributes:
        input_size: height and width of the latent, a multiple of ``patch_size``.
        patch_size: side p of the square of latent cells that is one token.
        in_channels: C, of the latent.
        hidden_size: width D, a multiple of ``num_heads`` and of 4 (the positions are sines and cosines of two axes).
        depth: number of blocks.
        mlp_ratio: hidden width of the feed-forward over D.
        num_classes: rows of the label table. The released one has 1001: row 1000 stands for no class.
        learn_sigma: the output layer has twice the channels; the second half is not used.
    """

    input_size: int = 32
    patch_size: int = 2
    in_channels: int = 4
    hidden_size: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    learn_sigma: bool = False

    def __post_init__(self) -> None:
        for name in ("input_size", "patch_size", "in_channels", "hidden_size", "depth", "num_heads", "num_classes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is at least 1, got {getattr(self, name)}")
        if self.input_size % self.patch_size:
            raise UserError(f"input_size {self.input_size} is not a multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.num_heads:
            raise UserError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.hidden_size % 4:
            raise UserError(f"hidden_size {self.hidden_size} is not a multiple of 4, as 2-D sin-cos positions need")
        if self.mlp_ratio <= 0:
            raise UserError(f"mlp_ratio must be positive, got {self.mlp_ratio}")

    @property
    def grid(self) -> int:
        """Tokens along one side."""
        return self.input_size // self.patch_size

    @property
    def tokens(self) -> int:
        return self.grid**2

    @property
    def token_channels(self) -> int:
        """Channels of one token: C p p."""
        return self.in_channels * self.patch_size**2

    @property
    def hidden(self) -> int:
        """Width inside the feed-forward."""
        return int(self.hidden_size * self.mlp_ratio)


#: The released model, ``selfflow_imagenet256.pt``: SD-VAE latents of 256 x 256 images, 675 M parameters.
IMAGENET_XL_2 = ImageNetConfig(num_classes=1001, learn_sigma=True)


class PatchEmbedding(nn.Module):
    def __init__(self, config: ImageNetConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(config.token_channels, config.hidden_size)


class TimestepEmbedding(nn.Module):
    """A time in [0, 1] -> D: cosines and sines at 128 frequencies from 1 down to 1e-4, then an MLP; all in float32."""

    frequencies = 128

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * self.frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        with torch.autocast(t.device.type, enabled=False):
            i = torch.arange(self.frequencies, dtype=torch.float32, device=t.device)
            angles = t.float().unsqueeze(-1) * torch.exp(-math.log(10_000.0) * i / self.frequencies)
            return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


class LabelEmbedding(nn.Module):
    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes, width)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(plain(q, k, v))


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def modulation(width: int, count: int) -> nn.Sequential:
    """The adaLN layer. Only its matrix (entry 1) is called: the activation before it is the same in all blocks."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, count * width))


def modulation_table(layer: nn.Sequential, condition: Tensor) -> Tensor:
    """Condition after its activation, ``(B, G, D)`` -> ``(B, G, count, D)`` float32, one row per noise level."""
    matrix = layer[1]
    assert isinstance(matrix, nn.Linear)
    rows = condition.flatten(0, 1)
    if rows.device.type == "cpu" and len(rows) <= 32:
        # The same product: with few rows the time goes into reading the weights, and this order reads them twice as
        # fast as nn.Linear's.
        table = (matrix.weight @ rows.t()).t().float() + matrix.bias
    else:
        table = matrix(rows).float()
    return table.view(*condition.shape[:2], -1, condition.shape[2])


class Block(nn.Module):
    """Attention and feed-forward, each behind a modulated norm and a gate (adaLN-zero, Peebles & Xie 2023)."""

    def __init__(self, config: ImageNetConfig) -> None:
        super().__init__()
        self.attn = Attention(config.hidden_size, config.num_heads)
        self.mlp = FeedForward(config.hidden_size, config.hidden)
        self.adaLN_modulation = modulation(config.hidden_size, 6)

    def forward(self, x: Tensor, condition: Tensor, choice: Tensor | None) -> Tensor:
        """``x`` ``(B, N, D)`` float32, ``condition`` ``(B, G, D)``, ``choice`` of :func:`layers.choice_of`."""
        table = modulation_table(self.adaLN_modulation, condition)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = table.unbind(2)
        attended = self.attn(modulated_norm(x, shift, scale, choice))
        x = gated_sum(x, gate, attended, choice)
        fed = self.mlp(modulated_norm(x, mlp_shift, mlp_scale, choice))
        return gated_sum(x, mlp_gate, fed, choice)


class FinalLayer(nn.Module):
    def __init__(self, config: ImageNetConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.hidden_size, config.token_channels * (2 if config.learn_sigma else 1))
        self.adaLN_modulation = modulation(config.hidden_size, 2)

    def forward(self, x: Tensor, condition: Tensor, choice: Tensor | None) -> Tensor:
        shift, scale = modulation_table(self.adaLN_modulation, condition).unbind(2)
        return self.linear(modulated_norm(x, shift, scale, choice))


class Projector(nn.Module):
    """The head P of eq. 6, which predicts the teacher's features from the student's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.silu(self.linear1(x)))


class SelfFlowPerTokenDiT(nn.Module):
    """See the module's docstring. Parameters are float32; run under autocast for bfloat16 matrices.

    Args:
        input_size, patch_size, in_channels, hidden_size, depth, num_heads, mlp_ratio, num_classes, learn_sigma: see
            :class:`ImageNetConfig`.
        compatibility_mode: taken because the reference's constructor takes it. The reference reads it nowhere, and
            nor do we: both values give the released weights' network, called with the paper's t.

    Attributes:
        config: the :class:`ImageNetConfig`.
        blocks: the blocks, each called with ``(x, condition, choice)``.
        projector: the head P.
    """

    def __init__(
        self,
        input_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        learn_sigma: bool = False,
        compatibility_mode: bool = False,
    ) -> None:
        super().__init__()
        self.config = config = ImageNetConfig(
            input_size, patch_size, in_channels, hidden_size, depth, num_heads, mlp_ratio, num_classes, learn_sigma
        )
        self.x_embedder = PatchEmbedding(config)
        self.t_embedder = TimestepEmbedding(hidden_size)
        self.y_embedder = LabelEmbedding(num_classes, hidden_size)
        self.pos_embed = nn.Parameter(sincos_positions(hidden_size, config.grid).unsqueeze(0), requires_grad=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(depth))
        self.final_layer = FinalLayer(config)
        self.projector = Projector(hidden_size)
        self._initialise()

    @classmethod
    def from_config(cls, config: ImageNetConfig) -> SelfFlowPerTokenDiT:
        return cls(**asdict(config))

    def _initialise(self) -> None:
        """SiT's: Xavier, small normal embeddings, every gate and the output zero."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
                if "adaLN_modulation" in name or name == "final_layer.linear":
                    nn.init.zeros_(module.weight)
                elif name.startswith("t_embedder"):
                    nn.init.normal_(module.weight, std=0.02)
                else:
                    nn.init.xavier_uniform_(module.weight)
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor | NoiseLevels,
        vector: Tensor,
        x_ids: Tensor | None = None,
        return_features: int | bool = False,
        return_raw_features: int | bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Velocity (noise - data) of every token, as the reference gives it.

        Args:
            x: ``(B, N, C p p)`` noisy tokens, row by row, channels in the order (c, p, q).
            timesteps: the paper's t in [0, 1]: ``(B,)``, ``(B, N)``, or :class:`NoiseLevels`. Of ``(B, N)`` the
                distinct levels are searched for, which waits for an accelerator; inside ``torch.compile`` every token
                gets a modulation of its own instead. ``NoiseLevels`` needs neither.
            vector: ``(B,)`` class labels, integers in [0, num_classes).
            x_ids: not read, as in the reference: positions come from the place in the row.
            return_features: also return P's output for the hidden state after this block, counted from 1.
            return_raw_features: also return the hidden state after this block.

        Returns:
            ``(B, N, C p p)`` float32, or with features a pair of it and ``(B, N, D)``.

        Raises:
            UserError: shapes that do not fit, a label out of range, a block outside the depth, both kinds of features.
        """
        if return_features and return_raw_features:
            raise UserError("return_features and return_raw_features exclude each other; ask for one of them")
        block = int(return_features or return_raw_features)
        after = (block,) if return_features or return_raw_features else ()
        velocity, features = self.velocity(x, self._levels(timesteps, x), vector, after)
        assert velocity is not None
        if not after:
            return velocity
        return velocity, self.projector(features[block]) if return_features else features[block]

    def velocity(
        self,
        x: Tensor,
        levels: NoiseLevels,
        labels: Tensor,
        features_after: tuple[int, ...] = (),
        features_only: bool = False,
    ) -> tuple[Tensor | None, dict[int, Tensor]]:
        """The network: see :meth:`forward`; features are the hidden states ``(B, N, D)`` float32 by block number.

        ``features_only`` stops after the last of them and gives None for the velocity.
        """
        self._check(x, levels, labels, features_after, features_only)
        last = max(features_after) if features_only else None
        hidden = self.x_embedder.proj(x).float() + self.pos_embed  # the residual stream stays in float32
        embedding = self.t_embedder(1 - levels.levels) + self.y_embedder.embedding_table(labels).unsqueeze(1)
        condition, choice = F.silu(embedding), choice_of(levels)
        features: dict[int, Tensor] = {}
        for i, block in enumerate(self.blocks, start=1):
            hidden = block(hidden, condition, choice)
            if among(i, features_after):
                features[i] = hidden
            if i == last:
                return None, features
        return -self._used(self.final_layer(hidden, condition, choice).float()), features

    def _used(self, out: Tensor) -> Tensor:
        """The output layer's ``(p, q, c)`` -> tokens' ``(c, p, q)``, without the channels that learn_sigma added."""
        cells = self.config.patch_size**2
        return out.unflatten(-1, (cells, -1))[..., : self.config.in_channels].transpose(-1, -2).flatten(-2)

    def _levels(self, timesteps: Tensor | NoiseLevels, x: Tensor) -> NoiseLevels:
        if isinstance(timesteps, NoiseLevels):
            return timesteps
        if timesteps.ndim == 1:
            sample = torch.zeros(1, 1, dtype=torch.int64, device=timesteps.device).expand(len(timesteps), x.shape[1])
            return NoiseLevels.uniform(timesteps, sample)
        if timesteps.ndim == 2:
            compiling = torch.compiler.is_compiling()
            return NoiseLevels.each_token(timesteps) if compiling else NoiseLevels.grouped(timesteps)
        raise UserError(f"timesteps are (B,) or (B, N), got {tuple(timesteps.shape)}")

    def _check(
        self, x: Tensor, levels: NoiseLevels, labels: Tensor, features_after: tuple[int, ...], features_only: bool
    ) -> None:
        config = self.config
        if x.ndim != 3 or x.shape[1:] != (config.tokens, config.token_channels):
            raise UserError(
                f"this model takes tokens (B, {config.tokens}, {config.token_channels}): a {config.input_size} x "
                f"{config.input_size} latent of {config.in_channels} channels in {config.patch_size} x "
                f"{config.patch_size} patches; got {tuple(x.shape)}"
            )
        if levels.group.shape != x.shape[:2]:
            raise UserError(f"timesteps for {tuple(levels.group.shape)} tokens do not fit {tuple(x.shape[:2])} tokens")
        if labels.shape != x.shape[:1] or labels.is_floating_point():
            raise UserError(
                f"class labels are {len(x)} integers, one per sample; got {labels.dtype} {tuple(labels.shape)}"
            )
        # Elsewhere the look would stall the device, which has a check of its own in the look-up.
        if labels.device.type == "cpu" and not torch.compiler.is_compiling() and len(labels):
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= config.num_classes:
                wrong = low if low < 0 else high
                raise UserError(f"there is no class {wrong}; this model's labels go from 0 to {config.num_classes - 1}")
        for block in features_after:
            if not 1 <= block <= config.depth:
                raise UserError(f"there are no features after block {block}; blocks count from 1 to {config.depth}")
        if features_only and not features_after:
            raise UserError("features_only needs features_after")


class ImageNetModel(nn.Module):
    """The model call of ``JointTransformer`` on an ImageNet transformer, so that objectives and solvers serve both.

    Its only modality is ``image``, and class labels stand where the joint model takes text.
    """

    def __init__(self, net: SelfFlowPerTokenDiT) -> None:
        super().__init__()
        self.net = net

    @property
    def config(self) -> ImageNetConfig:
        return self.net.config

    @property
    def projector(self) -> nn.Module:
        return self.net.projector

    def forward(
        self,
        streams: Mapping[str, TokenStream],
        levels: Mapping[str, NoiseLevels],
        text: Tensor,
        features_after: tuple[int, ...] = (),
        features_only: bool = False,
        given: Mapping[str, Tensor] | None = None,
    ) -> Output:
        """Velocity (noise - data) of every image token.

        Args:
            streams: ``{"image": tokens (B, N, C p p)}``, one whole image a row; its positions are not read.
            levels: ``{"image": noise levels}``.
            text: ``(B,)`` class labels, integers.
            features_after: also return the hidden state after these blocks, counted from 1.
            features_only: stop after the last of them and return no velocity (the teacher's pass).
            given: part of the joint model's call, and not read: a given token is known by its level alone.

        Raises:
            UserError: another modality, packed or padded rows, and what :meth:`SelfFlowPerTokenDiT.forward` refuses.
        """
        if set(streams) != {"image"} or "image" not in levels:
            raise UserError(
                f"this model has the modality 'image' alone, got tokens of {', '.join(streams) or 'nothing'}"
            )
        if not streams["image"].full:
            raise UserError("this model takes one whole image a row; the image tokens are packed or padded")
        velocity, features = self.net.velocity(
            streams["image"].values, levels["image"], text, features_after, features_only
        )
        return Output({} if velocity is None else {"image": velocity}, {i: {"image": h} for i, h in features.items()})


def sincos_positions(width: int, grid: int) -> Tensor:
    """``(grid * grid, width)`` fixed positions (MAE, He et al. 2022): first half for the column, second for the row,
    each sines then cosines at ``width / 4`` frequencies from 1 down towards 1e-4.
    """
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.arange(grid, dtype=torch.float64).unsqueeze(1) * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    column, row = line.expand(grid, grid, -1), line.unsqueeze(1).expand(grid, grid, -1)
    return torch.cat([column, row], dim=2).flatten(0, 1).float()
