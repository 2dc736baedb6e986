"""The video autoencoder: shapes, causality, images as first frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_tokenizers.codecs import PictureCodec
from selfflow_tokenizers.errors import UserError
from selfflow_tokenizers.video_autoencoder import VideoAutoencoder, VideoAutoencoderConfig

CONFIG = VideoAutoencoderConfig(
    latent_channels=4, fine_width=12, width=16, frame_width=8, fine_blocks=1, blocks=1, frame_blocks=1,
    deep_width=20, deep_blocks=1,
)  # fmt: skip


def awake(seed: int = 0, **changes) -> VideoAutoencoder:
    """A model whose blocks do something: as built, their last layers are zero."""
    torch.manual_seed(seed)
    model = VideoAutoencoder(replace(CONFIG, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 3), st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 4]), st.sampled_from([8, 16]),
    st.sampled_from(["bounded", "gaussian"]),
)  # fmt: skip
def test_shapes(k: int, rows: int, columns: int, time: int, space: int, latent: str) -> None:
    frames = torch.rand(2, 1 + time * k, space * rows, space * columns, 3) * 2 - 1
    model = awake(time_compression=time, space_compression=space, latent=latent)
    assert isinstance(model, PictureCodec)
    with torch.no_grad():
        mean, log_variance = model.posterior(frames)
        latents = model.encode(frames)
        assert torch.equal(latents, mean) and latents.shape == (2, 1 + k, rows, columns, 4)
        if latent == "bounded":
            assert log_variance is None and latents.abs().max() <= 1  # tanh, rounded
        else:
            assert log_variance is not None and log_variance.shape == mean.shape
        assert model.decode(latents).shape == frames.shape


@torch.no_grad()
def test_images_alone_see_no_other_frame() -> None:
    model, frames = awake(time_compression=1), torch.rand(1, 3, 16, 16, 3) * 2 - 1
    alone = torch.cat([model.encode(frames[:, i : i + 1]) for i in range(3)], dim=1)
    torch.testing.assert_close(model.encode(frames), alone, atol=1e-6, rtol=0)


@torch.no_grad()
def test_an_image_is_the_first_frame_of_a_clip() -> None:
    model, frames = awake(), torch.rand(1, 13, 32, 24, 3) * 2 - 1
    clip, still = model.encode(frames), model.encode(frames[:, :1])
    torch.testing.assert_close(clip[:, :1], still, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.decode(clip)[:, :1], model.decode(still), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frame", [1, 4, 5, 8, 12])
@torch.no_grad()
def test_no_latent_sees_a_later_frame(frame: int) -> None:
    model, frames = awake(), torch.rand(1, 13, 16, 16, 3) * 2 - 1
    other = frames.clone()
    other[:, frame] += 0.5
    change = (model.encode(other) - model.encode(frames)).abs().amax((0, 2, 3, 4))
    first = (frame + 3) // 4  # frames 4j-3 .. 4j make latent j
    assert (change[:first] == 0).all()
    assert change[first] > 1e-4


@pytest.mark.parametrize("latent", [1, 2, 3])
@torch.no_grad()
def test_no_frame_is_decoded_from_a_later_latent(latent: int) -> None:
    model, latents = awake(), torch.rand(1, 4, 2, 2, 4) * 2 - 1
    other = latents.clone()
    other[:, latent] *= -1
    change = (model.decode(other) - model.decode(latents)).abs().amax((0, 2, 3, 4))
    assert (change[: 4 * latent - 3] == 0).all()
    assert change[4 * latent - 3] > 1e-4


@torch.no_grad()
def test_nothing_reaches_back_for_ever() -> None:
    """Only finite reach keeps streaming exact: the first frame no longer matters once it is out of sight."""
    model = awake()
    reach = 2 * (CONFIG.time_kernel - 1)  # two blocks with a time layer each
    frames = torch.rand(1, 1 + 4 * (reach + 2), 16, 16, 3) * 2 - 1
    other = frames.clone()
    other[:, 0] *= -1
    change = (model.encode(other) - model.encode(frames)).abs().amax((0, 2, 3, 4))
    assert change[reach] > 0
    assert (change[reach + 1 :] == 0).all()


def test_a_new_model_is_linear_around_the_bound() -> None:
    torch.manual_seed(0)
    model = VideoAutoencoder(CONFIG)
    a, b = torch.rand(2, 1, 5, 16, 16, 3)
    with torch.no_grad():
        raw = [torch.atanh(model.encode(x)) for x in (a, b, (a + b) / 2)]
    torch.testing.assert_close((raw[0] + raw[1]) / 2, raw[2], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"space_kernel": 4},
        {"width": 0},
        {"blocks": -1},
        {"time_compression": 2},
        {"space_compression": 4},
        {"latent": "vq"},
    ],
)
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        VideoAutoencoderConfig(**wrong)
