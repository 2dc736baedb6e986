"""Bad and odd input of every kind: handled exactly, or refused in one sentence that says what to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfflow_mm.data.resampling import mix_channels, resample
from selfflow_tokenizers import (
    Audio,
    AudioAutoencoder,
    AudioAutoencoderConfig,
    AudioTokenizer,
    Image,
    TokenStream,
    UserError,
    Video,
    VideoAutoencoder,
    VideoAutoencoderConfig,
    VideoTokenizer,
)
from selfflow_tokenizers.folder import tokenizer_from_codec

SIZES: Any = {"latent_channels": 3, "fine_width": 12, "width": 16, "frame_width": 8, "fine_blocks": 1, "blocks": 1}


@cache
def video() -> VideoTokenizer:
    torch.manual_seed(0)
    return VideoTokenizer(VideoAutoencoder(VideoAutoencoderConfig(**SIZES)), patch=2)


@cache
def image() -> VideoTokenizer:
    torch.manual_seed(0)
    return VideoTokenizer(VideoAutoencoder(VideoAutoencoderConfig(time_compression=1, **SIZES)), patch=1)


@cache
def sound() -> AudioTokenizer:
    torch.manual_seed(0)
    sizes = AudioAutoencoderConfig(latent_channels=5, frame=40, strides=(16,), widths=(16, 12), blocks=(1, 1))
    return AudioTokenizer(AudioAutoencoder(sizes))


@cache
def pretrained_sound() -> Any:
    from selfflow_tokenizers.pretrained.dac import DACCodec

    from .pretrained.test_dac import module

    return tokenizer_from_codec(DACCodec(module()))


@cache
def pretrained_image() -> Any:
    from selfflow_tokenizers.pretrained.stable_diffusion import StableDiffusionCodec

    from .pretrained.pictures import image_autoencoder

    return tokenizer_from_codec(StableDiffusionCodec(image_autoencoder()))


PICTURES = pytest.mark.parametrize("tokenizer", [video, image, pretrained_image])
SOUNDS = pytest.mark.parametrize("tokenizer", [sound, pretrained_sound])


def refused(call: Callable[[], object], says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        call()
    sentence = str(error.value)
    assert "\n" not in sentence and len(sentence) < 300 and "object at 0x" not in sentence


def pixels(*shape: int) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.uint8)


def wave(channels: int, samples: int) -> Tensor:
    return torch.rand(channels, samples, generator=torch.Generator().manual_seed(samples)) - 0.5


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Image(pixels(0, 4, 3)), "shape"),
        (lambda: Image(pixels(4, 4)), r"\(H, W, 3\)"),
        (lambda: Image(pixels(4, 4, 4)), r"\(H, W, 3\)"),  # alpha
        (lambda: Image(pixels(4, 4, 3).float()), "uint8"),
        (lambda: Image(pixels(4, 4, 3).to(torch.uint16)), "uint8"),  # 16 bits
        (lambda: Video(pixels(0, 4, 4, 3), 8.0), "shape"),
        (lambda: Video(pixels(2, 4, 0, 3), 8.0), "shape"),
        (lambda: Video(pixels(2, 4, 4, 4), 8.0), r"\(T, H, W, 3\)"),
        (lambda: Video(pixels(2, 4, 4, 3).float() * math.nan, 8.0), "uint8"),
        (lambda: Video(pixels(2, 4, 4, 3), 0.0), "frame rate"),
        (lambda: Video(pixels(2, 4, 4, 3), math.nan), "frame rate"),
        (lambda: Audio(wave(2, 0), 8000), "shape"),
        (lambda: Audio(wave(0, 9), 8000), "shape"),
        (lambda: Audio(wave(1, 9)[0], 8000), "shape"),
        (lambda: Audio(torch.zeros(1, 9, dtype=torch.int16), 8000), "float"),
        (lambda: Audio(wave(1, 9), 0), "sample rate"),
    ],
)
def test_media_that_cannot_be(make: Callable[[], object], says: str) -> None:
    """Empty media, alpha, more or other bits than 8, rates that are none."""
    refused(make, says)


@SOUNDS
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_sounds_that_are_not_finite(tokenizer: Callable[[], AudioTokenizer], bad: float) -> None:
    t = tokenizer()
    waveform = wave(t.spec.audio_channels, 999)
    waveform[0, 500] = bad
    good = Audio(wave(1, 10), t.spec.sample_rate)
    refused(lambda: t.encode([good, Audio(waveform, t.spec.sample_rate)]), "NaN or infinite")


@SOUNDS
def test_wrong_rates_and_channels_and_their_remedies(tokenizer: Callable[[], AudioTokenizer]) -> None:
    t = tokenizer()
    rate, channels = t.spec.sample_rate, t.spec.audio_channels
    surround = Audio(wave(6, 400), rate)
    refused(lambda: t.encode([surround]), "got 6; mix")
    assert t.encode([mix_channels(surround, channels)]).values.isfinite().all()
    refused(lambda: t.encode([Audio(wave(channels, 400), rate + 1)]), f"{rate} samples per second, got {rate + 1}")
    other = Audio(wave(channels, 400), 2 * rate)
    assert t.decode(t.encode([resample(other, rate)]))[0].waveform.shape == (channels, 200)
    mono = Audio(wave(1, 400), rate)
    copied = Audio(mono.waveform.expand(channels, -1), rate)
    assert torch.equal(t.encode([mono]).values, t.encode([copied]).values)


@SOUNDS
@settings(max_examples=8)
@given(samples=st.integers(1, 1500))
def test_any_length_of_sound(tokenizer: Callable[[], AudioTokenizer], samples: int) -> None:
    """From one sample on: filled up with silence, and cropped back exactly."""
    t = tokenizer()
    step, rate = t.model.samples_per_latent, t.spec.sample_rate
    short = Audio(wave(t.spec.audio_channels, samples), rate)
    whole = Audio(torch.nn.functional.pad(short.waveform, (0, -samples % step)), rate)
    stream = t.encode([short])
    assert torch.equal(stream.values, t.encode([whole]).values)
    back = t.decode(stream)[0].waveform
    assert back.shape == short.waveform.shape
    assert torch.equal(back, t.decode(t.encode([whole]))[0].waveform[:, :samples])


@PICTURES
@settings(max_examples=8)
@given(frames=st.integers(1, 7), height=st.integers(1, 37), width=st.integers(1, 37))
def test_any_size_of_picture(tokenizer: Callable[[], VideoTokenizer], frames: int, height: int, width: int) -> None:
    """From one frame of one pixel on: filled up with the last frame, row and column, and cropped back exactly."""
    t = tokenizer()
    clip = pixels(frames, height, width, 3)
    step, cell = t.spec.time_compression, t.spec.space_compression
    index = [  # the last one again and again
        torch.arange(size + extra).clamp_max(size - 1)
        for size, extra in ((frames, -(frames - 1) % step), (height, -height % cell), (width, -width % cell))
    ]
    filled = clip[index[0]][:, index[1]][:, :, index[2]]
    stream = t.encode([Video(clip, 5.0)])
    assert torch.equal(stream.values, t.encode([Video(filled, 5.0)]).values)
    (back,) = t.decode(stream)
    (all_of_it,) = t.decode(t.encode([Video(filled, 5.0)]))
    assert isinstance(back, Video) and isinstance(all_of_it, Video)
    assert back.fps == 5.0 and back.frames.shape == clip.shape
    assert torch.equal(back.frames, all_of_it.frames[:frames, :height, :width])
    (still,) = t.decode(t.encode([Image(clip[0])]))
    assert isinstance(still, Image) and still.pixels.shape == clip[0].shape


@pytest.mark.parametrize("tokenizer", [video, image, sound, pretrained_image, pretrained_sound])
def test_latents_that_are_not_its_own(tokenizer: Callable[[], Any]) -> None:
    """Not finite, of another width, cut off, or none at all."""
    t = tokenizer()
    medium: Any
    if t.spec.modality == "audio":
        medium = Audio(wave(1, 2 * t.model.samples_per_latent), t.spec.sample_rate)
    else:
        medium = Image(pixels(2 * t.spec.space_compression, t.spec.space_compression, 3))
    stream = t.encode([medium])
    for bad in (math.nan, math.inf):
        values = stream.values.clone()
        values[0, -1, 0] = bad
        refused(lambda values=values: t.decode(stream.with_values(values)), "NaN or infinite")
    wide = torch.cat([stream.values, stream.values[..., :1]], -1)
    refused(lambda: t.decode(stream.with_values(wide)), f"{t.spec.channels} channels, got {t.spec.channels + 1}")
    refused(lambda: t.encode(medium), "list")
    refused(lambda: t.encode([torch.zeros(3)]), "takes")
    refused(lambda: t.encode([]), "no token stream|nothing|no media")


@PICTURES
def test_tokens_that_fill_no_grid(tokenizer: Callable[[], VideoTokenizer]) -> None:
    t = tokenizer()
    cell = t.spec.space_compression
    stream = t.encode([Image(pixels(2 * cell, 2 * cell, 3))])
    cut = TokenStream.dense(stream.values[:, :3], stream.positions[0, :3])
    refused(lambda: t.decode(cut, fps=1.0), "3 tokens do not fill a grid")


@pytest.mark.parametrize("tokenizer", [video, sound])
def test_weights_that_are_not_finite(tokenizer: Callable[[], Any]) -> None:
    """A codec that gives NaN is stopped where the latents are made; they are not written as grey or silence."""
    import copy

    t = copy.deepcopy(tokenizer())
    with torch.no_grad():
        next(t.model.parameters()).fill_(math.nan)
    medium: Any = Audio(wave(2, 640), 16000) if t.spec.modality == "audio" else Image(pixels(16, 16, 3))
    refused(lambda: t.encode([medium]), "NaN or infinite latents")


@PICTURES
def test_sound_is_no_picture(tokenizer: Callable[[], VideoTokenizer]) -> None:
    refused(lambda: tokenizer().encode([Audio(wave(1, 9), 8000)]), "takes images and videos, got Audio")  # type: ignore[list-item]


def test_a_picture_is_no_sound() -> None:
    refused(lambda: sound().encode([Image(pixels(4, 4, 3))]), "takes sounds, got Image")  # type: ignore[list-item]


@pytest.mark.parametrize("fps", [0.0, -1.0, math.inf, math.nan])
def test_a_frame_rate_is_positive_and_finite(fps: float) -> None:
    refused(lambda: Video(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), fps), "positive frame rate")


def test_surround_sound_is_refused_with_the_way_to_mix_it() -> None:
    refused(lambda: sound().encode([Audio(torch.zeros(6, 640), sound().spec.sample_rate)]), "mix_channels")
