"""The deep-compression autoencoder against Sana's pipelines' calls."""

from __future__ import annotations

import pytest
import torch

from selfflow_tokenizers.pretrained.dc_ae import DeepCompressionCodec

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


def autoencoder(**changes):
    """Both kinds of block; 4 x 4 pixels to a cell."""
    config = {
        "latent_channels": 4,
        "attention_head_dim": 4,
        "encoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
        "decoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
        "encoder_block_out_channels": (4, 8, 8),
        "decoder_block_out_channels": (4, 8, 8),
        "encoder_layers_per_block": (1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1),
        "encoder_qkv_multiscales": ((), (), (5,)),
        "decoder_qkv_multiscales": ((), (), (5,)),
        "scaling_factor": 0.41407,
    }
    return seeded(diffusers.AutoencoderDC, **(config | changes))


@torch.no_grad()
@pytest.mark.parametrize(
    "changes", [{}, {"encoder_layers_per_block": (0, 1, 1), "decoder_layers_per_block": (0, 1, 1)}]
)
def test_tokens_are_the_pipeline_s_latents(changes):
    ae = autoencoder(**changes)
    tokenizer = make("dc-ae", ae)
    assert tokenizer.spec.channels == 4 and tokenizer.spec.space_compression == 4 and tokenizer.patch == 1
    medium = picture(12, 8)
    # SanaControlNetPipeline encodes so, SanaPipeline decodes so.
    latents = ae.encode(pixels(medium.pixels[None])[:, :, 0]).latent * ae.config.scaling_factor
    sample = ae.decode(latents / ae.config.scaling_factor, return_dict=False)[0]
    check_tokens(tokenizer, medium, latents[:, :, None], sample[:, :, None])


def test_the_default_shape_is_32_channels_of_32_pixels():
    with torch.device("meta"):
        codec = DeepCompressionCodec(diffusers.AutoencoderDC())
    assert (codec.latent_channels, codec.space_compression, codec.time_compression) == (32, 32, 1)


def test_what_every_adapter_does(tmp_path):
    tokenizer = make("dc-ae", autoencoder())
    check_sizes(tokenizer)
    check_positions(tokenizer, frames=3, latent_frames=3)
    check_mixed_precision(tokenizer, clip(2, 8, 8))
    check_files("dc-ae", tokenizer, picture(8, 12), tmp_path / "saved")
    check_errors("dc-ae", tmp_path / "wrong", image_autoencoder(), "mit-han-lab/dc-ae-f32c32-sana-1.1-diffusers")
