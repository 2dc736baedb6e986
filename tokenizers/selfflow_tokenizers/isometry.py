"""Latents in which distances are those of the decoded pictures.

A latent of an autoencoder has no scale of its own: whatever its encoder multiplies, its decoder can divide. Models of
latents whose channels are all made one wide then have to get small matters, which the decoder shows as a shade of a
pixel, as right as where an object is, and their noise hides both at the same time. The decoder says what matters. To
first order a change dz of the latents changes the pixels by J dz, so that the squared distance of the pixels is
dz^T G dz with G = J^T J, the decoder's pull-back metric (Arvanitidis, Hansen and Hauberg 2018, "Latent Space Oddity").
After the map z -> G^(1/2) z, with the mean of G over data, that is the plain squared distance. Coarse matters are then
large and fine ones small, as in pictures, and white noise hides the fine ones first.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from .errors import UserError
from .video_autoencoder import VideoAutoencoder

#: How far latents are moved to see what the decoder makes of it, in deviations of their channel: far enough for what a
#: model gets wrong, not only for the slope.
_STEP = 0.25
#: Directions count at least so much of the largest eigenvalue of G, so that the map can be undone in half precision.
_LEAST = 1e-4


@torch.no_grad()
def pullback_metric(model: VideoAutoencoder, clips: Iterable[Tensor], *, seed: int = 0) -> Tensor:
    """Mean over cells of J^T J of the decoder, by central differences: float64 ``(C, C)``, symmetric, positive.

    All cells of a clip are moved at once, each by a sign of its own, so that what two cells do to the same pixel
    cancels on average.

    Args:
        model: with C latent channels.
        clips: float ``(1, T, H, W, 3)`` in [-1, 1], of any sizes that the model takes.
        seed: of the signs.
    """
    latents = [model.encode(clip) for clip in clips]
    channels = model.latent_channels
    deviation = torch.cat([z.reshape(-1, channels) for z in latents]).std(0).clamp_min(1e-3)
    generator = torch.Generator().manual_seed(seed)
    total, cells = torch.zeros(channels, channels, dtype=torch.float64), 0
    for z in latents:
        signs = torch.randint(0, 2, z.shape[:-1], generator=generator).to(z) * 2 - 1
        slopes = []
        for channel in range(channels):
            moved = torch.zeros_like(z)
            moved[..., channel] = _STEP * deviation[channel] * signs
            away = model.decode(z + moved).double() - model.decode(z - moved).double()
            slopes.append((away / (2 * _STEP * float(deviation[channel]))).flatten())
        jacobian = torch.stack(slopes)
        total += (jacobian @ jacobian.T).cpu()
        cells += signs.numel()
    return total / cells


def isometric(model: VideoAutoencoder, metric: Tensor) -> VideoAutoencoder:
    """A copy of ``model`` whose latents are mapped by the root of ``metric``; what it decodes stays the same.

    The encoder gets the matrix, the decoder's first layer its inverse.

    Args:
        model: not isometric yet.
        metric: ``(C, C)``, see :func:`pullback_metric`.

    Raises:
        UserError: the model's latents are mapped already, or the metric is not finite or says that nothing matters.
    """
    if model.config.isometric:
        raise UserError("the latents of this autoencoder are isometric already")
    finite = bool(torch.isfinite(metric).all())
    energy, directions = torch.linalg.eigh(torch.nan_to_num(metric).double().cpu())
    if not finite or float(energy[-1]) <= 0:
        raise UserError(
            "the decoder does not depend on its latents, or gives NaN; train it before it is made isometric"
        )
    root = (energy / energy[-1]).clamp_min(_LEAST).sqrt()
    stem = model.decoder["stem"]
    made = VideoAutoencoder(replace(model.config, isometric=True)).to(stem.weight.device)  # type: ignore[arg-type]
    state = copy.deepcopy(model.state_dict())
    state["mix"] = directions * root @ directions.T
    inverse = directions / root @ directions.T
    state["decoder.stem.weight"] = state["decoder.stem.weight"].double().cpu() @ inverse
    made.load_state_dict(state)
    return made.train(model.training)
