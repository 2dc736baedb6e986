"""The linear start against numpy's singular value decomposition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from selfflow_tokenizers.initialise import fit_linear_video, principal
from selfflow_tokenizers.video_autoencoder import VideoAutoencoder, VideoAutoencoderConfig


def test_principal_components_are_those_of_the_svd() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 7, generator=generator) @ torch.randn(7, 7, generator=generator) + 3
    mean, basis, deviation = principal(x, 3)
    _, singular, right = np.linalg.svd((x - x.mean(0)).double().numpy(), full_matrices=False)
    torch.testing.assert_close(mean, x.mean(0))
    np.testing.assert_allclose(np.abs(right[:3] @ basis.double().numpy()), np.eye(3), atol=1e-5)
    np.testing.assert_allclose(deviation, singular[:3] / 200**0.5, rtol=1e-5)


@pytest.mark.parametrize(
    "kind",
    [{}, {"space_compression": 16, "deep_width": 80}, {"latent": "gaussian"}, {"time_compression": 1}],
    ids=["video", "16x", "gaussian", "image"],
)
def test_clips_of_few_dimensions_are_kept(kind: dict[str, Any]) -> None:
    """Clips made of three fixed patterns need three latents per cell; what is lost is the bend of tanh."""
    torch.manual_seed(0)
    config = VideoAutoencoderConfig(latent_channels=4, fine_width=96, width=64, **kind)
    time, size = config.time_compression, config.space_compression
    patterns = torch.randn(3, time, size, size, 3)
    block = (torch.randn(32, 3, 1, 1, 1, 1) * 0.1 * patterns).sum(1)
    frames = torch.cat([torch.zeros(32, 1, size, size, 3), block], dim=1)
    model = VideoAutoencoder(config)
    fit_linear_video(model, frames)
    quiet = 0.2 * frames
    with torch.no_grad():
        output = model(quiet)
        _, log_variance = model.posterior(quiet)
    assert (output - quiet).square().mean() < 0.01 * quiet.square().mean()
    if config.latent == "gaussian":
        assert log_variance is not None
        torch.testing.assert_close(log_variance, torch.full_like(log_variance, -6.0))
