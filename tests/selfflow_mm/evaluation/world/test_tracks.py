"""Connected pixels against SciPy, and tracks of discs whose places are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from selfflow_mm.data.world.vocabulary import COLOURS
from selfflow_mm.evaluation.world.reader_net import PAINTED, PIXELS, SCREEN, crop, cut
from selfflow_mm.evaluation.world.tracks import components, follow
from selfflow_tokenizers.media import Video


@given(arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=12), elements=st.booleans()))
def test_components_are_scipys(mask: np.ndarray) -> None:
    found = components(torch.from_numpy(mask)).numpy()
    for ours, frame in zip(found, mask, strict=True):
        theirs, count = ndimage.label(frame, structure=np.ones((3, 3)))
        pairs = set(zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})  # one to one, 0 to 0
        assert all((a == 0) == (b == 0) for a, b in pairs) and len(np.unique(ours[ours > 0])) == count


class _NoNames:
    """Knows neither shapes nor materials."""

    def name(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert crops.shape[1:] == (32, 32, 4)
        return torch.zeros(len(crops), 5), torch.zeros(len(crops), 4)


def _seen(discs: list[tuple[int, np.ndarray]], screen: tuple[int, int] | None = None) -> torch.Tensor:
    """Probabilities of smooth discs of radius 7: (class, places ``(T, 2)``), later ones and the screen in front."""
    frames = len(discs[0][1])
    seen = torch.zeros(frames, len(PIXELS), 64, 64)
    seen[:, 0] = 1
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    for number, places in discs:
        for t, (a, b) in enumerate(places):
            if np.isfinite(a):
                cover = (7.5 - torch.hypot(x - a, y - b)).clamp(0, 1)
                seen[t] *= 1 - cover
                seen[t, number] += cover
    if screen:
        seen[:, :, :, screen[0] : screen[1]] = 0
        seen[:, SCREEN, :, screen[0] : screen[1]] = 1
    return seen


def _follow(seen: torch.Tensor) -> list:
    return follow(Video(torch.zeros(len(seen), 64, 64, 3, dtype=torch.uint8), 16.0), seen, _NoNames())  # type: ignore[arg-type]


def test_places_are_found_to_a_twentieth_of_a_pixel() -> None:
    t = np.arange(12)
    red = np.stack([12.3 + 2.37 * t, 20.6 + 0.21 * t**2], axis=1)
    blue = np.stack([50.0 - 0 * t, 50.0 - 2.2 * t], axis=1)
    red[5] = np.nan  # one frame is lost
    tracks = _follow(_seen([(PAINTED + COLOURS.index("red"), red), (PAINTED + COLOURS.index("blue"), blue)]))
    found = {track.colour: track for track in tracks}
    assert set(found) == {"red", "blue"}
    for colour, places in (("red", red), ("blue", blue)):
        there = np.isfinite(places[:, 0])
        assert np.array_equal(found[colour].area > 0, there)
        assert np.abs(found[colour].place - places)[there].max() < 0.05
        assert found[colour].size == pytest.approx(np.pi * 49, rel=0.02)


def test_two_of_a_colour_are_two_and_behind_a_screen_it_stays_one() -> None:
    t = np.arange(24)
    red = PAINTED + COLOURS.index("red")
    left, right = np.stack([10 + 0.5 * t, 20.0 + 0 * t], axis=1), np.stack([40 + 0.2 * t, 45.0 + 0 * t], axis=1)
    assert [track.colour for track in _follow(_seen([(red, left), (red, right)]))] == ["red", "red"]
    through = np.stack([8 + 2.1 * t, 40.0 + 0 * t], axis=1)
    [track] = _follow(_seen([(red, through)], screen=(24, 44)))
    assert track.area[12] == 0 and track.whole[0] and track.whole[-1] and track.cut[8]


def test_squares_beyond_the_border_repeat_it() -> None:
    picture = torch.arange(64 * 64).view(64, 64, 1)
    square = crop(picture, 2.0, 60.0)
    assert square.shape == (32, 32, 1)
    assert (
        square[0, 20, 0] == picture[44, 6]
        and square[0, 0, 0] == picture[44, 0]
        and square[31, 31, 0] == picture[63, 17]
    )
    assert torch.equal(cut(picture, 5, 7, 4, 3), picture[7:10, 5:9])
