"""Which clips are cut, and from where."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from selfflow_mm.errors import UserError
from selfflow_robotics.episode import EncodedPictures, Episode
from selfflow_robotics.report_card.held_out import View, choose_clips
from tests.robotics.memory import MemoryFiles, memory_source
from tests.robotics.report_card.toys import HEIGHT, WIDTH, move, squares

VIEW = View(HEIGHT, WIDTH)


@given(
    st.lists(st.integers(2, 12), min_size=2, max_size=6),
    st.sets(st.integers(1, 9), min_size=1, max_size=4).map(sorted),
    st.integers(1, 20),
    st.integers(0, 3),
)
def test_any_choice_of_clips(lengths: list[int], horizons: list[int], count: int, seed: int) -> None:
    source = squares([lengths])
    usable = [n for n in lengths if n > horizons[0]]
    if len(usable) < 2 or count < 2:
        with pytest.raises(UserError, match="two"):
            choose_clips(source, count, horizons, seed=seed, view=VIEW)
        return
    clips = choose_clips(source, count, horizons, seed=seed, view=VIEW).clips
    longest = [max(h for h in horizons if h < n) for n in usable]
    assert len(clips) == min(count, sum(n - h for n, h in zip(usable, longest, strict=True)))
    assert len({(clip.episode, clip.start) for clip in clips}) == len(clips)
    rounds = [sum(other.episode == clip.episode for other in clips[:i]) for i, clip in enumerate(clips)]
    assert rounds == sorted(rounds)  # a second clip of an episode comes after the first of every other
    for clip in clips:
        episode = source.read(*clip.place)
        assert len(clip) in horizons and clip.start + len(clip) < len(episode)
        assert np.array_equal(clip.actions, episode.actions[clip.start : clip.start + len(clip)])
        other = clips[clip.strange_clip]
        assert other.episode != clip.episode
        strange = source.read(*other.place).actions[other.start :][: len(clip)]
        assert np.array_equal(clip.strange_actions[: len(strange)], strange)
        assert not clip.strange_actions[len(strange) :, :6].any()


def test_a_clip_holds_the_picture_before_and_after_every_action() -> None:
    held_out = choose_clips(squares([[9, 7]]), 4, [3], seed=0, view=VIEW)
    for clip in held_out.clips:
        pictures = held_out.pictures(clip)
        assert pictures.shape == (4, HEIGHT, WIDTH, 3)
        for t, action in enumerate(clip.actions):
            assert np.array_equal(pictures[t + 1], move(pictures[t], action))


def test_the_choice_is_a_function_of_the_seed() -> None:
    one, same, other = (
        [clip.facts() for clip in choose_clips(squares([[20] * 12]), 8, [4], seed=seed, view=VIEW).clips]
        for seed in (1, 1, 2)
    )
    assert one == same != other


def test_clips_of_the_first_episodes_only() -> None:
    source = squares([[9, 9], [9, 9, 9]])
    held_out = choose_clips(source, 9, [4], seed=0, view=VIEW, first=3)
    assert {clip.place for clip in held_out.clips} == {(0, 0), (0, 1), (1, 0)}


def test_damaged_and_short_episodes_are_told() -> None:
    source = memory_source([[6, 2, 6, 6]], {(0, 2)})
    held_out = choose_clips(source, 9, [4], seed=0, view=VIEW)
    assert {clip.place for clip in held_out.clips} == {(0, 0), (0, 3)}
    assert sorted(held_out.skipped)[0].startswith("episode 0/1 has only 2 steps")
    assert any("checksum" in why for why in held_out.skipped)


def test_a_picture_damaged_in_mid_episode_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    source, read = memory_source([[6, 6, 6]]), MemoryFiles.read
    good = io.BytesIO()
    Pillow.new("RGB", (24, 16)).save(good, "PNG")

    def damaged(files: MemoryFiles, shard: int, index: int) -> Episode:
        frames = [good.getvalue()] * 4 + [b"no picture"] + [good.getvalue()]
        episode = read(files, shard, index)
        return replace(episode, pictures={"observation/image": EncodedPictures(frames)}) if index == 1 else episode

    monkeypatch.setattr(MemoryFiles, "read", damaged)
    held_out = choose_clips(source, 9, [4], seed=0, view=VIEW)
    assert {clip.place for clip in held_out.clips} == {(0, 0), (0, 2)}
    assert len(held_out.skipped) == 1 and all(held_out.pictures(clip).any() for clip in held_out.clips)


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(UserError, match="0 readable episodes.*left out: episode .* has no camera 'wrist'; it has"):
        choose_clips(squares([[9, 9]]), 4, [3], seed=0, view=View(HEIGHT, WIDTH, camera="wrist"))
