"""The audio autoencoder: shapes, exact silence, finite reach, filter banks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from selfflow_tokenizers.audio_autoencoder import AudioAutoencoder, AudioAutoencoderConfig
from selfflow_tokenizers.codecs import SoundCodec
from selfflow_tokenizers.errors import UserError
from selfflow_tokenizers.initialise import fit_linear_audio

CONFIG = AudioAutoencoderConfig(latent_channels=6, frame=8, strides=(4, 2), widths=(20, 16, 12), blocks=(1, 1, 1))


def awake(config: AudioAutoencoderConfig = CONFIG) -> AudioAutoencoder:
    torch.manual_seed(0)
    model = AudioAutoencoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 5), st.sampled_from([1, 2]))
def test_shapes(latents: int, channels: int) -> None:
    model = awake(AudioAutoencoderConfig(channels, 16000, 6, 8, (4, 2), (20, 16, 12), (1, 1, 1)))
    wave = torch.rand(2, channels, 64 * latents) - 0.5
    with torch.no_grad():
        assert model.encode(wave).shape == (2, latents, 6)
        assert model.encode(wave).abs().max() <= 1  # tanh, rounded
        assert model(wave).shape == wave.shape


@torch.no_grad()
def test_the_level_scales_the_sound_and_nothing_else() -> None:
    """Quiet sounds at their level give the latents of loud ones at level 1."""
    loud, quiet = awake(), awake(replace(CONFIG, level=0.125))
    wave = torch.rand(1, 2, 640) - 0.5
    torch.testing.assert_close(quiet.encode(0.125 * wave), loud.encode(wave))
    torch.testing.assert_close(quiet(0.125 * wave), 0.125 * loud(wave))


@torch.no_grad()
def test_gaussian_latents_have_a_variance_and_silence_stays_exact() -> None:
    model = awake(replace(CONFIG, latent="gaussian"))
    mean, log_variance = model.posterior(torch.rand(2, 2, 128) - 0.5)
    assert log_variance is not None and log_variance.shape == mean.shape == (2, 2, 6)
    silence = torch.zeros(1, 2, 640)
    assert not model.encode(silence).any() and not model(silence).any()
    assert isinstance(model, SoundCodec)
    _, log_variance = model.posterior(100 * (torch.rand(2, 2, 1280) - 0.5))  # far too loud
    assert log_variance is not None and log_variance.max() <= 0  # never more than the prior's


def test_the_bundled_rate() -> None:
    assert AudioAutoencoderConfig().samples_per_latent == 640


@torch.no_grad()
def test_silence_is_exact() -> None:
    model = awake()
    silence = torch.zeros(1, 2, 640)
    assert not model.encode(silence).any()
    assert not model(silence).any()


@torch.no_grad()
def test_reach_is_finite_and_places_hold() -> None:
    model = awake()
    wave = torch.rand(1, 2, 64 * 40) - 0.5
    other = wave.clone()
    other[..., 64 * 20 : 64 * 20 + 8] *= -1
    change = (model.encode(other) - model.encode(wave)).abs().amax((0, 2))
    touched = change.nonzero().flatten()
    assert 20 in touched
    # Blocks of 7 taps at 8, 32 and 64 samples reach 3 * (8 + 32 + 64) samples, 5 latents, to either side.
    assert touched.min() >= 20 - 6 and touched.max() <= 20 + 6


def test_the_mdct_start_reconstructs_perfectly() -> None:
    """Princen and Bradley's condition: analysis and synthesis alone are the identity away from the ends."""
    model = AudioAutoencoder(CONFIG)
    wave = torch.randn(1, 2, 640)
    with torch.no_grad():
        fit_linear_audio(model, wave)
        frames = model.synthesis(model.analysis(model.cut_frames(wave))).view(80, 2, 16)
        total = torch.zeros(2, 640 + 8)
        for i, frame in enumerate(frames):
            total[:, 8 * i : 8 * i + 16] += frame
    torch.testing.assert_close(total[:, 8:-8], wave[0, :, 4:-4], atol=1e-5, rtol=0)


def test_the_linear_start_keeps_what_fits() -> None:
    """A tone of one frequency has few dimensions: the linear code keeps it, a random one does not."""
    # Quiet, so that tanh is a straight line: latents have a deviation of 0.5 over the training sound.
    time = torch.arange(64 * 30) / 16000
    wave = torch.stack([torch.sin(2 * torch.pi * 250 * time), torch.zeros_like(time)])[None]
    model = AudioAutoencoder(CONFIG)
    fit_linear_audio(model, wave)
    with torch.no_grad():
        output = model(0.1 * wave)[..., 64:-64]
    error = F.mse_loss(output, 0.1 * wave[..., 64:-64]) / (0.1 * wave).square().mean()
    assert error < 0.02


def test_a_balanced_start_keeps_a_quiet_band() -> None:
    """Loud low noise and a high tone 34 dB below it: few components hold the noise alone, unless bands are balanced."""
    random = torch.Generator().manual_seed(0)
    low = F.avg_pool1d(torch.randn(1, 1, 64 * 60 + 31, generator=random), 32, 1)[:, 0]
    tone = 0.02 * torch.sin(2 * torch.pi * 5000 * torch.arange(low.shape[1]) / 16000)
    kept = {}
    for balance in (0.0, 1.0):
        model = AudioAutoencoder(AudioAutoencoderConfig(1, 16000, 4, 8, (4, 2), (20, 16, 12), (1, 1, 1)))
        fit_linear_audio(model, (low + tone)[None], balance)
        with torch.no_grad():
            output = model(0.1 * tone.expand(1, 1, -1))[..., 64:-64]
        kept[balance] = float(output.square().mean() / (0.1 * tone[64:-64]).square().mean())
    assert kept[0.0] < 0.01
    assert kept[1.0] > 0.5


def test_balance_is_undone_on_the_way_out() -> None:
    """The filter bank of a balanced start is still its own inverse."""
    random = torch.Generator().manual_seed(0)
    wave = torch.randn(1, 2, 640, generator=random).cumsum(-1)
    model = AudioAutoencoder(CONFIG)
    fit_linear_audio(model, wave, 0.7)
    taps = model.synthesis.weight @ model.analysis.weight
    plain = AudioAutoencoder(CONFIG)
    fit_linear_audio(plain, wave)
    torch.testing.assert_close(taps, plain.synthesis.weight @ plain.analysis.weight, atol=1e-5, rtol=0)
    assert not torch.allclose(model.analysis.weight, plain.analysis.weight)


@pytest.mark.parametrize(
    "wrong",
    [{"widths": (8, 8)}, {"kernel": 4}, {"frame": 7}, {"latent_channels": 0}, {"strides": (0, 4, 4)}, {"level": 0.0}],
)
def test_impossible_sizes_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError):
        AudioAutoencoderConfig(**wrong)
