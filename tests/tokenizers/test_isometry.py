"""Isometric latents against Jacobians computed by autograd, and against the pictures themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfflow_tokenizers.errors import UserError
from selfflow_tokenizers.folder import load_tokenizer
from selfflow_tokenizers.isometry import isometric, pullback_metric
from selfflow_tokenizers.media import Video
from selfflow_tokenizers.video_autoencoder import VideoAutoencoder, VideoAutoencoderConfig
from selfflow_tokenizers.video_tokenizer import VideoTokenizer

_SMALL = VideoAutoencoderConfig(
    latent_channels=4,
    fine_width=12,
    width=16,
    frame_width=8,
    fine_blocks=1,
    blocks=1,
    frame_blocks=1,
    latent="gaussian",
)


def _model(seed: int, bend: float) -> VideoAutoencoder:
    """With blocks that do something: fresh ones add nothing, so that the decoder is linear at ``bend`` 0."""
    torch.manual_seed(seed)
    model = VideoAutoencoder(_SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(bend * torch.randn_like(parameter))
        # Channels of very different weight, so that a wrong root is a large error.
        model.decoder["stem"].weight.mul_(torch.tensor([4.0, 1.0, 1.0, 0.2]))  # type: ignore[operator]
    return model


def _clip(seed: int, cells: int = 2) -> Tensor:
    return torch.rand(1, 5, 8 * cells, 8 * cells, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _exact(model: VideoAutoencoder, clip: Tensor) -> Tensor:
    """Mean over cells of J^T J, by automatic differentiation, a cell at a time."""
    z = model.encode(clip).detach()
    jacobian = torch.func.jacrev(model.decode)(z).flatten(0, -z.ndim - 1).flatten(1, -2)  # pixels, cells, channels
    return torch.einsum("pci,pcj->ij", jacobian.double(), jacobian.double()) / jacobian.shape[1]


def test_the_metric_of_a_linear_decoder_is_its_jacobians() -> None:
    """Cells of a fresh decoder do not see each other, so signs need not cancel anything."""
    model = _model(0, 0.0)
    torch.testing.assert_close(pullback_metric(model, [_clip(0)]), _exact(model, _clip(0)), rtol=1e-3, atol=1e-6)


def test_of_a_bent_decoder_too_where_many_signs_are_drawn() -> None:
    model, clips = _model(1, 0.05), [_clip(i, 1) for i in range(2)]
    exact = torch.stack([_exact(model, clip) for clip in clips]).mean(0)
    drawn = torch.stack([pullback_metric(model, clips, seed=seed) for seed in range(20)]).mean(0)
    assert (drawn - exact).norm() < 0.05 * exact.norm()


def test_distances_of_latents_are_those_of_pictures() -> None:
    """A small change of any direction changes pixels by as much; before, by up to twenty times as much or as little."""
    model = _model(0, 0.0)
    made = isometric(model, pullback_metric(model, [_clip(0)]))

    def spread(of: VideoAutoencoder) -> float:
        z = of.encode(_clip(0)).detach()
        # Of one cell; the mean counts those of the first latent frame too, which make one frame instead of four.
        moves = torch.zeros(16, *z.shape[1:])
        moves[:, 1, 0, 0] = torch.nn.functional.normalize(
            torch.randn(16, 4, generator=torch.Generator().manual_seed(3))
        )
        away = (of.decode(z + moves) - of.decode(z)).flatten(1).norm(dim=1)
        return float(away.max() / away.min())

    with torch.no_grad():
        assert spread(model) > 3
        assert spread(made) < 1.2


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 999), bend=st.sampled_from([0.0, 0.05]), cells=st.integers(1, 3))
def test_what_is_decoded_stays(seed: int, bend: float, cells: int) -> None:
    model, clip = _model(seed, bend), _clip(seed, cells)
    made = isometric(model, pullback_metric(model, [_clip(seed + 1)]))
    with torch.no_grad():
        torch.testing.assert_close(made(clip), model(clip), rtol=1e-3, atol=1e-4)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 999))
def test_a_mixture_of_the_channels_before_changes_no_distance(seed: int) -> None:
    """Latents say the same after any invertible mixing that the decoder undoes, and so do isometric ones."""
    model = _model(seed, 0.0)
    mixture = torch.eye(4) + 0.3 * torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))
    if torch.linalg.cond(mixture) > 20:
        return
    other = VideoAutoencoder(_SMALL).eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name in ("encoder.head.weight", "encoder.head.bias"):
        state[name][:4] = mixture.T @ state[name][:4]
    state["decoder.stem.weight"] = state["decoder.stem.weight"] @ torch.linalg.inv(mixture).T
    other.load_state_dict(state)
    clip, distances = _clip(seed), []
    with torch.no_grad():
        for one in (model, other):
            made = isometric(one, pullback_metric(one, [clip]))
            cells = made.encode(clip).flatten(0, -2)
            # The metric is known up to its size, as one deviation will divide all channels.
            apart = torch.cdist(cells, cells, compute_mode="donot_use_mm_for_euclid_dist")
            distances.append(apart / apart.norm())
    torch.testing.assert_close(distances[0], distances[1], rtol=0.02, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_map_is_kept_with_the_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    model = _model(0, 0.05)
    tokenizer = VideoTokenizer(isometric(model, pullback_metric(model, [_clip(0)])), patch=1)
    tokenizer.save_pretrained(tmp_path, dtype=dtype)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, VideoTokenizer)
    clip = [Video((torch.rand(5, 16, 16, 3) * 255).to(torch.uint8), 8.0)]
    expected, found = tokenizer.encode(clip).values, loaded.encode(clip).values
    torch.testing.assert_close(
        found, expected, rtol=0, atol=(1e-6 if dtype == torch.float32 else 0.01) * float(expected.abs().max())
    )


def test_refused() -> None:
    model = _model(0, 0.0)
    made = isometric(model, pullback_metric(model, [_clip(0)]))
    with pytest.raises(UserError, match="isometric already"):
        isometric(made, torch.eye(4))
    for metric in (torch.zeros(4, 4), torch.full((4, 4), torch.nan)):
        with pytest.raises(UserError, match="does not depend on its latents"):
            isometric(model, metric)
