"""The SD-VAE, and AutoencoderKL as SD3, FLUX.1 and Playground configure it, against diffusers' own pipelines' calls."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from selfflow_tokenizers.pretrained import pictures as adapters

from .pictures import (
    check_errors,
    check_files,
    check_mixed_precision,
    check_positions,
    check_sizes,
    check_tokens,
    clip,
    image_autoencoder,
    make,
    picture,
    pixels,
    seeded,
)

SD3 = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}


def normalised(vae, raw: Tensor) -> Tensor:
    """As StableDiffusion3Img2ImgPipeline and, with measured channels, StableDiffusionXLPipeline do it."""
    config = vae.config
    if config.latents_mean is not None:
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (config.latents_mean, config.latents_std))
        return (raw - mean) * config.scaling_factor / std
    return (raw - (config.shift_factor or 0.0)) * config.scaling_factor


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        SD3 | {"scaling_factor": 1.5305, "shift_factor": 0.0609},
        {"scaling_factor": 0.5, "latents_mean": [-1.6, 0.9, 0.2, -1.8], "latents_std": [8.4, 5.9, 6.3, 4.5]},
    ],
    ids=["sd-vae", "sd3", "measured-channels"],
)
def test_tokens_are_the_pipelines_latents_in_patches_of_2_x_2(changes):
    vae = image_autoencoder(**changes)
    tokenizer = make("sd-vae", vae)
    channels = changes.get("latent_channels", 4)
    assert tokenizer.spec.channels == 4 * channels and tokenizer.spec.space_compression == 8
    assert tokenizer.spec.modality == "image" and tokenizer.spec.time_compression == 1
    assert (tokenizer.spec.train_shift, tokenizer.spec.sample_shift, tokenizer.spec.licence) == (1.0, 1.78, "MIT")
    medium = picture(24, 16)
    raw = vae.encode(pixels(medium.pixels[None])[:, :, 0]).latent_dist.mode()
    sample = vae.decode(raw).sample
    check_tokens(tokenizer, medium, normalised(vae, raw)[:, :, None], sample[:, :, None])


@torch.no_grad()
def test_a_clip_is_its_frames_however_few_go_at_once(monkeypatch):
    tokenizer = make("sd-vae", image_autoencoder())
    video = clip(5, 16, 8)
    whole = tokenizer.encode([video]).values
    alone = [tokenizer.encode([type(picture(8, 8))(frame)]).values for frame in video.frames]
    torch.testing.assert_close(whole, torch.cat(alone, dim=1), rtol=1e-5, atol=1e-5)
    seen: list[int] = []
    codec = tokenizer.model
    inner = codec.encode_pictures
    monkeypatch.setattr(adapters, "PIXELS", 2 * 16 * 8)
    monkeypatch.setattr(codec, "encode_pictures", lambda p: (seen.append(len(p)), inner(p))[1])
    torch.testing.assert_close(tokenizer.encode([video]).values, whole, rtol=1e-5, atol=1e-5)
    assert seen == [2, 2, 1]


@torch.no_grad()
def test_old_names_of_the_attention_weights_load(tmp_path):
    """The released SD-VAE was saved before diffusers renamed query, key, value and proj_attn."""
    from safetensors.torch import load_file, save_file

    tokenizer = make("sd-vae", image_autoencoder())
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "codec" / "diffusion_pytorch_model.safetensors"
    renames = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(path)
    for new, old in renames.items():
        state = {name.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): v for name, v in state.items()}
    assert "encoder.mid_block.attentions.0.query.weight" in state
    save_file(state, path, metadata={"format": "pt"})
    medium = picture(8, 8)
    from selfflow_tokenizers import load_tokenizer

    again = load_tokenizer(f"sd-vae:{path.parent}")
    assert torch.equal(again.encode([medium]).values, tokenizer.encode([medium]).values)


def test_what_every_adapter_does(tmp_path):
    import diffusers

    vae = image_autoencoder(**SD3, shift_factor=0.1)
    tokenizer = make("sd-vae", vae)
    check_sizes(tokenizer)
    check_positions(tokenizer, frames=4, latent_frames=4)
    check_mixed_precision(tokenizer, clip(2, 16, 16))
    check_files("sd-vae", tokenizer, picture(16, 24), tmp_path / "saved")
    wrong = seeded(
        diffusers.AutoencoderKLFlux2,
        block_out_channels=(8,),
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        norm_num_groups=4,
    )
    check_errors("sd-vae", tmp_path / "wrong", wrong, "stabilityai/sd-vae-ft-ema")
