"""Decoders by name, and the SD-VAE against diffusers' own decoding."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from selfflow_mm.errors import UserError
from selfflow_mm.generation.decoders import check_decoder, load_decoder
from selfflow_tokenizers._audio_backend import ensure_torchaudio


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random AutoencoderKL with the SD-VAE's factor of 8 and a few thousand weights."""
    ensure_torchaudio()
    diffusers = pytest.importorskip("diffusers", reason="diffusers is in the extra 'pretrained'")
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
    )
    folder = tmp_path_factory.mktemp("vae")
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def test_the_sd_vae_decodes_as_diffusers_does(vae):
    from diffusers import AutoencoderKL

    latents = torch.randn(9, 4, 4, 4)
    decode = load_decoder(f"sd-vae:{vae}")
    assert decode is not None
    images = decode(latents)
    theirs = AutoencoderKL.from_pretrained(vae, low_cpu_mem_usage=False).decode(latents / 0.18215).sample
    expected = ((theirs.clamp(-1, 1) + 1) / 2 * 255).permute(0, 2, 3, 1)
    assert images.shape == (9, 32, 32, 3) and images.dtype == torch.uint8
    assert (images - expected).abs().max() <= 0.5 + 1e-3
    assert check_decoder(decode, "sd-vae", latents[:1]) == (32, 32, 3)


def test_latents_have_no_decoder():
    assert load_decoder("latents") is None


def test_a_function_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_decoder.py").write_text(
        "import torch\n"
        "def grey(latents):\n"
        "    return torch.full((len(latents), 8, 8, 3), 128, dtype=torch.uint8)\n"
        "def wrong(latents):\n"
        "    return latents\n"
    )
    monkeypatch.chdir(tmp_path)
    grey = load_decoder("my_decoder:grey")
    assert grey is not None and check_decoder(grey, "my_decoder:grey", torch.zeros(1, 4, 4, 4)) == (8, 8, 3)
    assert str(tmp_path) not in sys.path
    wrong = load_decoder("my_decoder:wrong")
    assert wrong is not None
    with pytest.raises(UserError, match=r"uint8 pixels \(B, H, W, 3\), it gives torch.float32 \(1, 4, 4, 4\)"):
        check_decoder(wrong, "my_decoder:wrong", torch.zeros(1, 4, 4, 4))
    with pytest.raises(UserError, match="has no function missing"):
        load_decoder("my_decoder:missing")
    monkeypatch.delitem(sys.modules, "my_decoder")


def test_what_is_not_here_is_said(vae, tmp_path, monkeypatch):
    cases = {
        "jpeg": "no decoder 'jpeg'",
        "no_such_module:f": "cannot be imported: No module named 'no_such_module'",
        "sd-vae": "sd-vae-ft-ema) are no folder here and not in the hub's cache; fetch them with `hf download",
        "sd-vae:some/model": "name sd-vae:model; or take --decoder latents",
        f"sd-vae:{tmp_path}": "holds no AutoencoderKL with safetensors weights",
    }
    for spec, sentence in cases.items():
        with pytest.raises(UserError) as caught:
            load_decoder(spec)
        assert sentence in str(caught.value) and "\n" not in str(caught.value)
    decode = load_decoder(f"sd-vae:{vae}")
    assert decode is not None
    with pytest.raises(UserError, match=r"fails on latents of shape \(3, 4, 4\)"):
        check_decoder(decode, "sd-vae", torch.zeros(1, 3, 4, 4))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"pip install 'selfflow-mm\[pretrained\]'"):
        load_decoder("sd-vae")
