"""The two kinds of latents of our autoencoders: bounded, or gaussian as in a VAE (Kingma and Welling 2014)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

LatentKind = Literal["bounded", "gaussian"]
#: Log-variances below this are of no use to anybody.
_LOWEST = -20.0


def split_posterior(head: Tensor, kind: LatentKind) -> tuple[Tensor, Tensor | None]:
    """What an encoder's last layer gives -> mean of the latents, and log-variance where they are gaussian.

    Bounded latents are tanh of the last layer, in (-1, 1), and have no variance. A gaussian's variance is the sigmoid
    of the layer, so never above the prior's 1: without a bound one loud sound, far outside what the layer knows, draws
    noise that ends the training.
    """
    if kind == "bounded":
        return torch.tanh(head), None
    mean, variance = head.chunk(2, dim=-1)
    return mean, F.logsigmoid(variance).clamp_min(_LOWEST)


def bias_for(log_variance: float) -> float:
    """The bias under which a last layer of zero weights gives this log-variance (negative)."""
    return -math.log(math.expm1(-log_variance))


def mean_of(posterior: tuple[Tensor, Tensor | None]) -> Tensor:
    return posterior[0]
