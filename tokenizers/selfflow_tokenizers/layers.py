"""Layers both autoencoders are built of: channels last, finite reach, no statistics over time.

Every layer looks at one position, at a few neighbours in space, or at a few neighbours in time.
None averages over a clip, so a codec built of them can be run piece by piece with the same result.
Neighbours are mixed channel by channel (depthwise) and channels position by position, as in
ConvNeXt (Liu et al. 2022): nearly all arithmetic is then matrix products, which CPUs do best.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelNorm(nn.Module):
    """Layer normalisation of each position's channel vector, with a gain and no offset.

    Args:
        channels: size of the last dimension.
        floor: variance added before the root; keeps near-silence from being blown up to full size.
    """

    def __init__(self, channels: int, floor: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.floor = floor

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` -> ``(..., C)``; zero stays zero."""
        return F.layer_norm(x, x.shape[-1:], self.weight, None, self.floor)


class SpaceMix(nn.Conv2d):
    """A depthwise convolution of each frame: ``(B, T, H, W, C)`` -> same shape; zeros beyond the border."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, time = x.shape[:2]
        # (N, H, W, C) viewed as (N, C, H, W) is torch's channels_last layout: no copy is made.
        y = super().forward(x.flatten(0, 1).permute(0, 3, 1, 2))
        return y.permute(0, 2, 3, 1).unflatten(0, (batch, time))


class Past:
    """What causal layers saw of the steps before a piece, so that a clip run piece by piece is the clip run at once.

    Pass one to a model's ``encode`` (or ``decode``) for every piece of one clip, in order. A layer keeps as many steps
    as it looks back, so memory does not grow with the clip.

    Attributes:
        started: whether a piece has gone through, so that the next one is no beginning.
    """

    def __init__(self) -> None:
        self.started = False
        self._steps: dict[object, Tensor] = {}
        self._parts: dict[object, Past] = {}

    def join(self, layer: object, x: Tensor, steps: int) -> Tensor:
        """``x (B, T, ...)`` with up to ``steps`` earlier steps of the same layer in front; remembers its last ones."""
        before = self._steps.get(layer)
        joined = x if before is None else torch.cat([before, x], dim=1)
        if steps:
            self._steps[layer] = joined[:, max(0, joined.shape[1] - steps) :].clone()
        return joined

    def part(self, key: object) -> Past:
        """A past of its own for one part of the picture (a tile)."""
        return self._parts.setdefault(key, Past())


class Chain(nn.Sequential):
    """``nn.Sequential`` whose layers may look at the past."""

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        for layer in self:
            x = layer(x, past) if isinstance(layer, Chain | Block | CausalTimeMix) else layer(x)
        return x


class CausalTimeMix(nn.Module):
    """A depthwise convolution over this and earlier time steps: ``(B, T, H, W, C)`` -> same shape.

    Zeros stand before the start. Begins as the identity.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(kernel, channels))
        with torch.no_grad():
            self.weight[-1] = 1.0

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        kernel, new = self.weight.shape[0], x.shape[1]
        y = x * self.weight[-1]
        if past is not None:
            x = past.join(self, x, kernel - 1)
        time = x.shape[1]
        for back in range(1, min(kernel, time)):
            # Steps from `first` on have a step `back` before them.
            first = max(back - (time - new), 0)
            y[:, first:] += x[:, time - new + first - back : time - back] * self.weight[kernel - 1 - back]
        return y


class SoundMix(nn.Conv1d):
    """A depthwise convolution along a sound: ``(B, L, C)`` -> same shape; centred, zeros beyond the ends, no bias."""

    def __init__(self, channels: int, kernel: int, dilation: int = 1) -> None:
        super().__init__(
            channels, channels, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    """``x + out(silu(inner(norm(mix(x)))))``; ``out`` starts at zero, so a new network is a linear one."""

    def __init__(
        self, mix: nn.Module, channels: int, expansion: int, *, bias: bool = True, floor: float = 1e-5
    ) -> None:
        super().__init__()
        self.mix = mix
        self.norm = ChannelNorm(channels, floor)
        self.inner = nn.Linear(channels, channels * expansion, bias=bias)
        self.out = nn.Linear(channels * expansion, channels, bias=bias)
        nn.init.zeros_(self.out.weight)
        if bias:
            nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        mixed = self.mix(x, past) if isinstance(self.mix, Chain) else self.mix(x)
        return x + self.out(F.silu(self.inner(self.norm(mixed))))
