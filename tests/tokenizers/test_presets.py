"""Named sizes: what their names promise."""

from __future__ import annotations

import pytest
import torch

from selfflow_tokenizers.audio_autoencoder import AudioAutoencoder
from selfflow_tokenizers.presets import AUDIO_PRESETS, VIDEO_PRESETS
from selfflow_tokenizers.video_autoencoder import VideoAutoencoder


def parameters(name: str) -> int:
    with torch.device("meta"):
        model = (
            VideoAutoencoder(VIDEO_PRESETS[name]) if name in VIDEO_PRESETS else AudioAutoencoder(AUDIO_PRESETS[name])
        )
    return sum(p.numel() for p in model.parameters())


def test_every_kind_has_three_sizes() -> None:
    kinds = {"video-8x", "video-16x", "image-8x", "image-16x", "audio-16k", "audio-48k"}
    sizes = ("small", "base", "large")
    assert {*VIDEO_PRESETS, *AUDIO_PRESETS} == {f"{kind}-{size}" for kind in kinds for size in sizes}
    for kind in kinds:
        small, base, large = (parameters(f"{kind}-{size}") for size in sizes)
        assert 4 * small < base and 3 * base < large < 400e6


@pytest.mark.parametrize("name", VIDEO_PRESETS)
def test_pictures_are_compressed_as_the_name_says(name: str) -> None:
    config = VIDEO_PRESETS[name]
    assert f"{config.space_compression}x" in name
    assert config.time_compression == (4 if name.startswith("video") else 1)


@pytest.mark.parametrize("name", AUDIO_PRESETS)
def test_sounds_have_25_latents_of_64_channels_a_second_in_stereo(name: str) -> None:
    config = AUDIO_PRESETS[name]
    assert config.sample_rate == {"16k": 16000, "48k": 48000}[name.split("-")[1]]
    assert (config.sample_rate / config.samples_per_latent, config.latent_channels, config.channels) == (25, 64, 2)
