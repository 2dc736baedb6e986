"""Messages in the names of openpi's clients, and every way to get them wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import PolicyAbout
from selfflow_robotics.serving.observations import MAX_PROMPT, MAX_ROWS, read_observations

IMAGE = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
BLIND = PolicyAbout("p", 4, 5.0)
FEELING = PolicyAbout("p", 4, 5.0, state_names=("x", "y", "z"), needs_state=True)


@pytest.mark.parametrize(
    "message",
    [
        {"image": IMAGE, "state": [1, 2, 3]},
        {"observation/image": IMAGE, "observation/state": np.array([1, 2, 3], np.int16)},
        {"observation": {"image": IMAGE, "state": np.array([1, 2, 3], ">f8")}},
        {"image": IMAGE, "observation/state": np.array([1.0, 2, 3])},
        {"image": IMAGE, "state": list(np.array([1, 2, 3], np.float32))},
    ],
    ids=lambda message: " ".join(message),
)
def test_names(message: dict) -> None:
    found = read_observations({**message, "prompt": "pick"}, FEELING)
    assert not found.batched and found.ignored == ()
    (seen,) = found.observations
    assert seen.instruction == "pick" and np.array_equal(seen.image, IMAGE)
    assert seen.state is not None and seen.state.dtype == np.float32 and seen.state.tolist() == [1, 2, 3]


def test_batch() -> None:
    images = np.stack([IMAGE, IMAGE + 1])
    message = {"image": images, "prompt": ["a", "b"], "state": np.array([[1, 2, 3], [4, 5, 6]])}
    found = read_observations(message, FEELING)
    assert found.batched
    for row, seen in enumerate(found.observations):
        assert np.array_equal(seen.image, images[row]) and seen.instruction == "ab"[row]
        assert seen.state is not None and seen.state.tolist() == [3 * row + 1, 3 * row + 2, 3 * row + 3]
    one = read_observations({"image": images, "prompt": "a"}, BLIND)
    assert [seen.instruction for seen in one.observations] == ["a", "a"]


def test_unknown_keys_are_named_and_default_prompt() -> None:
    message = {"image": IMAGE, "observation/wrist_image": IMAGE, b"\xff": 1, "observation": {"joints": 1}}
    found = read_observations(message, BLIND, "do it")
    assert found.observations[0].instruction == "do it"
    assert read_observations({**message, "prompt": None}, BLIND, "do it").observations[0].instruction == "do it"
    assert found.ignored == ("observation/wrist_image", str(b"\xff"), "observation/joints")


def test_a_state_that_the_policy_does_not_take_is_checked_and_left_out() -> None:
    assert read_observations({"image": IMAGE, "prompt": "", "state": [1] * 9}, BLIND).observations[0].state is None
    with pytest.raises(UserError, match="not finite"):
        read_observations({"image": IMAGE, "prompt": "", "state": [np.inf]}, BLIND)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"image": None}, "has no picture"),
        ({"image": IMAGE.astype(np.float32)}, r"not of float32; floats in \[0, 1\] become pictures by"),
        ({"image": IMAGE.astype(np.int8)}, "not of int8"),
        ({"image": IMAGE.transpose(2, 0, 1)}, "channels come last"),
        ({"image": np.stack([IMAGE]).transpose(0, 3, 1, 2)}, "channels come last"),
        ({"image": IMAGE[..., :2]}, r"not \(2, 4, 2\)"),
        ({"image": IMAGE[0]}, r"not \(4, 3\)"),
        ({"image": IMAGE[:0]}, "empty"),
        ({"image": np.zeros((0, 2, 2, 3), np.uint8), "prompt": []}, "empty"),
        ({"image": np.zeros((MAX_ROWS + 1, 1, 1, 3), np.uint8)}, f"at most {MAX_ROWS} episodes"),
        ({"image": IMAGE.tobytes()}, "not bytes"),
        ({"observation/image": IMAGE}, "'image' twice"),
        ({"observation": {"image": IMAGE}}, "'image' twice"),
        ({"prompt": None}, "no 'prompt'"),
        ({"prompt": 3}, "'prompt' is a text, not int"),
        ({"prompt": "x" * (MAX_PROMPT + 1)}, f"at most {MAX_PROMPT} characters"),
        ({"prompt": ["a", "b"]}, "2 prompts for 1 pictures"),
        ({"state": None}, "p needs the robot's state"),
        ({"state": [1, 2]}, r"takes a state of 3 numbers \(x, y, z\), got 2"),
        ({"state": [1, 2, np.nan]}, "not finite"),
        ({"state": np.array([1, 2, 1e300])}, "not finite"),
        ({"state": [1, 2, 10**400]}, "too large"),
        ({"state": [1, 2, "3"]}, "something else"),
        ({"state": [[1, 2, 3]]}, "something else"),
        ({"state": [1, 2, np.timedelta64(3)]}, "something else"),
        ({"state": np.array(["1", "2", "3"])}, "array of numbers"),
        ({"state": "123"}, "array of numbers, not str"),
        ({"state": np.zeros((1, 3))}, "rows go together"),
        ({"state": np.zeros((1, 1, 3))}, "is \\(S,\\)"),
        ({"state": np.float32(1)}, "array of numbers, not float32"),
        ({"image": np.stack([IMAGE] * 2), "state": np.zeros(3)}, "rows go together"),
        ({"image": np.stack([IMAGE] * 2), "state": np.zeros((3, 3))}, "rows go together"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else " ".join(value),
)
def test_mistakes(changed: dict, sentence: str) -> None:
    message = {"image": IMAGE, "prompt": "pick", "state": np.zeros(3), **changed}
    message = {key: value for key, value in message.items() if value is not None}
    with pytest.raises(UserError) as caught:
        read_observations(message, FEELING)
    assert re.search(sentence, str(caught.value)), str(caught.value)
