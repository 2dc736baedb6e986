"""AudioTokenizer: positions, lengths, channels, files, mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_tokenizers import Audio, AudioTokenizer, UserError, load_tokenizer
from selfflow_tokenizers.audio_autoencoder import AudioAutoencoder, AudioAutoencoderConfig

CONFIG = AudioAutoencoderConfig(latent_channels=5, frame=40, strides=(16,), widths=(16, 12), blocks=(1, 1))


def make(**settings) -> AudioTokenizer:
    torch.manual_seed(0)
    return AudioTokenizer(AudioAutoencoder(CONFIG), **settings)


def sound(samples: int, channels: int = 2, rate: int = 16000) -> Audio:
    return Audio(torch.rand(channels, samples, generator=torch.Generator().manual_seed(samples)) - 0.5, rate)


def test_the_spec() -> None:
    spec = make().spec
    assert (spec.modality, spec.channels, spec.latents_per_second) == ("audio", 5, 25.0)
    assert (spec.sample_rate, spec.audio_channels) == (16000, 2)


def test_positions_are_the_centres_of_the_latents() -> None:
    positions = make().positions(33000)  # 2.0625 s: 51 whole latents of 40 ms and a part of one
    assert positions.shape == (52, 4)
    torch.testing.assert_close(positions[:3, 0], torch.tensor([0.02, 0.06, 0.10]))
    assert positions[51, 0] == pytest.approx(2.06)
    assert not positions[:, 1:].any()


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 3000))
def test_any_length_comes_back(samples: int) -> None:
    tokenizer = make()
    stream = tokenizer.encode([sound(samples)])
    assert stream.values.shape[1] == -(-samples // 640)
    (back,) = tokenizer.decode(stream, samples=samples)
    assert back.waveform.shape == (2, samples) and back.rate == 16000
    assert back.waveform.abs().max() <= 1


def test_a_batch_of_lengths_is_each_alone() -> None:
    tokenizer = make()
    sounds = [sound(2000), sound(640), sound(1900)]
    stream = tokenizer.encode(sounds)
    assert stream.valid.sum(1).tolist() == [4, 1, 3]
    for row, one in enumerate(sounds):
        alone = tokenizer.encode([one])
        n = alone.values.shape[1]
        torch.testing.assert_close(stream.values[row, :n], alone.values[0], atol=1e-6, rtol=1e-4)
        assert torch.equal(stream.positions[row, :n], alone.positions[0])


def test_mono_is_heard_from_both_sides() -> None:
    mono = sound(1280, channels=1)
    both = Audio(mono.waveform.repeat(2, 1), 16000)
    assert torch.equal(make().encode([mono]).values, make().encode([both]).values)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (sound(640, rate=8000), "16000.*8000.*resample"),
        (sound(640, channels=6), "2 channels.*6.*mix"),
        (Audio(torch.tensor([[0.0, float("nan")]] * 2), 16000), "NaN"),
        (Audio(torch.tensor([[0.0, float("inf")]] * 2), 16000), "infinite"),
    ],
)
def test_what_is_refused(audio: Audio, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make().encode([audio])


def test_more_samples_than_there_are() -> None:
    tokenizer = make()
    with pytest.raises(UserError, match="641"):
        tokenizer.decode(tokenizer.encode([sound(640)]), samples=641)


def test_values_are_standardised_by_the_spec() -> None:
    raw, sounds = make(), [sound(6400)]
    latents = raw.encode(sounds).values[0]
    tokenizer = make(mean=latents.mean(0), deviation=latents.std(0))
    values = tokenizer.encode(sounds).values[0]
    torch.testing.assert_close(values.mean(0), torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std(0), torch.ones(5), atol=1e-4, rtol=0)
    a, b = (t.decode(t.encode(sounds))[0].waveform for t in (raw, tokenizer))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_saved_and_loaded(tmp_path: Path) -> None:
    tokenizer = make(mean=torch.rand(5), deviation=torch.rand(5) + 1)
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert isinstance(again, AudioTokenizer) and again.spec == tokenizer.spec
    assert torch.equal(again.encode([sound(1300)]).values, tokenizer.encode([sound(1300)]).values)
