"""Tiles cover the picture, weights add up to one, and a codec of finite reach loses nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_tokenizers import Image, UserError, Video, VideoTokenizer
from selfflow_tokenizers.layers import Past
from selfflow_tokenizers.tiling import Tiled, seam_error, tiles
from selfflow_tokenizers.video_autoencoder import VideoAutoencoder, VideoAutoencoderConfig


def model(kernel: int = 3) -> VideoAutoencoder:
    torch.manual_seed(0)
    config = VideoAutoencoderConfig(
        latent_channels=3, fine_width=12, width=16, frame_width=8, fine_blocks=1, blocks=1, frame_blocks=1,
        space_kernel=kernel,
    )  # fmt: skip
    made = VideoAutoencoder(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return made


class Mean(torch.nn.Module):
    """A codec that averages cells of 8 x 8 pixels: no reach beyond a cell, so tiling must change nothing."""

    latent_channels, time_compression, space_compression = 3, 1, 8

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).mean((3, 5))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents.repeat_interleave(8, 2).repeat_interleave(8, 3)


@given(st.integers(1, 40), st.integers(0, 4), st.integers(1, 9))
def test_tiles_cover_and_share_the_overlap(size: int, overlap: int, more: int) -> None:
    tile = 2 * overlap + more
    found = tiles(size, tile, overlap)
    assert found[0][0] == 0 and found[-1][1] == size
    for (_, end), (start, _) in zip(found, found[1:], strict=False):
        assert end - start == overlap
    assert all(end - start <= tile for start, end in found)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2), st.integers(1, 3))
def test_blending_equal_values_changes_nothing(rows: int, columns: int, overlap: int, more: int) -> None:
    tiled = Tiled(Mean(), tile=8 * (2 * overlap + more), overlap=8 * overlap)
    frames = torch.rand(1, 2, 8 * rows, 8 * columns, 3)
    torch.testing.assert_close(tiled.encode(frames), Mean().encode(frames), atol=1e-6, rtol=0)
    latents = torch.rand(1, 2, rows, columns, 3)
    torch.testing.assert_close(tiled.decode(latents), Mean().decode(latents), atol=1e-6, rtol=0)


def test_an_overlap_of_twice_the_reach_is_exact_and_less_is_nearly() -> None:
    codec = model()
    frames = torch.rand(1, 5, 120, 88, 3) * 2 - 1
    reach = codec.reach
    exact = seam_error(codec, frames, tile=6 * reach if reach < 24 else 4 * reach, overlap=2 * reach)
    assert max(exact["latents_max"], exact["pixels_max"] / 255) < 1e-5
    errors = [seam_error(codec, frames, tile=32, overlap=overlap) for overlap in (0, 8, 16)]
    assert errors[0]["pixels_rms"] > errors[1]["pixels_rms"] > errors[2]["pixels_rms"] > 0


def test_nothing_is_seen_beyond_the_reach() -> None:
    codec = model()
    size = 2 * codec.reach + 8
    frames = torch.zeros(1, 1, 8, size, 3)
    other = frames.clone()
    other[..., -1, :] = 1.0
    with torch.no_grad():
        changed = (codec.encode(other) - codec.encode(frames)).abs().amax((0, 1, 2, 4)).nonzero()
    assert int(changed.min()) >= (size - codec.reach) // 8


def test_tiles_and_pieces_together() -> None:
    codec = model()
    tiled = Tiled(codec, tile=64, overlap=16)
    frames = torch.rand(1, 13, 64, 120, 3) * 2 - 1
    with torch.no_grad():
        whole, past = tiled.encode(frames), Past()
        pieces = [tiled.encode(frames[:, :5], past), tiled.encode(frames[:, 5:], past)]
        torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=0)
        past = Past()
        back = [tiled.decode(whole[:, :1], past), tiled.decode(whole[:, 1:], past)]
        torch.testing.assert_close(torch.cat(back, 1), tiled.decode(whole), atol=1e-5, rtol=0)


def test_a_tiled_tokenizer_has_the_same_spec_and_nearly_the_same_tokens(tmp_path) -> None:
    tokenizer = VideoTokenizer(model())
    tiled = tokenizer.tiled(tile=64, overlap=32)
    pixels = torch.randint(0, 256, (150, 170, 3), dtype=torch.uint8)
    a, b = tokenizer.encode([Image(pixels)]), tiled.encode([Image(pixels)])
    assert tiled.spec == tokenizer.spec
    assert torch.equal(a.positions, b.positions)
    assert (a.values - b.values).abs().mean() < 0.1 * a.values.abs().mean()
    (back,) = tiled.decode(b)
    assert isinstance(back, Image) and back.pixels.shape == pixels.shape
    tiled.save_pretrained(tmp_path)
    again = VideoTokenizer.from_pretrained(tmp_path)
    assert torch.equal(again.encode([Video(pixels[None], 3.0)]).values, a.values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile": 60, "overlap": 16}, "multiples of 8"),
        ({"tile": 64, "overlap": 40}, "twice"),
        ({"tile": 64, "overlap": 16, "margin": 16}, "margin"),
    ],
)
def test_impossible_tiles_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Tiled(model(), **settings)
