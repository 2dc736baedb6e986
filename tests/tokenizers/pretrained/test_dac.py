"""Descript's audio codec without its quantiser, against transformers' class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_tokenizers import Audio, UserError, ensure_torchaudio
from selfflow_tokenizers.folder import tokenizer_from_codec
from selfflow_tokenizers.pretrained.dac import DACCodec

from .sounds import (
    check_centres,
    check_errors,
    check_files,
    check_lengths,
    check_missing_weight,
    check_pieces,
    check_tokens,
    noise,
    same,
    seeded,
)

ensure_torchaudio()
transformers = pytest.importorskip("transformers")

SMALL = {
    "encoder_hidden_size": 4,
    "downsampling_ratios": [2, 4],
    "decoder_hidden_size": 16,
    "n_codebooks": 2,
    "codebook_size": 16,
    "codebook_dim": 4,
    "sampling_rate": 8000,
}


def module(**changes: Any) -> Any:
    real = seeded(transformers.DacModel, transformers.DacConfig(**(SMALL | changes)))
    with torch.no_grad():  # the class starts at a deviation of 0.02, which makes nearly silent latents
        for name, weight in real.named_parameters():
            if name.endswith("weight") and weight.ndim == 3:
                weight.normal_(0, 0.5 * weight[0].numel() ** -0.5)
    return real


def test_released_configuration() -> None:
    config = transformers.DacConfig(downsampling_ratios=[2, 4, 8, 8], sampling_rate=44100)
    with torch.device("meta"):
        codec = DACCodec(transformers.DacModel(config))
    assert (codec.latent_channels, codec.channels, codec.sample_rate, codec.samples_per_latent) == (1024, 1, 44100, 512)


@torch.no_grad()
def test_equals_the_class() -> None:
    """The latents quantise to the class's codes, and decode as the class decodes what it is given."""
    real = module()
    codec = DACCodec(real)
    x = noise(2, 1, 5 * 8)
    z = codec.encode(x).permute(0, 2, 1)
    direct = real.encode(x)
    quantised, codes, *_ = real.quantizer(z)
    assert torch.equal(codes, direct.audio_codes) and torch.equal(quantised, direct.quantized_representation)
    same(codec.decode(quantised.permute(0, 2, 1))[:, 0], real.decode(direct.quantized_representation).audio_values, 0.0)
    same(codec.decode(z.permute(0, 2, 1)), real.decoder(z), 0.0)
    # What continuous means: without the quantiser the decoder hears something else, and the encoder's own latent.
    assert (quantised - z).abs().max() > 1e-3


@settings(max_examples=8)
@given(latents=st.integers(1, 9), strides=st.lists(st.sampled_from([2, 3, 4, 5]), min_size=2, max_size=3))
def test_lengths(latents: int, strides: list[int]) -> None:
    """The 16 and 24 kHz models have a stride of 5, of which the class loses samples at the end."""
    check_lengths(DACCodec(module(downsampling_ratios=strides)), latents)


@torch.no_grad()
def test_only_the_end_is_filled_up() -> None:
    real = module(downsampling_ratios=[2, 5])
    codec = DACCodec(real)
    z = codec.encode(noise(1, 1, 50))
    direct = real.decoder(z.permute(0, 2, 1))
    assert direct.shape[-1] == 48
    whole = codec.decode(z)
    assert torch.equal(whole[..., :48], direct) and not whole[..., 48:].any()


@pytest.mark.parametrize("strides", [[2, 4], [2, 5], [3, 2, 2]])
def test_reach(strides: list[int]) -> None:
    codec = DACCodec(module(downsampling_ratios=strides))
    check_pieces(codec, 2 * codec.reach + 8)


def test_tokens_positions_and_files(tmp_path: Path) -> None:
    codec = DACCodec(module())
    check_centres(check_tokens(codec))
    check_files(codec, tmp_path)


def test_stereo_is_refused_and_the_remedy_named() -> None:
    with pytest.raises(UserError, match="mix"):
        tokenizer_from_codec(DACCodec(module())).encode([Audio(noise(2, 80), 8000)])


def test_mistakes(tmp_path: Path) -> None:
    stranger = transformers.EncodecModel(transformers.EncodecConfig(num_filters=2, hidden_size=8, codebook_size=8,
                      num_lstm_layers=1, upsampling_ratios=[2, 2]))  # fmt: skip
    check_errors("dac", tmp_path, stranger)
    check_missing_weight("dac", module(), tmp_path / "gap", "decoder.conv2.weight")
