"""Published geometry against the paper's own numbers and against the libraries' classes."""

from __future__ import annotations

import pytest
import torch

from selfflow_tokenizers import Image
from selfflow_tokenizers.errors import UserError
from selfflow_tokenizers.published import PUBLISHED, Pictures, published_tokenizer


@pytest.mark.parametrize(
    ("name", "medium", "tokens", "channels", "shifts"),
    [
        # Self-Flow's app. A.2: tokens and channels of 256 x 256 pictures, 192p videos and sounds, and the shifts.
        ("sd-vae", (1, 256, 256, 1.0), 256, 16, (1.0, 1.78)),
        ("flux2", (1, 256, 256, 1.0), 256, 128, (4.63, 6.93)),
        ("wan2.2", (45, 192, 336, 24.0), 12 * 12 * 21, 48, (2.95, 15.0)),
    ],
)
def test_pictures_have_the_papers_tokens(name, medium, tokens, channels, shifts) -> None:
    tokenizer = published_tokenizer(name)
    assert tokenizer.positions(*medium).shape == (tokens, 4)
    assert tokenizer.spec.channels == channels
    assert (tokenizer.spec.train_shift, tokenizer.spec.sample_shift) == shifts


def test_sound_has_25_latents_a_second_and_64_channels() -> None:
    tokenizer = published_tokenizer("avae")
    assert len(tokenizer.positions(10 * 48_000)) == 250 and tokenizer.spec.channels == 64
    assert tokenizer.spec.latents_per_second == 25 and tokenizer.spec.modality == "audio"


def test_it_cannot_be_taken_for_the_real_one() -> None:
    with pytest.raises(UserError, match="flux2 has no weights"):
        published_tokenizer("flux2").encode([Image(torch.zeros(32, 32, 3, dtype=torch.uint8))])
    with pytest.raises(UserError, match="no published geometry is known of 'mimi'"):
        published_tokenizer("mimi")


@pytest.mark.parametrize("name", [n for n, geometry in PUBLISHED.items() if isinstance(geometry, Pictures)])
def test_it_is_what_the_adapter_finds_in_a_network_of_the_published_sizes(name: str) -> None:
    pytest.importorskip("diffusers")
    from selfflow_tokenizers.pretrained import adapter
    from selfflow_tokenizers.pretrained.base import library_class

    sizes = {
        "sd-vae": {"block_out_channels": (128, 256, 512, 512), "latent_channels": 4}
        | {
            f"{way}_block_types": (f"{kind}Block2D",) * 4
            for way, kind in (("down", "DownEncoder"), ("up", "UpDecoder"))
        },
        "flux2": {},
        "wan2.2": {"base_dim": 16, "decoder_base_dim": 16, "z_dim": 48, "dim_mult": [1, 2, 4, 4], "patch_size": 2}
        | {"temperal_downsample": [False, True, True], "is_residual": True, "in_channels": 12, "out_channels": 12},
    }[name]
    kind = adapter(name)
    with torch.device("meta"):
        real = kind(library_class(kind.library)(**sizes))
    stand_in = published_tokenizer(name)
    assert (real.latent_channels, real.time_compression, real.space_compression, real.patch) == (
        stand_in.model.latent_channels,
        stand_in.model.time_compression,
        stand_in.model.space_compression,
        stand_in.patch,
    )
