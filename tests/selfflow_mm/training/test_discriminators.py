"""Discriminators: what a logit sees, independence of samples, shapes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_mm.training.discriminators import PatchDiscriminator, SpectrumDiscriminator


def test_a_patch_has_seventy_pixels() -> None:
    network = PatchDiscriminator(3, 4, 3)
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x  # type: ignore[method-assign]  # norms look at the whole picture
    picture = torch.rand(1, 3, 128, 128, requires_grad=True)
    logits = network(picture)[0][-1]
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    assert picture.grad is not None
    seen = picture.grad[0].abs().sum(0) > 0
    assert int(seen.any(1).sum()) == int(seen.any(0).sum()) == 70


@pytest.mark.parametrize("kind", ["pictures", "sounds"])
def test_samples_do_not_depend_on_their_neighbours(kind: str) -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(3, 8, 2) if kind == "pictures" else SpectrumDiscriminator(2, (128, 64), 4)
    media = torch.randn((3, 3, 32, 32) if kind == "pictures" else (3, 2, 1024))
    together, alone = network(media), network(media[1:2])
    for a, b in zip(together, alone, strict=True):
        assert all(torch.allclose(x[1:2], y, atol=1e-5) for x, y in zip(a, b, strict=True))
    assert all(len(scale) > 3 and scale[-1].shape[1] == 1 for scale in together)


@settings(max_examples=8, deadline=None)
@given(layers=st.integers(1, 3), height=st.integers(0, 17), width=st.integers(0, 17), span=st.integers(1, 3))
def test_every_picture_that_is_large_enough_is_judged(layers: int, height: int, width: int, span: int) -> None:
    smallest = 3 * 2**layers
    network = PatchDiscriminator(3 * span, 4, layers)
    (seen,) = network(torch.rand(1, 3 * span, smallest + height, smallest + width))
    assert min(seen[-1].shape) >= 1 and bool(torch.isfinite(seen[-1]).all())


@settings(max_examples=8, deadline=None)
@given(channels=st.integers(1, 2), samples=st.integers(257, 2000))
def test_every_sound_that_is_long_enough_is_judged(channels: int, samples: int) -> None:
    network = SpectrumDiscriminator(channels, (512, 128), 4)
    seen = network(torch.rand(1, channels, samples) - 0.5)
    assert len(seen) == 2
    for window, scale in zip((512, 128), seen, strict=True):
        # Frames are never skipped; bins are halved three times.
        assert scale[-1].shape[2] == 1 + samples // (window // 4) and scale[-1].shape[3] == window // 16 + 1


def test_its_signal_keeps_its_size() -> None:
    torch.manual_seed(0)
    (seen,) = SpectrumDiscriminator(1, (256,), 32)(torch.randn(2, 1, 4096))
    deviations = [float(x.detach().std()) for x in seen]
    assert max(deviations) / min(deviations) < 10
