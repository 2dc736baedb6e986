"""Mimi without its quantiser, against transformers' class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_tokenizers import ensure_torchaudio
from selfflow_tokenizers.pretrained.mimi import MimiCodec

from .sounds import (
    check_centres,
    check_errors,
    check_files,
    check_lengths,
    check_missing_weight,
    check_tokens,
    noise,
    same,
    seeded,
)

ensure_torchaudio()
transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 16,
    "num_filters": 2,
    "upsampling_ratios": [3, 2],
    "codebook_size": 16,
    "codebook_dim": 8,
    "vector_quantization_hidden_dimension": 8,
    "num_quantizers": 3,
    "upsample_groups": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "sliding_window": 6,
    "sampling_rate": 12000,
}


def module(**changes: Any) -> Any:
    real = seeded(transformers.MimiModel, transformers.MimiConfig(**(SMALL | changes)))
    with torch.no_grad():
        for codebook in (m for m in real.modules() if hasattr(m, "embed_sum")):
            codebook.embed_sum.normal_()  # the class starts with every code at zero
    return real


def test_released_configuration() -> None:
    config = transformers.MimiConfig()
    assert (config.frame_size, config.hidden_size, config.sampling_rate) == (1920, 512, 24000)
    codec = MimiCodec(module())
    assert (codec.latent_channels, codec.channels, codec.sample_rate, codec.samples_per_latent) == (16, 1, 12000, 12)


@torch.no_grad()
@pytest.mark.parametrize("streaming", [False, True])
def test_equals_the_class(streaming: bool) -> None:
    """The latents quantise to the class's codes, and the class's code vectors decode to the class's sound."""
    real = module(use_streaming=streaming)
    codec = MimiCodec(real)
    x = noise(2, 1, 20 * 12)
    z = codec.encode(x).permute(0, 2, 1)
    codes = real.encode(x, use_streaming=False).audio_codes
    assert torch.equal(real.quantizer.encode(z).transpose(0, 1), codes)
    assert codes.unique().numel() > 2
    same(codec.decode(real.quantizer.decode(codes).permute(0, 2, 1)), real.decode(codes).audio_values, 0.0)
    assert torch.equal(codec.encode(x), z.permute(0, 2, 1)), "something was kept between calls"


@torch.no_grad()
def test_causal() -> None:
    """Samples after a latent's own change neither it nor what is decoded before them."""
    codec = MimiCodec(module())
    x = noise(1, 1, 10 * 12)
    other = x.clone()
    other[..., 6 * 12 :] = 0
    a, b = codec.encode(x), codec.encode(other)
    assert torch.equal(a[:, :6], b[:, :6]) and (a[:, 6:] - b[:, 6:]).abs().max() > 1e-3
    assert torch.equal(codec.decode(a)[..., : 6 * 12], codec.decode(torch.cat([a[:, :6], b[:, 6:]], 1))[..., : 6 * 12])


@settings(max_examples=8)
@given(latents=st.integers(1, 12), ratios=st.lists(st.sampled_from([2, 3, 4, 5]), min_size=1, max_size=2))
def test_lengths(latents: int, ratios: list[int]) -> None:
    check_lengths(MimiCodec(module(upsampling_ratios=ratios, sampling_rate=2 * 2 * 3 * 4 * 5 * 5 * 2)), latents)


def test_without_causality() -> None:
    check_lengths(MimiCodec(module(use_causal_conv=False)), 5)


def test_tokens_positions_and_files(tmp_path: Path) -> None:
    codec = MimiCodec(module())
    check_centres(check_tokens(codec))
    check_files(codec, tmp_path)


def test_mistakes(tmp_path: Path) -> None:
    stranger = transformers.DacModel(transformers.DacConfig(encoder_hidden_size=4, downsampling_ratios=[2],
                      decoder_hidden_size=8, n_codebooks=1, codebook_size=8, codebook_dim=4))  # fmt: skip
    check_errors("mimi", tmp_path, stranger)
    check_missing_weight(
        "mimi", module(), tmp_path / "gap", "quantizer.semantic_residual_vector_quantizer.output_proj.weight"
    )
