"""Windows against their definition in exact fractions, and what they decode."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_robotics.robot_episode import RobotEpisode
from selfflow_robotics.windows import WindowSpec, cut, starts

_RATES = st.sampled_from([Fraction(1, 2), Fraction(1), Fraction(3), Fraction(5), Fraction(10), Fraction(7, 3)])


class _Recorded:
    """Pictures whose value is their step, and a list of what was asked for."""

    def __init__(self, length: int, offset: int = 0) -> None:
        self.length, self.offset, self.asked = length, offset, [list[int]()][:0]

    def __len__(self) -> int:
        return self.length

    def read(self, steps: Sequence[int] | None = None) -> np.ndarray:
        assert steps is not None
        self.asked.append(list(steps))
        return np.array(steps, np.uint8)[:, None, None, None] + np.uint8(self.offset) + np.zeros((1, 2, 3, 3), np.uint8)


def _episode(length: int, rate: Fraction | float = 3, **more: Any) -> RobotEpisode:
    generator = np.random.default_rng(length)
    settings: dict[str, Any] = dict(
        id="e",
        robot="google_robot",
        control_rate=float(rate),
        actions=generator.normal(size=(length, 7)).astype(np.float32),
        states=generator.normal(size=(length, 4)).astype(np.float32),
        images={"main": _Recorded(length), "wrist": _Recorded(length, 100)},
        instruction="pick",
        terminate=np.arange(length) == length - 1,
        state_names=("a", "b", "c", "d"),
    )
    return RobotEpisode(**(settings | more))


@given(
    length=st.integers(1, 12),
    start=st.integers(-4, 15),
    actions=st.integers(1, 8),
    frames=st.integers(1, 9),
    rate=_RATES,
    video_rate=st.none() | _RATES,
    history=st.integers(0, 3),
)
def test_the_definition(
    length: int,
    start: int,
    actions: int,
    frames: int,
    rate: Fraction,
    video_rate: Fraction | None,
    history: int,
) -> None:
    episode = _episode(length, rate)
    spec = WindowSpec(actions, frames, None if video_rate is None else float(video_rate), history)
    window = cut(episode, start, spec)
    begin = Fraction(start - history) / rate  # in seconds of the episode
    assert window.present == pytest.approx(float(history / rate))

    assert len(window.actions) == len(window.states) == len(window.terminate) == history + actions
    for k in range(history + actions):
        step = (begin + k / rate) * rate
        assert step.denominator == 1
        assert window.action_times[k] == pytest.approx(float(k / rate))
        assert window.action_mask[k] == window.state_mask[k] == (0 <= step < length)
        if window.action_mask[k]:
            assert np.array_equal(window.actions[k], episode.actions[int(step)])
            assert np.array_equal(window.states[k], episode.states[int(step)])
            assert window.terminate[k] == (step == length - 1)
        else:
            edge = 0 if step < 0 else -1
            assert window.actions[k].tolist() == [0] * 6 + [episode.actions[edge, 6]]
            assert np.array_equal(window.states[k], episode.states[edge])

    assert window.video.shape == (frames, 2, 3, 3) and window.video.dtype == np.uint8
    for j in range(frames):
        time = j / (video_rate or rate)
        shown = np.floor((begin + time) * rate)  # the nearest picture that is not from the future
        assert window.frame_times[j] == pytest.approx(float(time))
        assert window.frame_mask[j] == (0 <= shown < length)
        assert window.frame_steps[j] == np.clip(shown, 0, length - 1)
        assert np.all(window.video[j] == window.frame_steps[j])


@given(st.integers(1, 12), st.integers(-3, 15), st.integers(1, 8), st.integers(1, 9), _RATES, _RATES)
def test_only_the_distinct_pictures_are_decoded(
    length: int, start: int, actions: int, frames: int, rate: Fraction, video_rate: Fraction
) -> None:
    episode = _episode(length, rate)
    window = cut(episode, start, WindowSpec(actions, frames, float(video_rate)))
    main, wrist = episode.images["main"], episode.images["wrist"]
    assert isinstance(main, _Recorded) and isinstance(wrist, _Recorded)
    assert main.asked == [sorted(set(window.frame_steps.tolist()))] and wrist.asked == []


@given(st.integers(0, 15), st.integers(1, 8), st.integers(1, 9), _RATES, _RATES, st.integers(0, 3), st.integers(1, 4))
def test_starts(
    length: int, actions: int, frames: int, rate: Fraction, video_rate: Fraction, history: int, stride: int
) -> None:
    settings = dict(video_rate=float(video_rate), history=history)
    anywhere = starts(length, WindowSpec(actions, frames, stride=stride, **settings), float(rate))  # type: ignore[arg-type]
    assert anywhere.tolist() == list(range(0, length, stride))
    inside = WindowSpec(actions, frames, padding=False, **settings)  # type: ignore[arg-type]
    episode = _episode(length, rate)
    whole = [
        start
        for start in range(length)
        if (window := cut(episode, start, inside)).action_mask.all() and window.frame_mask.all()
    ]
    assert starts(length, inside, float(rate)).tolist() == whole


def test_a_window_is_a_function_of_its_arguments() -> None:
    episode, spec = _episode(6), WindowSpec(4, 3, video_rate=1.5, history=1)
    before = episode.actions.copy()
    first, _, again = cut(episode, 4, spec), cut(episode, 2, spec), cut(episode, 4, spec)
    for name in ("video", "frame_times", "frame_mask", "actions", "action_times", "action_mask", "states"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert np.array_equal(episode.actions, before)


def test_rates_by_hand() -> None:
    # Control at 10 Hz, pictures at 3 per second: frames at 0, 0.33 and 0.67 s show the pictures of 0, 0.3 and 0.6 s.
    assert cut(_episode(20, 10), 5, WindowSpec(1, 4, 3.0)).frame_steps.tolist() == [5, 8, 11, 15]
    # RT-1 at its own rate, at half of it, and at twice: then each picture is shown twice.
    assert cut(_episode(20), 0, WindowSpec(1, 4)).frame_steps.tolist() == [0, 1, 2, 3]
    assert cut(_episode(20), 0, WindowSpec(1, 4, 1.5)).frame_steps.tolist() == [0, 2, 4, 6]
    assert cut(_episode(20), 0, WindowSpec(1, 4, 6.0)).frame_steps.tolist() == [0, 0, 1, 1]


def test_rates_that_floats_do_not_divide() -> None:
    for tenth in range(1, 60):  # 0.3 / 0.1 is 2.9999999999999996
        spec = WindowSpec(1, 61, video_rate=tenth / 10)
        assert spec.frame_steps(3 * tenth / 10).tolist() == [3 * j for j in range(61)]


def test_cameras() -> None:
    assert np.all(cut(_episode(3), 1, WindowSpec(1, 1, camera="wrist")).video == 101)
    with pytest.raises(UserError, match="no camera 'top'; it has main, wrist"):
        cut(_episode(3), 1, WindowSpec(1, 1, camera="top"))
    with pytest.raises(UserError, match="no pictures"):
        cut(_episode(3, images={}), 1, WindowSpec(1, 1))


def test_what_cannot_be_right_is_refused() -> None:
    with pytest.raises(UserError, match="no steps"):
        cut(_episode(0), 0, WindowSpec(1, 1))
    for name in ("actions", "frames", "stride"):
        with pytest.raises(UserError, match=f"'{name}' is at least 1, not 0"):
            WindowSpec(**({"actions": 1, "frames": 1} | {name: 0}))
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="video_rate"):
            WindowSpec(1, 1, rate)
