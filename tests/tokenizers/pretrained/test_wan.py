"""Wan 2.2's and 2.1's autoencoders against the calls of diffusers' WanImageToVideoPipeline."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_tokenizers import Image, UserError, Video, streaming
from selfflow_tokenizers.layers import Past
from selfflow_tokenizers.pretrained.wan import WanCodec

from .pictures import (
    check_errors,
    check_files,
    check_mixed_precision,
    check_positions,
    check_sizes,
    check_tokens,
    clip,
    diffusers,
    image_autoencoder,
    make,
    pixels,
    seeded,
)

MEAN, STD = [0.4, -0.2, 0.1, -0.3], [0.5, 1.1, 0.7, 0.9]
SMALL = {
    "base_dim": 4,
    "z_dim": 4,
    "dim_mult": [1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "latents_mean": MEAN,
    "latents_std": STD,
}
KINDS = {
    "2.1": {},
    "2.2": {"is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2, "decoder_base_dim": 6},
}


def autoencoder(kind: str = "2.2", **changes):
    """4 frames x 4 x 4 pixels to a cell (x 8 x 8 with 2.2's patches) instead of 8 x 8 (16 x 16)."""
    return seeded(diffusers.AutoencoderKLWan, **(SMALL | KINDS[kind] | changes))


@torch.no_grad()
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("frames", [1, 9])
def test_tokens_are_the_pipeline_s_latents(kind, frames):
    vae = autoencoder(kind)
    tokenizer = make("wan2.2", vae)
    cell = {"2.1": 4, "2.2": 8}[kind]
    assert tokenizer.model.space_compression == cell and tokenizer.spec.time_compression == 4
    assert tokenizer.spec.modality == "video"
    assert (tokenizer.spec.train_shift, tokenizer.spec.sample_shift) == (2.95, 15.0)
    medium = clip(frames, 32, 16)
    raw = vae.encode(pixels(medium.frames)).latent_dist.mode()
    mean, std = (torch.tensor(v).view(1, 4, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    latents = (raw - mean) * (1.0 / std)
    sample = vae.decode(latents / (1.0 / std) + mean, return_dict=False)[0]
    assert raw.shape[2] == 1 + (frames - 1) // 4 and sample.shape[2] == frames
    check_tokens(tokenizer, medium, latents, sample)


def test_the_released_shapes():
    """Facts and patching of both released configs (their weights' sizes do not matter to them)."""
    released = {
        "2.1": ({"dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]}, (8, 2)),
        "2.2": ({"dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]}, (16, 1)),
    }
    for kind, (config, (space, patch)) in released.items():
        codec = WanCodec(autoencoder(kind, **config))
        assert (codec.time_compression, codec.space_compression, codec.patch) == (4, space, patch)


@pytest.fixture(scope="module")
def wan():
    return make("wan2.2", autoencoder())


@torch.no_grad()
@given(later=st.integers(1, 2))
@settings(max_examples=2)
def test_an_image_is_the_first_frame_of_a_clip(wan, later):
    video = clip(1 + 4 * later, 16, 16)
    whole, still = wan.encode([video]).values, wan.encode([Image(video.frames[0])]).values
    torch.testing.assert_close(whole[:, : still.shape[1]], still, rtol=1e-5, atol=1e-5)
    frames, alone = wan.decode_batch(whole, 1, 1), wan.decode_batch(still, 1, 1)
    assert frames.shape[1] == len(video.frames) and int((frames[:, :1].int() - alone.int()).abs().max()) <= 1


@torch.no_grad()
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_clip_in_pieces_is_the_class_s_clip(kind):
    vae = autoencoder(kind)
    codec = WanCodec(vae)
    frames = 2 * torch.rand(2, 13, 16, 16, 3) - 1
    whole = vae.encode(frames.permute(0, 4, 1, 2, 3)).latent_dist.mode()
    past = Past()
    latents = torch.cat([codec.encode(piece, past) for piece in frames.split([5, 8], dim=1)], dim=1)
    torch.testing.assert_close(latents, whole.permute(0, 2, 3, 4, 1), rtol=1e-5, atol=1e-5)
    past, sample = Past(), vae.decode(whole).sample.permute(0, 2, 3, 4, 1)
    pieces = [codec.decode(piece, past) for piece in latents.split([1, 2, 1], dim=1)]
    assert [piece.shape[1] for piece in pieces] == [1, 8, 4]
    torch.testing.assert_close(torch.cat(pieces, dim=1), sample, rtol=1e-5, atol=1e-5)
    assert float(sample.std()) > 0.01


@torch.no_grad()
def test_pieces_of_any_lengths_stream(wan, monkeypatch):
    monkeypatch.setattr(streaming, "_PIXELS", 4 * 16 * 16)  # what it gathers before it encodes
    video = clip(18, 16, 16)
    parts = [Video(frames, video.fps) for frames in video.frames.split([7, 1, 10])]
    streams = list(streaming.encode_pieces(wan, parts))
    assert len(streams) > 2
    whole = wan.encode([video])
    torch.testing.assert_close(torch.cat([s.values for s in streams], dim=1), whole.values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([s.positions for s in streams], dim=1), whole.positions)


def test_another_compression_in_time_is_refused():
    with pytest.raises(UserError, match="take 2 frames to one"):
        WanCodec(autoencoder(temperal_downsample=[False, True]))


def test_what_every_adapter_does(tmp_path):
    tokenizer = make("wan2.2", autoencoder())
    check_sizes(tokenizer)
    check_positions(tokenizer, frames=9, latent_frames=3)
    check_mixed_precision(tokenizer, clip(5, 16, 16))
    check_files("wan2.2", tokenizer, clip(5, 8, 16), tmp_path / "saved")
    download = "Wan-AI/Wan2.2-TI2V-5B-Diffusers --include 'vae/*'"
    check_errors("wan2.2", tmp_path / "wrong", image_autoencoder(), download)
