"""Discriminators: networks that learn to tell reconstructions from originals, for the adversarial term.

Both give one logit for each small region, not one for the whole, and neither has statistics over a batch, so a sample's
logits do not depend on its neighbours. They return every layer's output, the logits last, for feature matching.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

_SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017, sec. 3.2.2) with group norms: each logit sees a patch of the picture.

    Args:
        channels: of the pictures; 3 for each frame seen at once.
        width: channels of the first layer; doubled by each, up to eight times.
        layers: layers of stride 2; with three a logit sees 70 x 70 pixels.
    """

    def __init__(self, channels: int, width: int, layers: int) -> None:
        super().__init__()
        widths = [channels, *(width * min(2**i, 8) for i in range(layers + 1))]
        stages = []
        for i, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
            stride = 2 if i < layers else 1
            convolution = nn.Conv2d(before, after, 4, stride, 1, bias=i == 0)
            norm = nn.GroupNorm(math.gcd(32, after), after) if i else nn.Identity()
            stages.append(nn.Sequential(convolution, norm, nn.LeakyReLU(_SLOPE)))
        stages.append(nn.Sequential(nn.Conv2d(widths[-1], 1, 4, 1, 1)))
        self.stages = nn.ModuleList(stages)

    def forward(self, pictures: Tensor) -> list[list[Tensor]]:
        """``(B, channels, H, W)`` in [-1, 1] -> one list, as there is one scale, of features ``(B, C, h, w)``.

        Logits come last. Sides have at least ``3 * 2**layers`` pixels.
        """
        seen = []
        x = pictures
        for stage in self.stages:
            x = stage(x)
            seen.append(x)
        return [seen]


class SpectrumDiscriminator(nn.Module):
    """Convolutions on complex spectra of several window lengths (Défossez et al. 2022, EnCodec, sec. 3.4).

    Args:
        channels: of the sound; real and imaginary parts of all of them are looked at together.
        windows: lengths of the short-time Fourier transforms in samples; hops are a quarter.
        width: channels of every layer.
    """

    def __init__(self, channels: int, windows: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.windows = windows
        self.scales = nn.ModuleList(self._scale(channels, width) for _ in windows)

    @staticmethod
    def _scale(channels: int, width: int) -> nn.ModuleList:
        def layer(before: int, after: int, kernel: tuple[int, int], stride: int = 1, dilation: int = 1) -> nn.Module:
            # Frames are the rows and are never skipped; bins are the columns.
            padding = (kernel[0] // 2 * dilation, kernel[1] // 2)
            convolution = nn.Conv2d(before, after, kernel, (1, stride), padding, (dilation, 1))
            # There are no norms: the start must keep the signal's size, or it is lost six layers on.
            nn.init.kaiming_normal_(convolution.weight, _SLOPE)
            return weight_norm(convolution)

        return nn.ModuleList(
            [
                layer(2 * channels, width, (3, 9)),
                *(layer(width, width, (3, 9), stride=2, dilation=d) for d in (1, 2, 4)),
                layer(width, width, (3, 3)),
                layer(width, 1, (3, 3)),
            ]
        )

    def forward(self, sounds: Tensor) -> list[list[Tensor]]:
        """``(B, channels, samples)`` in [-1, 1] -> for each window the features ``(B, C, frames, bins)``, logits last.

        There are more samples than half of the longest window.
        """
        result = []
        for window, scale in zip(self.windows, self.scales, strict=True):
            assert isinstance(scale, nn.ModuleList)
            x = _spectrum(sounds, window)
            seen = []
            for i, layer in enumerate(scale):
                x = layer(x)
                x = x if i == len(scale) - 1 else F.leaky_relu(x, _SLOPE)
                seen.append(x)
            result.append(seen)
        return result


def _spectrum(sounds: Tensor, window: int) -> Tensor:
    """``(B, channels, samples)`` -> real and imaginary parts ``(B, 2 channels, frames, bins)``."""
    shape = torch.hann_window(window, device=sounds.device)
    bins = torch.stft(sounds.flatten(0, 1), window, window // 4, window=shape, normalized=True, return_complex=True)
    parts = torch.view_as_real(bins.unflatten(0, sounds.shape[:2]))
    return parts.permute(0, 1, 4, 3, 2).flatten(1, 2)
