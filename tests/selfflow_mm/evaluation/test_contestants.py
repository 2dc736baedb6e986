"""Tokenizers and yardsticks in a comparison."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from selfflow_mm.errors import UserError
from selfflow_mm.evaluation.contestants import load_contestant
from selfflow_mm.evaluation.griffin_lim import GriffinLim
from selfflow_mm.evaluation.reconstruction import si_sdr
from selfflow_mm.evaluation.spectral import mel_distance
from selfflow_tokenizers import Audio, Image, Video, ensure_torchaudio, load_tokenizer

CPU = torch.device("cpu")


def chord(rate: int, channels: int = 1, seconds: float = 0.5) -> Audio:
    time = torch.arange(round(rate * seconds)) / rate
    wave = sum(torch.sin(2 * math.pi * f * time) for f in (220, 447, 1310)) / 4
    return Audio(torch.stack([wave * (1 - 0.3 * c) for c in range(channels)]), rate)


def test_sounds_of_another_rate_and_number_of_channels(small_tokenizers: dict[str, str]) -> None:
    tokenizer = load_contestant(small_tokenizers["audio"], CPU)
    sound = chord(8000)
    given = tokenizer.prepare(sound)
    assert (given.rate, given.waveform.shape) == (16_000, (2, 8000))
    assert si_sdr(tokenizer.finish(given, sound).waveform, sound.waveform) > 50
    (back,) = tokenizer.decode(tokenizer.encode([given]))
    assert tokenizer.finish(back, sound).waveform.shape == sound.waveform.shape


def test_a_tokenizer_in_a_comparison_is_the_tokenizer(small_tokenizers: dict[str, str]) -> None:
    plain = load_tokenizer(small_tokenizers["video"])
    media = [Video(torch.randint(0, 256, (6, 20, 32, 3), dtype=torch.uint8), 8.0)]
    media += [Image(torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8))]
    contestant = load_contestant(small_tokenizers["video"], CPU)
    code = contestant.encode([contestant.prepare(m) for m in media])
    expected = plain.encode(media)
    torch.testing.assert_close(code.values, expected.values)
    video, image = (contestant.finish(o, m) for o, m in zip(contestant.decode(code), media, strict=True))
    truth = plain.decode(expected)
    assert torch.equal(video.frames, truth[0].frames) and torch.equal(image.pixels, truth[1].pixels)
    shapes = [tuple(values.shape) for values, _ in contestant.latents(code)]
    assert shapes == [(3 * 2 * 2, 12), (2 * 2, 12)]
    assert contestant.size(code).values == (12 + 4) * 12
    assert contestant.parameters == sum(p.numel() for p in plain.model.parameters())


def test_griffin_lim_is_torchaudios() -> None:
    ensure_torchaudio()
    from torchaudio import transforms

    sound = chord(16_000)
    yardstick = load_contestant("griffin-lim:8", CPU)
    (back,) = yardstick.decode(yardstick.encode([sound]))
    options = {"n_fft": 684, "hop_length": 171, "power": 1.0}
    mel = transforms.MelSpectrogram(16_000, n_mels=80, **options)(sound.waveform)
    torch.manual_seed(0)
    spectrum = GriffinLim(16_000).spectrum(mel)
    expected = transforms.InverseMelScale(343, 80, 16_000, driver="gelsd")(mel)
    torch.testing.assert_close(spectrum, expected, atol=1e-3, rtol=1e-4)
    truth = transforms.GriffinLim(n_iter=8, **options)(spectrum)
    kept = truth.shape[1]
    torch.testing.assert_close(back.waveform[:, :kept], truth.clamp(-1, 1)[:, : sound.waveform.shape[1]])
    assert yardstick.size(yardstick.encode([sound])).values == mel.numel()


def test_more_iterations_come_closer_and_leave_the_generator_alone() -> None:
    sound = chord(16_000)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    few, many = (
        mel_distance(g.decode(g.encode(sound.waveform), 8000), sound.waveform, 16_000)
        for g in (GriffinLim(16_000, 1), GriffinLim(16_000, 20))
    )
    assert many < few < 0.5
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("samples", [1, 342, 1400])
def test_griffin_lim_of_short_sounds(samples: int) -> None:
    g = GriffinLim(16_000, 2)
    assert g.decode(g.encode(torch.rand(2, samples)), samples).shape == (2, samples)


def test_jpeg_is_pillows() -> None:
    frames = torch.randint(0, 256, (2, 16, 24, 3), dtype=torch.uint8)
    yardstick = load_contestant("jpeg:30", CPU)
    code = yardstick.encode([Video(frames, 5.0), Image(frames[0])])
    video, image = yardstick.decode(code)
    buffer = io.BytesIO()
    Pillow.fromarray(frames[0].numpy()).save(buffer, "JPEG", quality=30, subsampling="4:2:0", optimize=True)
    truth = torch.from_numpy(np.array(Pillow.open(io.BytesIO(buffer.getvalue()))))
    assert torch.equal(image.pixels, truth) and torch.equal(video.frames[0], truth) and video.fps == 5.0
    assert yardstick.size(code[1:]).bytes == len(buffer.getvalue())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("jpeg:0", "the quality of jpeg lies in 1 to 100"),
        ("griffin-lim:many", "the iterations of griffin-lim"),
        ("nothing-here", "there is no tokenizer 'nothing-here'"),
    ],
)
def test_names_that_are_none(name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_contestant(name, CPU)
