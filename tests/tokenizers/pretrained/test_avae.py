"""Cosmos 3's sound tokenizer against diffusers' class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from selfflow_tokenizers import Audio, UserError, load_tokenizer
from selfflow_tokenizers.folder import tokenizer_from_codec
from selfflow_tokenizers.pretrained.avae import AVAECodec

from .sounds import (
    check_centres,
    check_errors,
    check_files,
    check_lengths,
    check_missing_weight,
    check_tokens,
    diffusers,
    noise,
    same,
    seeded,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # diffusers uses torch's older weight norm
SMALL = {
    "sampling_rate": 8000,
    "vocoder_input_dim": 6,
    "dec_dim": 4,
    "dec_c_mults": [1, 1, 2],
    "dec_strides": [2, 5, 4],
    "enc_dim": 4,
    "enc_latent_dim": 12,
    "enc_n_fft": 8,
    "enc_hop_length": 4,
    "enc_c_mults": [1, 2],
    "enc_strides": [2, 5],
    "enc_num_blocks": 1,
}


def module(**changes: Any) -> Any:
    return seeded(diffusers.Cosmos3AVAEAudioTokenizer, **(SMALL | changes))


def test_released_configuration() -> None:
    with torch.device("meta"):
        codec = AVAECodec(diffusers.Cosmos3AVAEAudioTokenizer())
    assert (codec.latent_channels, codec.channels, codec.sample_rate, codec.samples_per_latent) == (64, 2, 48000, 1920)
    assert codec.sample_rate / codec.samples_per_latent == 25


@torch.no_grad()
@pytest.mark.parametrize("normalise", [True, False])
def test_equals_the_class(normalise: bool) -> None:
    real = module(normalize_volume=normalise)
    codec = AVAECodec(real)
    x = noise(1, 2, 5 * 40, peak=0.1)
    z = real.encode(x).latent_dist.mode()
    same(codec.encode(x), z.permute(0, 2, 1), 0.0)
    same(codec.decode(z.permute(0, 2, 1)), real.decode(z), 0.0)


@torch.no_grad()
def test_loudness_is_the_classes_and_no_neighbours() -> None:
    """A quiet sound encodes as the same sound played loud, whatever is in the batch with it."""
    codec = AVAECodec(module())
    x = noise(1, 2, 3 * 40, peak=0.9)
    both = codec.encode(torch.cat([x, 0.1 * x]))
    same(both[1], both[0], 1e-3)  # the class adds 1e-5 to the peak
    raw = AVAECodec(module(normalize_volume=False)).encode(0.1 * x)
    assert (raw - both[1]).abs().max() > 1e-3


@settings(max_examples=8)
@given(latents=st.integers(1, 9))
def test_lengths(latents: int) -> None:
    check_lengths(AVAECodec(module()), latents)


def test_mono_configuration() -> None:
    check_lengths(AVAECodec(module(stereo=False, dec_out_channels=1)), 3)


def test_tokens_positions_and_files(tmp_path: Path) -> None:
    codec = AVAECodec(module())
    check_centres(check_tokens(codec))
    check_files(codec, tmp_path)


def test_decoder_only_weights_decode_and_say_that_they_cannot_encode(tmp_path: Path) -> None:
    """The class drops the encoder of a checkpoint that holds none; that is no missing weight."""
    real = module()
    real.save_pretrained(tmp_path, safe_serialization=True)
    (path,) = tmp_path.glob("*.safetensors")
    kept = {key: value for key, value in load_file(path).items() if not key.startswith("encoder.")}
    save_file(kept, path, metadata={"format": "pt"})
    tokenizer = load_tokenizer(f"avae:{tmp_path}")
    stream = tokenizer_from_codec(AVAECodec(real)).encode([Audio(noise(2, 80), 8000)])
    assert tokenizer.decode(stream)[0].waveform.shape == (2, 80)
    with pytest.raises(UserError, match="decoder only"):
        tokenizer.encode([Audio(noise(2, 80), 8000)])


def test_mistakes(tmp_path: Path) -> None:
    stranger = seeded(diffusers.AutoencoderOobleck, encoder_hidden_size=4, downsampling_ratios=[2],
                      channel_multiples=[1], decoder_channels=4, decoder_input_channels=2)  # fmt: skip
    check_errors("avae", tmp_path, stranger, parts=("sound_tokenizer",))
    check_missing_weight("avae", module(), tmp_path / "gap", "encoder.layers.0.weight_v")
