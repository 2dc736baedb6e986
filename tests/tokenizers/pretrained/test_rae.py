"""Representation autoencoders against the class called directly: pixels in [0, 1], one size, its own normalisation."""

from __future__ import annotations

import pytest
import torch

from selfflow_tokenizers import Image, UserError

from .pictures import (
    check_errors,
    check_files,
    check_mixed_precision,
    check_tokens,
    clip,
    content,
    diffusers,
    image_autoencoder,
    make,
    picture,
    seeded,
)

pytest.importorskip("transformers")
ENCODERS = {"dinov2": (7, 21), "mae": (8, 24)}  # pixels per place, and per picture


def autoencoder(kind: str = "dinov2", **changes):
    """Three by three places of 4 x 4 pixels; a mean and deviation for every place, as the released ones have."""
    patch, size = ENCODERS[kind]
    generator = torch.Generator().manual_seed(3)
    config = {
        "encoder_type": kind,
        "encoder_hidden_size": 64,
        "encoder_patch_size": patch,
        "encoder_num_hidden_layers": 1,
        "encoder_input_size": size,
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 16,
        "patch_size": 4,
        "latents_mean": torch.randn(64, 3, 3, generator=generator).tolist(),
        "latents_std": (torch.rand(64, 3, 3, generator=generator) + 0.5).tolist(),
        "noise_tau": 0.8,
    }
    return seeded(diffusers.AutoencoderRAE, **(config | changes))


@torch.no_grad()
@pytest.mark.parametrize("kind", list(ENCODERS))
def test_tokens_are_the_class_s_latents(kind):
    rae = autoencoder(kind, scaling_factor=0.7 if kind == "mae" else 1.0)
    tokenizer = make("rae", rae)
    assert tokenizer.spec.channels == 64 and tokenizer.spec.space_compression == 4
    assert tokenizer.spec.scale == () and tokenizer.spec.shift == ()
    medium = picture(12, 12)
    latents = rae.encode(medium.pixels.permute(2, 0, 1)[None] / 255).latent
    sample = 2 * rae.decode(latents).sample - 1
    check_tokens(tokenizer, medium, latents[:, :, None], sample[:, :, None])


@torch.no_grad()
def test_latents_kept_as_a_row_of_places_make_the_same_tokens():
    flat = {"latents_mean": [0.3], "latents_std": [1.7]}
    medium = picture(12, 12)
    ours, rows = (make("rae", autoencoder(reshape_to_2d=b, **flat)) for b in (True, False))
    stream = ours.encode([medium])
    torch.testing.assert_close(rows.encode([medium]).values, stream.values)
    assert torch.equal(content(rows.decode(stream)[0]), content(ours.decode(stream)[0]))


def test_other_sizes_are_refused_and_smaller_ones_filled_up():
    tokenizer = make("rae", autoencoder())
    for medium in (picture(16, 12), picture(8, 8), clip(2, 24, 24)):
        with pytest.raises(UserError, match="takes and makes pictures of 12 x 12 pixels only") as caught:
            tokenizer.encode([medium])
        assert "\n" not in str(caught.value)
    media = [picture(12, 12), picture(11, 9), clip(3, 12, 10)]
    found = tokenizer.decode(tokenizer.encode(media))
    assert [content(m).shape for m in found] == [content(m).shape for m in media]
    with pytest.raises(UserError, match="got 8 x 12"):
        tokenizer.decode_batch(torch.zeros(1, 6, 64), rows=2, columns=3)


def test_positions_of_a_clip():
    tokenizer = make("rae", autoencoder())
    where = tokenizer.encode([clip(2, 12, 12, fps=10.0)]).positions[0]
    expected = [[(t + 0.5) / 10, r, c, 0] for t in range(2) for r in range(3) for c in range(3)]
    torch.testing.assert_close(where, torch.tensor(expected))


def test_files_errors_and_mixed_precision(tmp_path):
    tokenizer = make("rae", autoencoder())
    check_mixed_precision(tokenizer, picture(12, 12))
    check_files("rae", tokenizer, Image(picture(12, 12).pixels), tmp_path / "saved")
    check_errors("rae", tmp_path / "wrong", image_autoencoder(), "nyu-visionx/RAE-dinov2-wReg-base-ViTXL-n08")


def test_larger_pictures_go_in_tiles_of_its_size():
    tokenizer = make("rae", autoencoder()).tiled(12, 4)
    medium = picture(12, 20)
    stream = tokenizer.encode([medium])
    assert stream.values.shape == (1, 3 * 5, 64)
    left = make("rae", autoencoder()).encode([Image(medium.pixels[:, :12])]).values.unflatten(1, (3, 3))
    torch.testing.assert_close(stream.values.unflatten(1, (3, 5))[:, :, :2], left[:, :, :2], rtol=1e-4, atol=1e-4)
    assert content(tokenizer.decode(stream)[0]).shape == (12, 20, 3)
