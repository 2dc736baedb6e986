"""Piece by piece equals all at once, for clips and sounds, encoding and decoding, whatever the pieces."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_tokenizers import Audio, AudioTokenizer, TokenStream, UserError, Video, VideoTokenizer, streaming
from selfflow_tokenizers.audio_autoencoder import AudioAutoencoder, AudioAutoencoderConfig
from selfflow_tokenizers.streaming import decode_pieces, encode_pieces
from selfflow_tokenizers.video_autoencoder import VideoAutoencoder, VideoAutoencoderConfig


def awake(model: torch.nn.Module) -> torch.nn.Module:
    """As built, blocks add nothing: their last layers are zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    return model


def video_tokenizer(time: int = 4, space: int = 8) -> VideoTokenizer:
    torch.manual_seed(0)
    config = VideoAutoencoderConfig(
        latent_channels=3, fine_width=12, width=16, frame_width=8, fine_blocks=1, blocks=2, frame_blocks=1,
        time_compression=time, space_compression=space, deep_width=20, deep_blocks=1,
    )  # fmt: skip
    return VideoTokenizer(awake(VideoAutoencoder(config)), patch=1)


def audio_tokenizer() -> AudioTokenizer:
    torch.manual_seed(0)
    config = AudioAutoencoderConfig(
        sample_rate=1600, latent_channels=4, frame=8, strides=(2, 4), widths=(12, 16, 20), blocks=(1, 1, 2)
    )
    return AudioTokenizer(awake(AudioAutoencoder(config)))


def clip(frames: int, height: int = 16, width: int = 24) -> Video:
    generator = torch.Generator().manual_seed(frames)
    return Video(torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8, generator=generator), 12.0)


def sound(samples: int) -> Audio:
    return Audio(torch.rand(2, samples, generator=torch.Generator().manual_seed(samples)) * 2 - 1, 1600)


def count_calls(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *given: (calls.append(1), encode(*given))[1])
    return calls


def joined(pieces: list[TokenStream], name: str) -> torch.Tensor:
    return torch.cat([getattr(p, name) for p in pieces], dim=1)


@settings(max_examples=10, deadline=None)
@given(
    st.integers(1, 26), st.lists(st.integers(1, 12), min_size=1, max_size=6), st.sampled_from([(4, 8), (4, 16), (1, 8)])
)
def test_a_video_in_pieces(frames: int, cuts: list[int], kind: tuple[int, int]) -> None:
    tokenizer, video = video_tokenizer(*kind), clip(frames, 19, 24)
    whole = tokenizer.encode([video])
    sizes = (cuts * frames)[:]
    parts, start = [], 0
    for size in sizes:
        if start < frames:
            parts.append(Video(video.frames[start : start + size], video.fps))
            start += size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "_PIXELS", 19 * 24 * 8)  # two latent frames
        pieces = list(encode_pieces(tokenizer, parts))
        assert frames < 18 or len(pieces) > 1
        torch.testing.assert_close(joined(pieces, "values"), whole.values, atol=1e-5, rtol=0)
        torch.testing.assert_close(joined(pieces, "positions"), whole.positions, atol=1e-6, rtol=0)
        assert sum(p.extents[0].frames for p in pieces) == frames
        back = list(decode_pieces(tokenizer, pieces))
    (expected,) = tokenizer.decode(whole, fps=12.0)
    difference = torch.cat([b.frames for b in back]).int() - expected.frames.int()
    assert difference.abs().max() <= 1  # a rounding to uint8 may fall the other way
    assert {b.fps for b in back} == {12.0}


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 12000), st.lists(st.integers(1, 5000), min_size=1, max_size=4))
def test_a_sound_in_pieces(samples: int, cuts: list[int]) -> None:
    tokenizer, whole_sound = audio_tokenizer(), sound(samples)
    whole = tokenizer.encode([whole_sound])
    parts, start = [], 0
    while start < samples:
        size = cuts[len(parts) % len(cuts)]
        parts.append(Audio(whole_sound.waveform[:, start : start + size], 1600))
        start += size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "_SECONDS", 0.5)
        pieces = list(encode_pieces(tokenizer, parts))
        back = list(decode_pieces(tokenizer, pieces))
    assert samples < 6000 or len(pieces) > 3
    torch.testing.assert_close(joined(pieces, "values"), whole.values, atol=1e-5, rtol=0)
    torch.testing.assert_close(joined(pieces, "positions"), whole.positions, atol=1e-6, rtol=0)
    (expected,) = tokenizer.decode(whole)
    assert expected.waveform.shape[1] == samples
    torch.testing.assert_close(torch.cat([b.waveform for b in back], dim=1), expected.waveform, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_reach_of_a_sound_codec_is_enough_and_not_much_more() -> None:
    """Changing one latent (or the samples of one) changes nothing farther away than the stated reach."""
    model = audio_tokenizer().model
    step, n = model.samples_per_latent, 4 * model.reach + 1
    waves = torch.rand(1, 2, n * step) - 0.5
    other = waves.clone()
    other[..., n // 2 * step : (n // 2 + 1) * step] *= -1
    changed = (model.encode(other) - model.encode(waves)).abs().amax((0, 2)).nonzero().flatten()
    assert n // 2 - model.reach <= int(changed.min()) < int(changed.max()) <= n // 2 + model.reach
    latents = torch.rand(1, n, 4) - 0.5
    other = latents.clone()
    other[:, n // 2] *= -1
    heard = (model.decode(other) - model.decode(latents)).abs().amax((0, 1)).nonzero().flatten() // step
    assert n // 2 - model.reach <= int(heard.min()) < int(heard.max()) <= n // 2 + model.reach
    assert max(int(changed.max()), int(heard.max())) >= n // 2 + model.reach - 4


def test_long_media_are_encoded_piece_by_piece_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    import selfflow_tokenizers.audio_tokenizer as sounds
    import selfflow_tokenizers.video_tokenizer as pictures

    video, audio = clip(37), sound(9000)
    at_once = video_tokenizer().encode([video]), audio_tokenizer().encode([audio])
    frames = video_tokenizer().decode(at_once[0])[0].frames
    wave = audio_tokenizer().decode(at_once[1])[0].waveform
    monkeypatch.setattr(pictures, "_PIXELS", 16 * 24 * 8)
    monkeypatch.setattr(sounds, "_SECONDS", 0.5)
    tokenizers = video_tokenizer(), audio_tokenizer()
    calls = [count_calls(t.model, monkeypatch) for t in tokenizers]
    pieces = [t.encode([medium]) for t, medium in zip(tokenizers, (video, audio), strict=True)]
    assert [len(c) for c in calls] == [5, 12]  # 10 latent frames two at a time, 141 latents 12 or 13 at a time
    for a, b in zip(at_once, pieces, strict=True):
        torch.testing.assert_close(a.values, b.values, atol=1e-5, rtol=0)
    assert (video_tokenizer().decode(at_once[0])[0].frames.int() - frames.int()).abs().max() <= 1
    torch.testing.assert_close(audio_tokenizer().decode(at_once[1])[0].waveform, wave, atol=1e-5, rtol=0)


def test_generated_tokens_tell_their_rate_with_the_second_piece() -> None:
    tokenizer = video_tokenizer()
    stream = tokenizer.encode([clip(13)])
    cells = 2 * 3
    pieces = [
        TokenStream.dense(stream.values[:, i : i + cells], stream.positions[:, i : i + cells])
        for i in range(0, 4 * cells, cells)
    ]
    back = list(decode_pieces(tokenizer, pieces))
    assert [len(b.frames) for b in back] == [1, 4, 4, 4] and {b.fps for b in back} == {12.0}
    with pytest.raises(UserError, match="fps"):
        list(decode_pieces(tokenizer, pieces[:1]))
    assert list(decode_pieces(tokenizer, pieces[:1], fps=5.0))[0].fps == 5.0


def test_mistakes_are_said() -> None:
    video, audio = video_tokenizer(), audio_tokenizer()
    with pytest.raises(UserError, match="no video"):
        list(encode_pieces(video, []))
    with pytest.raises(UserError, match="no sound"):
        list(encode_pieces(audio, []))
    with pytest.raises(UserError, match="takes pieces of video"):
        list(encode_pieces(video, [sound(10)]))
    with pytest.raises(UserError, match="one size"):
        list(encode_pieces(video, [clip(5), clip(5, 32, 32)]))
    with pytest.raises(UserError, match="samples per second"):
        list(encode_pieces(audio, [Audio(torch.zeros(2, 100), 8000)]))
