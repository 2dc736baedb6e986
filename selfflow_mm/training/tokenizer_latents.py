"""Latents in a tokenizer's training: what is decoded, what holds gaussian ones together, how they are spread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: A channel whose deviation is below this, or below this share of the median channel's, carries nothing.
_DEAD, _DEAD_SHARE = 1e-3, 0.01


@dataclass(frozen=True)
class Reconstruction:
    """What the autoencoder made of a batch.

    Attributes:
        output: the media again, float32, same shape.
        mean, log_variance: of the latents; the variance is None where they are bounded.
    """

    output: Tensor
    mean: Tensor
    log_variance: Tensor | None


def reconstruct(
    model: nn.Module,
    media: Tensor,
    noise: Callable[[int], Tensor],
    deviation: float,
    bfloat16: bool,
    frozen: bool = False,
) -> Reconstruction:
    """Encode, disturb the latents and decode.

    Args:
        model: gives ``posterior`` and ``decode``.
        media: float, as the model takes them.
        noise: number of latent values of a sample -> standard normal ``(B, values)``.
        deviation: of what is added to the latents; to that of gaussian latents it adds by variance.
        bfloat16: compute in it.
        frozen: no gradient for the encoder.
    """
    autoencoder: Any = model
    with torch.autocast(media.device.type, torch.bfloat16, enabled=bfloat16):
        with torch.set_grad_enabled(not frozen):
            mean, log_variance = autoencoder.posterior(media)
        drawn = noise(mean[0].numel()).view_as(mean)
        if log_variance is None:
            latents = mean + deviation * drawn
        else:
            latents = mean + (log_variance.float().exp() + deviation**2).sqrt() * drawn
        output = autoencoder.decode(latents)
    return Reconstruction(output.float(), mean, log_variance)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence from N(mean, variance) to N(0, 1) in nats, value by value (Kingma and Welling 2014, app. B)."""
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


@dataclass(frozen=True)
class LatentStatistics:
    """How the latents of training data are spread, per latent channel, ``(C,)`` each.

    Attributes:
        mean, deviation: what the exported tokenizer standardises by; deviations are at least .001, and one for all
            channels where latents are isometric.
        kurtosis: of the normal distribution 3; much more means rare large values.
        dead: channels that carry nothing, as their deviation is next to none.
        kl: nats per value, where the latents are gaussian; near 0 a channel has fallen back to the prior.
    """

    mean: Tensor
    deviation: Tensor
    kurtosis: Tensor
    dead: tuple[int, ...]
    kl: Tensor | None = None

    def scores(self) -> dict[str, float]:
        return {"dead_channels": float(len(self.dead)), "latent_kurtosis": float(self.kurtosis.median())}


@torch.no_grad()
def measure(model: nn.Module, media: Iterable[Tensor], device: torch.device) -> LatentStatistics:
    """Statistics over whole media ``(1, ...)``, one at a time.

    Where ``model.mix`` has made the latents isometric, one deviation for all channels keeps them so.
    """
    autoencoder: Any = model
    mix = getattr(model, "mix", None)
    total, nats = [], []
    for one in media:
        mean, log_variance = autoencoder.posterior(one.to(device))
        total.append((mean if mix is None else mean @ mix).flatten(0, -2).cpu())
        if log_variance is not None:
            nats.append(divergence(mean, log_variance).flatten(0, -2).mean(0, keepdim=True).cpu())
    latents = torch.cat(total).double()
    mean, deviation = latents.mean(0), latents.std(0)
    # In place: the latents of a large data set are the largest thing here.
    fourth = latents.sub_(mean).div_(deviation.clamp_min(1e-12)).pow_(4).mean(0)
    dead = (deviation < _DEAD) | (deviation < _DEAD_SHARE * deviation.median())
    if mix is not None:
        deviation = deviation.square().mean().sqrt().expand_as(deviation)
    return LatentStatistics(
        mean.float(),
        deviation.clamp_min(1e-3).float(),
        fourth.float(),
        tuple(torch.nonzero(dead).flatten().tolist()),
        torch.cat(nats).mean(0) if nats else None,
    )
