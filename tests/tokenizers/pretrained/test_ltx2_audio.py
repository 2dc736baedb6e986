"""LTX-2's sound autoencoder and vocoder, against diffusers' classes and the calls of its pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_tokenizers import Audio, UserError, load_tokenizer
from selfflow_tokenizers.folder import tokenizer_from_codec
from selfflow_tokenizers.pretrained.ltx2_audio import LTX2AudioCodec

from .sounds import check_errors, check_files, check_lengths, check_tokens, diffusers, noise, same, seeded

pipelines = pytest.importorskip("diffusers.pipelines.ltx2.pipeline_ltx2")
vocoders = pytest.importorskip("diffusers.pipelines.ltx2.vocoder")

SMALL = {"base_channels": 8, "latent_channels": 2, "mel_bins": 16, "ch_mult": (1, 1, 1), "num_res_blocks": 1}
VOICE = {
    "in_channels": 2 * 16,
    "hidden_channels": 16,
    "upsample_kernel_sizes": [16, 10, 8],
    "upsample_factors": [6, 10, 4],
    "resnet_kernel_sizes": [3],
    "resnet_dilations": [[1, 3]],
}


def module(**changes: Any) -> Any:
    real = seeded(diffusers.AutoencoderKLLTX2Audio, **(SMALL | changes))
    real.latents_mean.copy_(torch.linspace(-1, 1, len(real.latents_mean)))
    real.latents_std.copy_(torch.linspace(0.5, 2, len(real.latents_std)))
    return real


def vocoder() -> Any:
    return seeded(vocoders.LTX2Vocoder, **VOICE)


def codec(**changes: Any) -> LTX2AudioCodec:
    return LTX2AudioCodec(module(**changes), vocoder())


def test_released_configuration() -> None:
    with torch.device("meta"):
        real, voice = diffusers.AutoencoderKLLTX2Audio(), vocoders.LTX2Vocoder()
    whole = LTX2AudioCodec(real, voice)
    assert (whole.latent_channels, whole.channels, whole.sample_rate, whole.decoded_rate) == (128, 2, 16000, 24000)
    assert whole.samples_per_latent == 640


@torch.no_grad()
def test_encodes_as_diffusers_does() -> None:
    """Waveform to normalised latents by diffusers' own function, packed by its pipeline."""
    echo = pytest.importorskip("diffusers.modular_pipelines.echo.encoders")
    whole = codec()
    x = noise(2, 5 * 640)
    mean, deviation = whole.statistics()
    latents = echo._encode_audio(whole.module, mean, deviation, x, 16000, torch.device("cpu"))
    expected = pipelines.LTX2Pipeline._pack_audio_latents(latents)
    assert expected.shape == (1, 6, 8)  # one more than the clip's 5: it covers what follows
    tokens = tokenizer_from_codec(whole).encode([Audio(x, 16000)])
    same(tokens.values, expected[:, :5], 1e-4)


@torch.no_grad()
def test_decodes_as_the_pipeline_does() -> None:
    """Unpack, denormalise, decoder, vocoder: the same sound but for what the last, held frame reaches."""
    whole = codec()
    tokens = noise(1, 6, 8)
    pipe = pipelines.LTX2Pipeline
    raw = pipe._denormalize_audio_latents(tokens, whole.module.latents_mean, whole.module.latents_std)
    spectrogram = whole.module.decode(pipe._unpack_audio_latents(raw, 6, num_mel_bins=4), return_dict=False)[0]
    expected = whole.vocoder(spectrogram)
    assert spectrogram.shape[2] == 4 * 6 - 3 and expected.shape[-1] == (4 * 6 - 3) * 240
    sound = whole.decode(raw)
    assert sound.shape[-1] == 6 * 40 * 24
    near = 6 * 240  # more frames than the vocoder's layers see to a side
    assert torch.equal(sound[..., : expected.shape[-1] - near], expected[..., :-near])
    held = whole.vocoder(torch.cat([spectrogram] + 3 * [spectrogram[:, :, -1:]], 2))
    same(sound, held, 0.0)


@pytest.mark.parametrize("causal", [True, False])
def test_times_are_those_of_the_transformer(causal: bool) -> None:
    rotary = pytest.importorskip("diffusers.models.transformers.transformer_ltx2").LTX2AudioVideoRotaryPosEmbed
    rope = rotary(dim=8, modality="audio", sampling_rate=16000, hop_length=160, scale_factors=(4,),
                  causal_offset=1 if causal else 4)  # fmt: skip
    edges = rope.prepare_audio_coords(1, 7, torch.device("cpu"))[0, 0]
    whole = codec(is_causal=causal)
    assert torch.allclose(whole.times(0, 7), edges.mean(-1), atol=1e-7)
    assert torch.allclose(whole.times(3, 4), edges.mean(-1)[3:], atol=1e-7)
    where = tokenizer_from_codec(whole).positions(7 * 640 - 5)  # type: ignore[call-arg, arg-type]
    assert torch.allclose(where[:, 0], edges.mean(-1), atol=1e-7) and not where[:, 1:].any()


@torch.no_grad()
def test_a_latent_sees_no_further_than_its_frames() -> None:
    """Latent j depends on mel frames up to 4 j: a click half a window and more after that frame does not reach it."""
    whole = codec()
    x = noise(1, 2, 6 * 640)
    clicked = x.clone()
    place = 4 * 2 * 160 + 512 + 1
    clicked[..., place] += 1
    change = (whole.encode(x) - whole.encode(clicked)).abs().amax((0, 2))
    assert not change[:3].any() and change[3] > 0


@settings(max_examples=4)
@given(latents=st.integers(1, 9))
def test_lengths(latents: int) -> None:
    check_lengths(codec(), latents)


@pytest.mark.parametrize("axis", ["none", "width"])
def test_other_causality(axis: str) -> None:
    check_lengths(codec(causality_axis=axis, norm_type="pixel"), 4)


def test_short_latents_are_padded_for_the_mel() -> None:
    """With 40 samples a hop, one latent has fewer samples than half a mel window."""
    voice = seeded(vocoders.LTX2Vocoder, **(VOICE | {"output_sampling_rate": 6000 * 16}))
    check_lengths(LTX2AudioCodec(module(mel_hop_length=40), voice), 1)


def test_tokens_and_files(tmp_path: Path) -> None:
    whole = codec()
    tokenizer = check_tokens(whole)
    assert tokenizer.spec.decoded_rate == 24000 and tokenizer.spec.latents_per_second == 25
    assert tokenizer.spec.shift == pytest.approx(torch.linspace(-1, 1, 8).tolist())
    check_files(whole, tmp_path)


def test_vocoder_with_bandwidth_extension(tmp_path: Path) -> None:
    """Later releases put out 48 kHz through another class, which the vocoder's config names."""
    voice = seeded(
        vocoders.LTX2VocoderWithBWE,
        in_channels=2 * 16,
        hidden_channels=16,
        upsample_kernel_sizes=[16, 20],
        upsample_factors=[8, 20],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1]],
        bwe_in_channels=2 * 8,
        bwe_hidden_channels=8,
        bwe_upsample_kernel_sizes=[24, 20],
        bwe_upsample_factors=[12, 20],
        bwe_resnet_kernel_sizes=[3],
        bwe_resnet_dilations=[[1]],
        filter_length=128,
        window_length=128,
        num_mel_channels=8,
    )
    whole = LTX2AudioCodec(module(), voice)
    assert whole.decoded_rate == 48000
    check_lengths(whole, 3)
    check_files(whole, tmp_path)


def test_mistakes(tmp_path: Path) -> None:
    stranger = seeded(diffusers.AutoencoderTiny, encoder_block_out_channels=(4, 4), decoder_block_out_channels=(4, 4),
                      num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))  # fmt: skip
    check_errors("ltx2-audio", tmp_path, stranger, parts=("audio_vae", "vocoder"))
    module().save_pretrained(tmp_path / "half" / "audio_vae")
    with pytest.raises(UserError, match="vocoder"):
        load_tokenizer(f"ltx2-audio:{tmp_path / 'half'}")
    with pytest.raises(UserError, match="statistics"):
        codec(base_channels=4)
