"""Losses of tokenizers: zero where they should be, closed forms, what they weigh."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import signal

from selfflow_mm.errors import UserError
from selfflow_mm.training.tokenizer_audio_loss import (
    AudioLossConfig,
    audio_loss,
    loudness,
    spectral_convergence,
    spectrum,
)
from selfflow_mm.training.tokenizer_video_loss import (
    VideoLossConfig,
    gradient_error,
    moving_pixels,
    pyramid_error,
    video_loss,
)

ALL = AudioLossConfig(convergence=1, mel=1, side=True)


def test_nothing_is_lost_on_equal_media() -> None:
    frames, wave = torch.rand(2, 5, 16, 16, 3), torch.rand(2, 2, 4096) - 0.5
    pictures, sounds = video_loss(frames, frames, VideoLossConfig(motion=1, pyramid=1)), audio_loss(wave, wave, ALL)
    assert set(pictures) == {"l1", "l2", "gradient", "motion", "pyramid"}
    assert set(sounds) == {"l1", "l2", "complex", "magnitude", "log", "convergence", "mel"}
    assert all(float(v) == 0 for v in (*pictures.values(), *sounds.values()))


def test_terms_without_a_weight_are_not_computed() -> None:
    frames, wave = torch.rand(1, 1, 16, 16, 3), torch.rand(1, 1, 4096)
    assert set(video_loss(frames, frames, VideoLossConfig())) == {"l1", "l2", "gradient"}
    assert set(audio_loss(wave, wave, AudioLossConfig())) == {"l1", "l2", "complex", "magnitude", "log"}


def test_a_constant_error_has_no_gradient_term() -> None:
    frames = torch.rand(1, 5, 16, 16, 3)
    terms = video_loss(frames + 0.1, frames, VideoLossConfig(l1=1, l2=1, gradient=1))
    assert float(terms["l1"]) == pytest.approx(0.1, rel=1e-4)
    assert float(terms["l2"]) == pytest.approx(0.01, rel=1e-4)
    assert float(terms["gradient"]) == pytest.approx(0, abs=1e-6)


def test_motion_is_what_neighbouring_frames_do_not_share() -> None:
    """An error that stays costs nothing, one that changes its sign with every frame twice itself; stills have none."""
    frames, sign = torch.rand(1, 5, 16, 16, 3), torch.tensor([1.0, -1, 1, -1, 1]).view(1, 5, 1, 1, 1)
    config = VideoLossConfig(motion=0.5, threshold=2.0)
    assert float(video_loss(frames + 0.1, frames, config)["motion"]) == pytest.approx(0, abs=1e-6)
    assert float(video_loss(frames + 0.1 * sign, frames, config)["motion"]) == pytest.approx(0.5 * 0.2, rel=1e-4)
    assert "motion" not in video_loss(frames[:, :1] + 0.1, frames[:, :1], config)


def test_moving_pixels_weigh_more() -> None:
    target = torch.zeros(1, 9, 16, 16, 3)
    for t in range(9):
        target[0, t, 5, t] = 1.0
    mask = moving_pixels(target, 0.2)
    assert int(mask.sum()) == 9
    config = VideoLossConfig(l1=1, l2=0, gradient=0, moving=6)
    on, off = (float(video_loss(target + 0.1 * m, target, config)["l1"]) for m in (mask, ~mask))
    pixels = mask.numel()
    total = pixels + 6 * 9
    assert on == pytest.approx(0.1 * 7 * 9 / total, rel=1e-4)
    assert off == pytest.approx(0.1 * (pixels - 9) / total, rel=1e-4)


def test_still_pictures_are_weighed_alike() -> None:
    assert not moving_pixels(torch.rand(2, 1, 8, 8, 3), 0.2).any()


def test_magnitudes_ignore_phase_and_complex_spectra_do_not() -> None:
    time = torch.arange(8192) / 16000
    target = torch.sin(2 * torch.pi * 1000 * time).expand(1, 2, -1)
    shifted = torch.cos(2 * torch.pi * 1000 * time).expand(1, 2, -1)
    terms = audio_loss(shifted, target, AudioLossConfig(complex=1, magnitude=1))
    # What magnitudes hear is the reflection at the two ends, where phase becomes shape.
    assert terms["magnitude"] < 0.15 * terms["complex"]


def test_swapped_channels_are_an_error() -> None:
    wave = torch.zeros(1, 2, 4096)
    wave[0, 0] = torch.rand(4096) - 0.5
    terms = audio_loss(wave.flip(1), wave, AudioLossConfig())
    assert all(float(v) > 0.01 for v in terms.values())


def test_overlap_sets_the_hop_and_keeps_the_scale() -> None:
    target, output = torch.rand(2, 1, 2, 8192) - 0.5
    two, four = (audio_loss(output, target, AudioLossConfig(overlap=n)) for n in (2, 4))
    for name in ("complex", "magnitude", "log"):
        assert float(two[name]) == pytest.approx(float(four[name]), rel=0.05)
        assert float(two[name]) != float(four[name])
    with pytest.raises(UserError, match="overlap"):
        AudioLossConfig(overlap=3)


@pytest.mark.parametrize("windows", [(), (6,), (30,)])
def test_impossible_windows(windows: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="windows"):
        AudioLossConfig(windows=windows)


def test_gradients_of_a_ramp_at_every_size() -> None:
    # Shrunk by 2 the steps of a ramp double; there are 4 sizes, of rows alone.
    rows = 0.01 * torch.arange(16.0)[None, None, :, None, None].expand(1, 1, 16, 16, 3)
    even = torch.ones(1, 1, 16, 16, 1)
    expected = 0.01 * (1 + 2 + 4 + 8) / (2 * 4)
    assert float(gradient_error(rows, even, 4)) == pytest.approx(expected, rel=1e-4)
    # Of 16 pixels no more than 4 sizes have two pixels a side.
    assert float(gradient_error(rows, even, 8)) == pytest.approx(expected, rel=1e-4)
    weight = even.clone()
    weight[:, :, 8:] = 3.0
    # At full size 15 steps, of which 8 end in the lower half.
    assert float(gradient_error(rows, weight, 1)) == pytest.approx(0.01 * (7 + 3 * 8) / 15 / 2, rel=1e-4)


def test_the_pyramid_forgives_noise_and_not_a_wrong_colour() -> None:
    even = torch.ones(1, 1, 16, 16, 1)
    checks = 0.2 * (-1.0) ** (torch.arange(16)[:, None] + torch.arange(16))[None, None, :, :, None].expand(
        1, 1, 16, 16, 3
    )
    assert float(pyramid_error(checks, even, 4)) == pytest.approx(0, abs=1e-6)
    assert float(pyramid_error(torch.full_like(checks, 0.2), even, 4)) == pytest.approx(0.2, rel=1e-5)
    # By hand: one pixel of 1 in a 4 x 4 picture is 1/4 in one of four cells, then 1/16 in the one that is left.
    error = torch.zeros(1, 1, 4, 4, 1)
    error[0, 0, 1, 2] = 1.0
    assert float(pyramid_error(error, even[:, :, :4, :4], 3)) == pytest.approx((0.25 / 4 + 1 / 16) / 2, rel=1e-6)


@pytest.mark.parametrize(("window", "hop"), [(256, 64), (2048, 512)])
def test_spectra_are_those_of_scipy(window: int, hop: int) -> None:
    waves = torch.randn(2, 2, 6000, generator=torch.Generator().manual_seed(0))
    ours = torch.view_as_complex(spectrum(waves, window, hop, side=True).contiguous())
    left, right = waves[:, 0].numpy(), waves[:, 1].numpy()
    channels = [left, right, (left + right) / math.sqrt(2), (left - right) / math.sqrt(2)]
    padded = np.pad(np.stack(channels, axis=1), ((0, 0), (0, 0), (window // 2, window // 2)), mode="reflect")
    taps = signal.windows.hann(window, sym=False)
    _, _, theirs = signal.stft(
        padded, window=taps, nperseg=window, noverlap=window - hop, boundary=None, padded=False, scaling="spectrum"
    )
    # scipy divides by the sum of the window, we by the root of its length.
    theirs = theirs * taps.sum() / math.sqrt(window)
    assert ours.shape == theirs.shape
    assert np.abs(ours.numpy() - theirs).max() < 1e-4


def test_white_noise_has_an_even_spectrum_of_unit_gain() -> None:
    waves = torch.randn(4, 1, 48000, generator=torch.Generator().manual_seed(0))
    power = spectrum(waves, 1024, 256).square().sum(-1).mean((0, 1, 3))
    # The mean square of a Hann window is 3/8; the ends hear every sample once for two bins.
    assert float(power[1:-1].mean()) == pytest.approx(3 / 8, rel=0.02)


def test_the_stft_term_by_hand() -> None:
    # Yamamoto et al. (2020): spectral convergence and the absolute difference of logarithms.
    generator = torch.Generator().manual_seed(1)
    target, output = torch.randn(2, 3, 1, 8192, generator=generator) * 0.3
    config = AudioLossConfig(windows=(512, 1024), convergence=1, log=1)
    terms = audio_loss(output, target, config)
    convergence, log = [], []
    for window in (512, 1024):
        x, y = (
            torch.stft(
                s[:, 0], window, window // 2, window=torch.hann_window(window), normalized=True, return_complex=True
            ).abs().double()
            for s in (output, target)
        )  # fmt: skip
        convergence += [float((y[i] - x[i]).norm() / y[i].norm()) for i in range(3)]
        log.append(float(((x + 1e-3).log() - (y + 1e-3).log()).abs().mean()))
    assert float(terms["convergence"]) == pytest.approx(sum(convergence) / 6, rel=1e-4)
    assert float(terms["log"]) == pytest.approx(sum(log) / 2, rel=1e-3)


def test_half_as_loud_converges_to_one_half() -> None:
    wave = torch.randn(2, 1, 4096) * 0.2
    terms = audio_loss(0.5 * wave, wave, AudioLossConfig(convergence=1))
    assert float(terms["convergence"]) == pytest.approx(0.5, rel=1e-3)
    silence = torch.zeros(2, 5, 7)
    assert float(spectral_convergence(silence, silence)) == 0.0
    assert math.isfinite(float(spectral_convergence(silence + 1, silence)))


def test_mel_bands_hear_a_shift_in_loudness_alike() -> None:
    wave = torch.randn(1, 1, 16000, generator=torch.Generator().manual_seed(0))
    config = AudioLossConfig(mel=1, windows=(1024,))
    assert float(audio_loss(0.5 * wave, wave, config, 16000)["mel"]) == pytest.approx(math.log(2), rel=0.01)


def test_a_difference_of_channels_is_heard_by_the_side_alone() -> None:
    target = torch.randn(1, 1, 4096, generator=torch.Generator().manual_seed(0)).expand(1, 2, -1)
    error = 0.1 * torch.randn(1, 1, 4096, generator=torch.Generator().manual_seed(1))
    output = target + torch.cat([error, -error], dim=1)
    parts = (spectrum(output, 256, 128, side=True) - spectrum(target, 256, 128, side=True)).square().mean((0, 2, 3, 4))
    # Equal and opposite errors vanish in the sum and are twice as strong in the difference.
    assert float(parts[2]) < 1e-10 and float(parts[3]) == pytest.approx(2 * float(parts[0]), rel=1e-3)


def test_loudness() -> None:
    wave = torch.full((1, 2, 10), 0.3)
    assert float(loudness(wave)) == pytest.approx(0.31, rel=1e-5)


def test_terms_cannot_have_negative_weights() -> None:
    with pytest.raises(UserError, match="negative"):
        VideoLossConfig(pyramid=-1)
    with pytest.raises(UserError, match="negative"):
        AudioLossConfig(mel=-1)
