"""Chunks: what each holds, that it comes back, and how overlaps are joined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_robotics.actions.chunks import (
    Chunks,
    chunk,
    executed,
    join_terminate,
    padded,
    split_terminate,
    terminates_at_end,
    unchunk,
)


def _actions(length: int, seed: int = 0, width: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(length, width)).astype(np.float32)


@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 99))
def test_every_entry_is_the_episode_s_own_or_stands_still(length: int, horizon: int, seed: int) -> None:
    actions = _actions(length, seed)
    chunks = chunk(actions, horizon)
    assert chunks.actions.shape == (length, horizon, 7) and chunks.actions.dtype == np.float32
    for start in range(length):
        for k in range(horizon):
            if start + k < length:
                assert chunks.mask[start, k] and np.array_equal(chunks.actions[start, k], actions[start + k])
            else:
                assert not chunks.mask[start, k]
                assert chunks.actions[start, k].tolist() == [0] * 6 + [actions[-1, 6]]


@given(st.integers(1, 12), st.integers(1, 15), st.integers(1, 5), st.sampled_from(["first", "latest", "mean"]))
def test_chunks_come_back(length: int, horizon: int, stride: int, how: str) -> None:
    actions = _actions(length)
    starts = np.random.default_rng(1).permutation(np.arange(0, length, min(stride, horizon)))
    back = unchunk(chunk(actions, horizon, starts), starts, how)  # type: ignore[arg-type]
    assert back.dtype == np.float32
    if how == "mean":
        assert np.allclose(back, actions, rtol=1e-6)
    else:
        assert np.array_equal(back, actions)


def test_overlaps_by_hand() -> None:
    values = np.array([[[1.0], [2], [3]], [[10], [20], [30]], [[100], [200], [300]]])
    mask = np.ones((3, 3), bool)
    mask[2, 2] = False
    chunks = Chunks(values, mask)
    assert unchunk(chunks, [0, 1, 2], "first")[:, 0].tolist() == [1, 2, 3, 30]
    assert unchunk(chunks, [0, 1, 2], "latest")[:, 0].tolist() == [1, 10, 100, 200]
    assert unchunk(chunks, [0, 1, 2], "mean")[:, 0].tolist() == [1, 6, 123 / 3, 115]
    # The order in which chunks are handed over does not matter, their starts do.
    turned = Chunks(values[::-1], mask[::-1])
    assert unchunk(turned, [2, 1, 0], "first")[:, 0].tolist() == [1, 2, 3, 30]


def test_other_actions_hold_by_repeating() -> None:
    angles = _actions(3, width=7)
    chunks = chunk(angles, 4, [2], names=[f"joint {i}" for i in range(7)])
    assert np.array_equal(chunks.actions[0], np.repeat(angles[2:], 4, axis=0))


def test_before_the_first_step_the_robot_stands_still_with_the_first_gripper() -> None:
    actions = _actions(3)
    taken = padded(actions, np.array([-2, 0]))
    assert taken[0].tolist() == [0] * 6 + [actions[0, 6]] and np.array_equal(taken[1], actions[0])


def test_padding_leaves_the_episode_alone() -> None:
    actions = _actions(3)
    before = actions.copy()
    chunk(actions, 5)
    assert np.array_equal(actions, before)


def test_executed_prefix() -> None:
    actions = _actions(8).reshape(2, 4, 7)
    assert np.array_equal(executed(actions, 2), actions[:, :2])
    with pytest.raises(UserError, match="between 1 and 4"):
        executed(actions, 5)


def test_terminate_is_a_channel_that_comes_back_and_holds() -> None:
    actions, ends = _actions(4), terminates_at_end(4)
    assert ends.tolist() == [False, False, False, True] and terminates_at_end(0).shape == (0,)
    joined = join_terminate(actions, ends)
    assert joined.dtype == np.float32 and joined[:, 7].tolist() == [0, 0, 0, 1]
    # After its end an episode stays ended, and the robot still.
    names = ("x", "y", "z", "roll", "pitch", "yaw", "gripper", "terminate")
    beyond = chunk(joined, 3, [3], names).actions[0]
    assert beyond[1:].tolist() == [[0] * 6 + [actions[3, 6], 1]] * 2
    back, done = split_terminate(joined)
    assert np.array_equal(back, actions) and np.array_equal(done, ends)


def test_what_cannot_be_right_is_refused() -> None:
    with pytest.raises(UserError, match="at least one action"):
        chunk(_actions(3), 0)
    with pytest.raises(UserError, match="step 2 is in no chunk"):
        unchunk(chunk(_actions(6), 2, [0, 3]), [0, 3])
    with pytest.raises(UserError, match="not by 'median'"):
        unchunk(chunk(_actions(6), 2), how="median")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="without steps"):
        chunk(_actions(0), 2, [0])
    with pytest.raises(UserError, match="before 0"):
        unchunk(Chunks(np.zeros((1, 1, 1)), np.ones((1, 1), bool)), [-1])
