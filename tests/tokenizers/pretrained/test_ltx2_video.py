"""LTX-2's video autoencoder against the normalisation of diffusers' LTX2ImageToVideoPipeline."""

from __future__ import annotations

import pytest
import torch

from selfflow_tokenizers import Image, UserError
from selfflow_tokenizers.pretrained.ltx2_video import LTX2VideoCodec

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
    picture,
    pixels,
    seeded,
)

#: The released pattern of halvings and its causal encoder and two-sided decoder, with few channels and patches of 1:
#: 8 frames x 8 x 8 pixels to a cell.
SMALL = {
    "latent_channels": 4,
    "block_out_channels": (8, 16, 16, 32),
    "decoder_block_out_channels": (8, 16, 32),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1),
    "patch_size": 1,
    "decoder_causal": False,
}


def autoencoder(**changes):
    vae = seeded(diffusers.AutoencoderKLLTX2Video, **(SMALL | changes))
    generator = torch.Generator().manual_seed(4)
    vae.latents_mean.normal_(generator=generator)
    vae.latents_std.uniform_(0.5, 2.0, generator=generator)
    return vae


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 17])
@pytest.mark.parametrize("changes", [{}, {"decoder_causal": True, "scaling_factor": 0.6}])
def test_tokens_are_the_pipeline_s_latents(frames, changes):
    from diffusers.pipelines.ltx2.pipeline_ltx2_image2video import LTX2ImageToVideoPipeline as Pipeline

    vae = autoencoder(**changes)
    tokenizer = make("ltx2-video", vae)
    spec = tokenizer.spec
    assert (spec.channels, spec.time_compression, spec.space_compression) == (4, 8, 8)
    medium = clip(frames, 16, 24)
    raw = vae.encode(pixels(medium.frames)).latent_dist.mode()
    assert raw.shape[2] == 1 + (frames - 1) // 8
    statistics = (vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    latents = Pipeline._normalize_latents(raw, *statistics)
    sample = vae.decode(Pipeline._denormalize_latents(latents, *statistics), None, return_dict=False)[0]
    assert sample.shape[2] == frames
    check_tokens(tokenizer, medium, latents, sample)


def test_the_released_shape_is_128_channels_of_8_frames_and_32_pixels():
    """From the released pattern of halvings: without its two ratios in the config, the class's own are wrong."""
    with torch.device("meta"):
        module = diffusers.AutoencoderKLLTX2Video()
    codec = LTX2VideoCodec(module)
    assert (codec.latent_channels, codec.time_compression, codec.space_compression) == (128, 8, 32)
    assert module.spatial_compression_ratio != 32  # what would have been believed


@torch.no_grad()
def test_an_image_s_latents_are_those_of_a_clip_s_first_frame():
    video = clip(17, 16, 16)
    tokenizer = make("ltx2-video", autoencoder())
    still = tokenizer.encode([Image(video.frames[0])]).values
    first = tokenizer.encode([video]).values[:, : still.shape[1]]
    torch.testing.assert_close(first, still, rtol=1e-4, atol=1e-4)
    # So it is after decoding where the decoder is causal, and is not where it sees later latents.
    for causal in (True, False):
        both = make("ltx2-video", autoencoder(decoder_causal=causal))
        values = both.encode([video]).values
        alone = both.decode_batch(values[:, : still.shape[1]], 2, 2).int()
        within = both.decode_batch(values, 2, 2)[:, :1].int()
        assert (int((alone - within).abs().max()) <= 1) is causal


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timestep_conditioning": True}, "no fixed result"),
        ({"decoder_inject_noise": True}, "no fixed result"),
        ({"patch_size_t": 2}, "patch_size_t must be 1, got 2"),
    ],
)
def test_modules_without_a_fixed_result_or_first_frame_are_refused(changes, words):
    with torch.device("meta"):
        module = diffusers.AutoencoderKLLTX2Video(**(SMALL | changes))
    with pytest.raises(UserError, match=words):
        LTX2VideoCodec(module)


def test_frames_too_small_to_reflect_at_their_edges_are_refused():
    tokenizer = make("ltx2-video", autoencoder())
    for call in (
        lambda: tokenizer.encode([picture(16, 8)]),
        lambda: tokenizer.decode_batch(torch.zeros(1, 2, 4), rows=2, columns=1),
    ):
        with pytest.raises(UserError, match="frames of at least 16 x 16 pixels, got 16 x 8"):
            call()
    zeros = make("ltx2-video", autoencoder(decoder_spatial_padding_mode="zeros"))
    assert len(zeros.decode(zeros.encode([picture(8, 8)]))) == 1


def test_what_every_adapter_does(tmp_path):
    tokenizer = make("ltx2-video", autoencoder())
    check_sizes(tokenizer)
    check_positions(tokenizer, frames=17, latent_frames=3)
    check_mixed_precision(tokenizer, clip(9, 16, 16))
    check_files("ltx2-video", tokenizer, picture(16, 16), tmp_path / "saved")
    check_errors("ltx2-video", tmp_path / "wrong", image_autoencoder(), "Lightricks/LTX-2 --include 'vae/*'")
