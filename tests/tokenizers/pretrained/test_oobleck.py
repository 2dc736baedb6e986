"""Stable Audio's autoencoder against diffusers' class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_tokenizers.pretrained.oobleck import OobleckCodec

from .sounds import (
    check_centres,
    check_errors,
    check_files,
    check_lengths,
    check_missing_weight,
    check_pieces,
    check_tokens,
    diffusers,
    noise,
    same,
    seeded,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # diffusers uses torch's older weight norm
SMALL = {
    "encoder_hidden_size": 12,
    "downsampling_ratios": [2, 4, 2],
    "channel_multiples": [1, 1, 2],
    "decoder_channels": 4,
    "decoder_input_channels": 6,
    "sampling_rate": 8000,
}


def module(**changes: Any) -> Any:
    return seeded(diffusers.AutoencoderOobleck, **(SMALL | changes))


def test_facts_are_the_configs() -> None:
    codec = OobleckCodec(module(audio_channels=1))
    assert (codec.latent_channels, codec.channels, codec.samples_per_latent) == (6, 1, 16)
    assert codec.sample_rate == codec.decoded_rate == 8000


def test_released_configuration() -> None:
    """The facts of Stable Audio Open, from the class's defaults, without its 150 million weights."""
    with torch.device("meta"):
        codec = OobleckCodec(diffusers.AutoencoderOobleck())
    assert (codec.latent_channels, codec.channels, codec.sample_rate) == (64, 2, 44100)
    assert codec.sample_rate / codec.samples_per_latent == pytest.approx(21.53, abs=0.01)


@torch.no_grad()
def test_equals_the_class() -> None:
    real = module()
    codec = OobleckCodec(real)
    x = noise(2, 2, 5 * 16)
    z = real.encode(x).latent_dist.mode()
    same(codec.encode(x), z.permute(0, 2, 1), 0.0)
    same(codec.decode(z.permute(0, 2, 1)), real.decode(z).sample, 0.0)


@settings(max_examples=8)
@given(latents=st.integers(1, 9), strides=st.lists(st.sampled_from([2, 3, 4, 5]), min_size=2, max_size=3))
def test_lengths(latents: int, strides: list[int]) -> None:
    check_lengths(OobleckCodec(module(downsampling_ratios=strides, channel_multiples=[1] * len(strides))), latents)


@pytest.mark.parametrize("strides", [[2, 4, 2], [3, 2], [5, 3]])
def test_reach(strides: list[int]) -> None:
    codec = OobleckCodec(module(downsampling_ratios=strides, channel_multiples=[1] * len(strides)))
    check_pieces(codec, 2 * codec.reach + 8)


def test_tokens_positions_and_files(tmp_path: Path) -> None:
    codec = OobleckCodec(module())
    check_centres(check_tokens(codec))
    check_files(codec, tmp_path)


def test_mistakes(tmp_path: Path) -> None:
    stranger = seeded(diffusers.AutoencoderTiny, encoder_block_out_channels=(4, 4), decoder_block_out_channels=(4, 4),
                      num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))  # fmt: skip
    check_errors("oobleck", tmp_path, stranger, parts=("vae",))
    check_missing_weight("oobleck", module(), tmp_path / "gap", "decoder.conv2.weight_v")
