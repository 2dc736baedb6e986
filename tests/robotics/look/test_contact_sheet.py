"""Contact sheets: the right frames in the right places, and captions that say what the picture means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageDraw

from selfflow_mm.errors import UserError
from selfflow_robotics.episode import RawPictures
from selfflow_robotics.look.contact_sheet import contact_sheet, picked_steps
from selfflow_robotics.look.instruments import ActionScale
from selfflow_robotics.look.lettering import RED

from .standin import COLOURS, BrokenPictures, episode


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, float]]:
    """(text, left edge, right edge) of everything that is written."""
    written: list[tuple[str, float, float]] = []
    real = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: Any, text: str, **how: Any) -> None:
        if not how.get("anchor"):  # lines of the caption stand flush left
            written.append((text, xy[0], xy[0] + how["font"].getlength(text)))
        else:
            written.append((text, xy[0], xy[0]))
        real(self, xy, text, **how)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return written


def places(sheet: Any, colour: np.ndarray) -> np.ndarray:
    """``(n, 2)`` (x, y) of the pixels of exactly that colour."""
    return np.argwhere((np.asarray(sheet) == colour).all(axis=-1))[:, ::-1]


@given(st.integers(1, 500), st.integers(1, 40))
def test_steps_are_picked_at_equal_distances_with_both_ends(length: int, frames: int) -> None:
    steps = picked_steps(length, frames)
    assert len(steps) == min(length, frames) and steps[0] == 0
    assert steps[-1] == (length - 1 if len(steps) > 1 else 0)
    if len(steps) > 1:
        assert np.ptp(np.diff(steps)) <= 1 and min(np.diff(steps)) >= 1


def test_frames_stand_in_reading_order_in_their_size() -> None:
    sheet = contact_sheet(episode(6, (48, 64)), columns=3, height=96)
    centres = [places(sheet, colour).mean(axis=0) for colour in COLOURS]
    assert all(len(places(sheet, colour)) == 96 * 128 for colour in COLOURS)  # 64 x 48, twice as large
    rows = [{round(y) for _, y in centres[:3]}, {round(y) for _, y in centres[3:]}]
    assert len(rows[0]) == len(rows[1]) == 1 and rows[0].pop() + 96 < rows[1].pop()
    assert [x for x, _ in centres[:3]] == sorted(x for x, _ in centres[:3])
    assert np.allclose([x for x, _ in centres[:3]], [x for x, _ in centres[3:]])


def test_fewer_frames_show_the_first_and_the_last() -> None:
    sheet = contact_sheet(episode(6), frames=2)
    assert [len(places(sheet, colour)) > 0 for colour in COLOURS] == [True, False, False, False, False, True]


@pytest.mark.parametrize("high", [48, 96, 192, 480])
def test_small_and_large_pictures_have_the_height_asked_for(high: int) -> None:
    sheet = contact_sheet(episode(1, (high, high)), height=192)
    assert np.ptp(places(sheet, COLOURS[0]), axis=0).tolist() == [191, 191]


def test_several_cameras_stand_under_each_other() -> None:
    grey = RawPictures(np.full((2, 24, 32, 1), 77, np.uint8))
    both = episode(2, (24, 32))
    both = episode(2, (24, 32), images={**both.images, "wrist": grey})
    sheet = contact_sheet(both, camera=["wrist", "front"], height=96)
    front, wrist = places(sheet, COLOURS[0]).mean(axis=0), places(sheet, np.full(3, 77))
    left = wrist[wrist[:, 0] < np.median(wrist[:, 0])].mean(axis=0)
    assert left[0] == pytest.approx(front[0], abs=1) and left[1] + 96 <= front[1]
    alone = contact_sheet(both, height=96)
    assert len(places(alone, COLOURS[0])) == 96 * 128 and len(places(alone, np.full(3, 77))) == 0


def test_the_caption_tells_what_is_needed_to_read_the_sheet(words: list[tuple[str, float, float]]) -> None:
    actions = np.tile(np.float32([0.019, 0, 0, 0, 0.0873, 0, 1]), (6, 1))
    contact_sheet(episode(6, (48, 64), actions=actions), height=96)
    text = " ".join(word for word, _, _ in words)
    for part in ("put the carrot on the plate", "train-0/3", "widowx", "5 Hz", "6 steps", "1.2 s", "step 5", "1.00 s"):
        assert part in text
    assert "1.9 cm" in text and "5°" in text and "99th percentile of this episode" in text
    assert "front: 64 x 48 enlarged 2 times (bicubic)" in text
    words.clear()
    contact_sheet(episode(1), scale=ActionScale((0.5,) * 7, "300 episodes of bridge"))
    text = " ".join(word for word, _, _ in words)
    assert "50 cm" in text and "300 episodes of bridge" in text and "28.6°" in text


@pytest.mark.parametrize(
    "text", ["word " * 300, "w" * 900, "", "première\nsuite"], ids=["words", "one word", "", "lines"]
)
def test_instructions_of_any_length_stay_on_the_sheet(text: str, words: list[tuple[str, float, float]]) -> None:
    sheet = contact_sheet(episode(2, instruction=text), frames=2)
    assert max(right for _, _, right in words) <= sheet.width
    written = "".join(word for word, _, _ in words).replace(" ", "")
    assert text.replace(" ", "").replace("\n", "") in written


def test_done_is_marked_where_the_robot_says_so() -> None:
    def red(sheet: Any) -> np.ndarray:
        return places(sheet, np.array(RED))

    assert len(red(contact_sheet(episode(6)))) == 0
    sheet = contact_sheet(episode(6, terminate=np.arange(6) == 4), columns=6)
    marked = red(sheet)
    tile = places(sheet, COLOURS[4])
    assert len(marked) > 200
    assert marked[:, 0].min() > tile[:, 0].min() and marked[:, 0].max() <= tile[:, 0].max()
    assert marked[:, 1].max() < tile[:, 1].min()


def test_other_actions_odd_numbers_and_no_camera_can_be_drawn(words: list[tuple[str, float, float]]) -> None:
    names = tuple(f"joint_{i}" for i in range(14))
    contact_sheet(episode(3, actions=np.full((3, 14), np.nan, np.float32), action_names=names))
    contact_sheet(episode(3, actions=np.ones((3, 14), np.float32), action_names=names, images={}))
    assert "13: joint_13 1" in " ".join(word for word, _, _ in words)


@settings(max_examples=12)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(96, 200),
    st.integers(1, 90),
    st.integers(1, 90),
)
def test_any_size_gives_a_sheet(steps: int, frames: int, columns: int, height: int, high: int, wide: int) -> None:
    sheet = contact_sheet(episode(steps, (high, wide)), frames=frames, columns=columns, height=height)
    assert sheet.mode == "RGB" and min(sheet.size) > height


def test_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="no camera 'wrist'; it has front"):
        contact_sheet(episode(), camera="wrist")
    with pytest.raises(UserError, match="no camera 'wrist'; it has no camera at all"):
        contact_sheet(episode(images={}), camera="wrist")
    with pytest.raises(UserError, match="no steps"):
        contact_sheet(episode(0))
    for wrong in ({"frames": 0}, {"columns": 0}, {"height": 95}):
        with pytest.raises(UserError, match="at least 1 frame"):
            contact_sheet(episode(), **wrong)
    with pytest.raises(UserError, match="step 3 cannot be decoded"):
        contact_sheet(episode(6, images={"front": BrokenPictures(6, 3)}))
