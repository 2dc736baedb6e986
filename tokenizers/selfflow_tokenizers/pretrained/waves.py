"""What the adapters to convolutional sound codecs share: exact lengths, and how far their layers see."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

from torch import Tensor
from torch.nn import functional as F


def exactly(waveform: Tensor, samples: int) -> Tensor:
    """``(..., any)`` -> ``(..., samples)``: cropped, or filled up with zeros, at the end."""
    return F.pad(waveform[..., :samples], (0, max(0, samples - waveform.shape[-1])))


def reach(strides: Sequence[int]) -> int:
    """Latents before and after a latent, or after a latent's samples, that the layout of Oobleck and DAC depends on.

    The layout, outermost first: a convolution of 7 taps; per stride three residual units of 7 taps with dilations 1,
    3 and 9 (39 steps to a side) and a strided convolution of twice the stride; 3 taps into the latents, 7 taps out.

    Args:
        strides: of the encoder, from the waveform to the latents.
    """
    units = 3 * (1 + 3 + 9)
    encoder = decoder = 3.0  # in samples: the outermost convolution
    step = 1
    for stride in strides:
        # A strided convolution of 2 s taps sees up to 1.5 s steps to a side (and s odd half a step more).
        encoder += (units + 1.5 * stride + 0.5) * step
        step *= stride
        # Its transpose writes up to 1.5 s steps to a side of an input, each of them a step of the slower rate.
        decoder += units * step / stride + 1.5 * step + 0.5 * step / stride
    encoder += step
    decoder += 3 * step
    return ceil(max(encoder, decoder) / prod(strides))
