"""FLUX.2's autoencoder against the patching and normalisation of diffusers' Flux2Pipeline."""

from __future__ import annotations

import pytest
import torch

from selfflow_tokenizers import UserError
from selfflow_tokenizers.pretrained.flux2 import Flux2Codec

from .pictures import (
    check_errors,
    check_files,
    check_mixed_precision,
    check_positions,
    check_sizes,
    check_tokens,
    diffusers,
    image_autoencoder,
    make,
    picture,
    pixels,
)


def autoencoder(**changes):
    """With a smaller decoder, as FLUX.2-small-decoder's, and statistics that are not those of a new batch norm."""
    vae = image_autoencoder(diffusers.AutoencoderKLFlux2, decoder_block_out_channels=(4, 4, 4), **changes)
    generator = torch.Generator().manual_seed(2)
    vae.bn.running_mean.normal_(generator=generator)
    vae.bn.running_var.uniform_(1e-4, 4.0, generator=generator)  # the smallest is that of batch_norm_eps
    return vae


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"use_quant_conv": False, "use_post_quant_conv": False}])
def test_tokens_are_what_flux2_s_transformers_read(changes):
    from diffusers.pipelines.flux2.pipeline_flux2 import Flux2Pipeline

    vae = autoencoder(**changes)
    tokenizer = make("flux2", vae)
    assert tokenizer.spec.channels == 16 and tokenizer.spec.space_compression == 8 and tokenizer.patch == 1
    assert (tokenizer.spec.train_shift, tokenizer.spec.sample_shift) == (4.63, 6.93)
    medium = picture(24, 16)
    # Flux2Pipeline._encode_vae_image, and the end of its __call__.
    raw = Flux2Pipeline._patchify_latents(vae.encode(pixels(medium.pixels[None])[:, :, 0]).latent_dist.mode())
    mean = vae.bn.running_mean.view(1, -1, 1, 1)
    std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    latents = (raw - mean) / std
    sample = vae.decode(Flux2Pipeline._unpatchify_latents(latents * std + mean)).sample
    check_tokens(tokenizer, medium, latents[:, :, None], sample[:, :, None])
    # The pipeline hands the transformer tokens row by row.
    packed = Flux2Pipeline._pack_latents(latents)
    torch.testing.assert_close(tokenizer.encode([medium]).values, packed, rtol=1e-4, atol=1e-4)


def test_the_released_shape_is_128_channels_of_16_pixels():
    """Facts of the released config, read without its 84 million weights."""
    with torch.device("meta"):
        vae = diffusers.AutoencoderKLFlux2()
    codec = Flux2Codec(vae)
    assert (codec.latent_channels, codec.space_compression, codec.time_compression) == (128, 16, 1)


def test_patches_that_are_not_square_are_refused():
    with pytest.raises(UserError, match="2 x 1 latent cells are not square"):
        Flux2Codec(autoencoder(patch_size=(2, 1)))


def test_what_every_adapter_does(tmp_path):
    tokenizer = make("flux2", autoencoder())
    check_sizes(tokenizer)
    check_positions(tokenizer, frames=3, latent_frames=3)
    check_mixed_precision(tokenizer, picture(16, 16))
    check_files("flux2", tokenizer, picture(16, 24), tmp_path / "saved")
    download = "black-forest-labs/FLUX.2-klein-4B --include 'vae/*'"
    check_errors("flux2", tmp_path / "wrong", image_autoencoder(), download)


def test_a_pipeline_s_folder_is_searched_for_its_autoencoder(tmp_path):
    from selfflow_tokenizers import load_tokenizer

    tokenizer = make("flux2", autoencoder())
    tokenizer.model.save_pretrained(tmp_path / "vae")
    medium = picture(8, 8)
    assert torch.equal(load_tokenizer(f"flux2:{tmp_path}").encode([medium]).values, tokenizer.encode([medium]).values)


def test_weights_that_are_not_all_there_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    from selfflow_tokenizers import load_tokenizer

    make("flux2", autoencoder()).model.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["bn.running_mean"]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="its weights lack bn.running_mean"):
        load_tokenizer(f"flux2:{tmp_path}")
