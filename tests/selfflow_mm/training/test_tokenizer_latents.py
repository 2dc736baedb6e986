"""Latents in training: sampling, divergence and statistics against closed forms and torch.distributions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from selfflow_mm.randomness import Randomness
from selfflow_mm.training.tokenizer_latents import divergence, measure, reconstruct


class Line(nn.Module):
    """Latents are three times the media, of a set variance; decoding doubles them."""

    def __init__(self, log_variance: float | None = None) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.tensor(2.0))
        self.log_variance = log_variance

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        mean = self.encoder * x
        return mean, None if self.log_variance is None else torch.full_like(mean, self.log_variance)

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder * latents


def noise(values: int) -> Tensor:
    return Randomness(5).normal("latent", 0, torch.arange(4), values)


def test_the_divergence_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, 3, 5, 7, generator=generator)
    theirs = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    assert torch.allclose(divergence(mean, log_variance), theirs, atol=1e-5)
    assert float(divergence(torch.zeros(1), torch.zeros(1))) == 0


def test_bounded_latents_gain_the_deviation_asked_for() -> None:
    media = torch.rand(4, 1000, 1)
    made = reconstruct(Line(), media, noise, 0.1, bfloat16=False)
    assert made.log_variance is None
    assert torch.allclose(made.output, 2 * (3 * media + 0.1 * noise(1000).view(4, 1000, 1)))


def test_gaussian_latents_are_drawn_from_the_posterior_and_the_noise_together() -> None:
    media = torch.zeros(4, 50000, 1)
    made = reconstruct(Line(log_variance=-2.0), media, noise, 0.5, bfloat16=False)
    deviation = float((made.output.detach() / 2).std())
    assert deviation == pytest.approx((torch.tensor(-2.0).exp() + 0.25).sqrt().item(), rel=5e-3)


def test_a_frozen_encoder_has_no_gradient() -> None:
    model = Line(log_variance=0.0)
    reconstruct(model, torch.rand(4, 8, 1), noise, 0.1, bfloat16=False, frozen=True).output.sum().backward()
    assert model.encoder.grad is None and model.decoder.grad is not None


def test_statistics_of_known_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform, normal = torch.rand(2, 20000, generator=generator), torch.randn(2, 20000, generator=generator)
    still = torch.full((2, 20000), 0.7) + 1e-5 * normal
    media = torch.stack([uniform, normal, still], dim=-1) / 3
    found = measure(Line(), (clip[None] for clip in media), torch.device("cpu"))
    assert torch.allclose(found.mean, torch.tensor([0.5, 0.0, 0.7]), atol=0.01)
    assert torch.allclose(found.deviation, torch.tensor([12**-0.5, 1.0, 1e-3]), atol=0.01)
    assert torch.allclose(found.kurtosis[:2], torch.tensor([1.8, 3.0]), atol=0.06)
    assert found.dead == (2,) and found.kl is None
    assert found.scores()["dead_channels"] == 1


def test_isometric_latents_are_measured_mapped_and_keep_their_proportions() -> None:
    media = torch.randn(1, 20000, 2, generator=torch.Generator().manual_seed(0)) / 3
    model = Line()
    model.register_buffer("mix", torch.tensor([[3.0, 0.0], [4.0, 0.5]]))
    found = measure(model, [media + 1], torch.device("cpu"))
    # Channels of deviation 5 and 1/2, whose mean square is 12.625; the mean of (1, 1) * 3 is mapped too.
    assert torch.allclose(found.deviation, torch.tensor([12.625**0.5] * 2), rtol=0.02)
    assert torch.allclose(found.mean, torch.tensor([21.0, 1.5]), atol=0.15)
    assert torch.allclose(found.kurtosis, torch.tensor([3.0, 3.0]), atol=0.15) and found.dead == ()


def test_a_channel_that_fell_back_to_the_prior_is_seen() -> None:
    found = measure(Line(log_variance=0.0), [torch.zeros(1, 5, 2), torch.ones(1, 5, 2) / 3], torch.device("cpu"))
    assert found.kl is not None
    # Means of 0 and 1 at unit variance: 0 and 1/2 nat.
    assert torch.allclose(found.kl, torch.full((2,), 0.25))
