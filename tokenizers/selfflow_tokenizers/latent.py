"""The two kinds of latents of our autoencoders: bounded, or gaussian as in a VAE (Kingma and Welling 2014)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

LatentKind = Literal["bounded", "gaussian"]
#: Logarithm of a gaussian latent's variance is kept in this range, beyond which exp() is of no use.
_RANGE = (-20.0, 10.0)


def split_posterior(head: Tensor, kind: LatentKind) -> tuple[Tensor, Tensor | None]:
    """What an encoder's last layer gives -> mean of the latents, and log-variance where they are gaussian.

    Bounded latents are tanh of the last layer, in (-1, 1), and have no variance.
    """
    if kind == "bounded":
        return torch.tanh(head), None
    mean, log_variance = head.chunk(2, dim=-1)
    return mean, log_variance.clamp(*_RANGE)


def mean_of(posterior: tuple[Tensor, Tensor | None]) -> Tensor:
    return posterior[0]
