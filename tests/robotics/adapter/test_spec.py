"""What a robot model sees and gives: units, times, and the file that holds them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from selfflow_mm.errors import UserError
from selfflow_robotics.actions.normalise import normaliser
from selfflow_robotics.adapter.spec import RobotSpec
from tests.robotics.tiny_robot import make_spec


@pytest.mark.parametrize("count", [2, 0])
def test_a_saved_spec_comes_back_bit_for_bit(tmp_path, count):
    spec = make_spec(state_count=count, video_rate=24.0, state_optional=False, tasks=("policy",))
    spec.save(tmp_path)
    again = RobotSpec.load(tmp_path)
    assert again == spec
    assert again.statistics.digest == spec.statistics.digest
    again.save(tmp_path / "b")
    assert (tmp_path / "b/robot.json").read_bytes() == (tmp_path / "robot.json").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"robot.json", "b"}  # nothing half-written


def test_every_field_is_in_the_file(tmp_path):
    """A field that is forgotten in one of the two directions would come back as its default."""
    changed = make_spec(
        horizon=5, control_rate=5.0, video_rate=20.0, height=48, width=80, fit="pad", robot="widowx",
        tasks=("world", "video"), state_optional=False, camera="wrist", relative_to="chunk", video_tokens="changes",
        actions=normaliser("gaussian", make_spec().statistics.actions),
    )  # fmt: skip
    plain = make_spec()
    changed.save(tmp_path)
    again = RobotSpec.load(tmp_path)
    same = {"action_names", "state_names", "states", "statistics"}
    for field in dataclasses.fields(RobotSpec):
        assert getattr(again, field.name) == getattr(changed, field.name)
        assert (getattr(again, field.name) == getattr(plain, field.name)) == (field.name in same), field.name


@given(hnp.arrays(np.float32, (2, 5, 7), elements=st.floats(-0.5, 0.5, width=32)))
def test_actions_relative_to_the_chunk_are_sums_of_motions_and_come_back(raw):
    """``normalised - still`` is raw / scale, whose sums are the raw sums / scale; the gripper is what it was."""
    raw[..., 6] = np.abs(raw[..., 6])
    spec, plain = make_spec(horizon=16, relative_to="chunk"), make_spec(horizon=16)
    seen = spec.seen_actions(raw)
    scale = np.asarray(plain.actions.scale)[:6]
    np.testing.assert_allclose(seen[..., :6], np.cumsum(raw[..., :6], axis=-2) / scale / (4 / 3), atol=1e-5)
    np.testing.assert_array_equal(seen[..., 6], plain.seen_actions(raw)[..., 6])
    np.testing.assert_allclose(spec.raw_actions(seen), raw, atol=1e-5)
    # A robot that holds still stays where it is, whatever normalisation makes of zero.
    held = spec.seen_actions(np.concatenate([raw, np.zeros_like(raw)], axis=1))[:, 5:, :6]
    np.testing.assert_allclose(held, np.broadcast_to(seen[:, -1:, :6], held.shape), atol=1e-4)


def test_sums_of_what_is_no_motion_are_refused():
    names = tuple(f"joint_{k}" for k in range(7))
    with pytest.raises(UserError, match=r"relative_to=chunk sums motions .* set relative_to=step"):
        make_spec(action_names=names, relative_to="chunk")
    with pytest.raises(UserError, match="relative_to is 'step' or 'chunk', got 'world'"):
        make_spec(relative_to="world")
    with pytest.raises(UserError, match="video_tokens is 'frames' or 'changes', got 'flow'"):
        make_spec(video_tokens="flow")


def broken(tmp_path, change):
    make_spec().save(tmp_path)
    file = tmp_path / "robot.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    with pytest.raises(UserError) as caught:
        RobotSpec.load(tmp_path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_robot_model_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match="is no robot model: it has no robot.json; make one with 'selfflow-mm finetune"):
        RobotSpec.load(tmp_path)
    (tmp_path / "robot.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        RobotSpec.load(tmp_path)
    (tmp_path / "robot.json").write_text("[]")
    with pytest.raises(UserError, match="its format is not 'selfflow-robot'"):
        RobotSpec.load(tmp_path)
    assert "its format is not" in broken(tmp_path, lambda data: data.update(format="selfflow-model"))
    assert "version 2; this program reads version 1" in broken(tmp_path, lambda data: data.update(version=2))
    for change in (lambda data: data.pop("statistics"), lambda data: data.update(statistics=None)):
        sentence = broken(tmp_path, change)
        assert "no statistics" in sentence and "robot-data stats" in sentence
    assert "not whole: KeyError('horizon')" in broken(tmp_path, lambda data: data.pop("horizon"))
    assert "not whole" in broken(tmp_path, lambda data: data.update(control_rate="fast"))
    assert "no transform 'magic'" in broken(tmp_path, lambda data: data.update(actions={"transform": "magic"}))


def test_statistics_that_were_edited_are_refused(tmp_path):
    def wider(data):
        data["statistics"]["actions"]["q99"][0] *= 2

    assert "digest" in broken(tmp_path, wider)


ROWS = st.floats(-30, 30, width=32)


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 4), st.just(7)), elements=ROWS))
def test_what_the_model_sees_goes_back_to_raw_units(raw):
    spec = make_spec()
    raw[..., 6] = np.clip(raw[..., 6], 0, 1)
    seen = spec.seen_actions(raw)
    assert seen.dtype == np.float32 and seen.shape == raw.shape
    again = spec.raw_actions(seen)
    shift = np.array(spec.actions.shift)
    assert np.all(np.abs(again - raw) <= 2.0**-23 * (np.abs(raw - shift) + np.abs(raw)) + 1e-30)


def test_normalisation_by_hand():
    spec = make_spec()
    low, high = (np.array(q, np.float32) for q in (spec.statistics.actions.q01, spec.statistics.actions.q99))
    middle = (low + high) / 2
    seen = spec.seen_actions(np.stack([low, middle, high]))
    assert seen[:, :6] == pytest.approx(np.repeat([[-1.0], [0], [1]], 6, axis=1), abs=1e-6)
    # The gripper knows no statistics: closed is -1 and open is 1.
    rows = np.zeros((2, 7), np.float32)
    rows[1, 6] = 1
    assert spec.seen_actions(rows)[:, 6].tolist() == [-1, 1]
    mean, std = (np.array(v) for v in (spec.statistics.states.mean, spec.statistics.states.std))
    states = np.stack([mean, mean + std, mean - 2 * std])
    assert spec.seen_states(states) == pytest.approx(np.repeat([[0.0], [1], [-2]], 2, axis=1), abs=1e-6)


def test_a_gripper_is_brought_into_what_a_robot_takes_and_nothing_else_is():
    spec = make_spec()
    seen = np.full((2, 7), 3.0, np.float32)
    seen[1] = -3.0
    raw = spec.raw_actions(seen)
    assert raw[:, 6].tolist() == [1, 0]
    scale, shift = np.array(spec.actions.scale), np.array(spec.actions.shift)
    assert raw[:, :6] == pytest.approx((seen * scale + shift)[:, :6], rel=1e-6)
    assert (seen[0] == 3).all()  # what was given is not changed


def test_rows_of_another_width_are_refused():
    spec = make_spec()
    for change in (spec.seen_actions, spec.raw_actions):
        with pytest.raises(UserError, match="actions have 7 numbers each, got 8"):
            change(np.zeros((2, 8)))
    with pytest.raises(UserError, match="states have 2 numbers each, got 7"):
        spec.seen_states(np.zeros((2, 7)))
    with pytest.raises(UserError, match="takes no state"):
        make_spec(state_count=0).seen_states(np.zeros((2, 2)))


def test_the_papers_clip_has_49_frames():
    """RT-1 acts at 3 Hz; 6 actions at 24 frames a second."""
    spec = make_spec(horizon=6, control_rate=3.0, video_rate=24.0)
    assert spec.frames_per_action == 8
    assert spec.frames(6) == 49
    assert spec.after_each_action(6).tolist() == [8, 16, 24, 32, 40, 48]
    assert spec.frames(1) == 9


@given(st.sampled_from([1, 2.5, 3, 5, 7, 10, 15, 29.97, 1 / 3]), st.integers(1, 16), st.integers(1, 40))
def test_frames_fall_on_the_ends_of_actions(rate, multiple, count):
    spec = make_spec(control_rate=rate, video_rate=rate * multiple)
    assert spec.frames_per_action == multiple
    # The last frame is the one that the last action leads to, and frame j is seen at second j / video_rate.
    after = spec.after_each_action(count)
    assert after[-1] == spec.frames(count) - 1 and len(after) == count
    assert after / spec.video_rate == pytest.approx(np.arange(1, count + 1) / rate, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"video_rate": 4.0}, "no whole multiple of the control rate 3"),
        ({"video_rate": 1.5}, "no whole multiple"),
        ({"horizon": 0}, "horizon is at least 1"),
        ({"control_rate": 0.0}, "control_rate is a number per second above 0"),
        ({"video_rate": float("inf")}, "video_rate is a number per second above 0"),
        ({"states": None}, "others have neither"),
        ({"state_names": ()}, "others have neither"),
    ],
)
def test_impossible_specs(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        make_spec(**changes)


def test_pictures_of_any_size_become_the_models():
    spec = make_spec(height=16, width=24, fit="pad")
    found = spec.pictures(np.full((2, 3, 32, 32, 3), 200, np.uint8))
    assert found.shape == (2, 3, 16, 24, 3)
    # Proportions are kept: 16 of 24 columns are picture, four on each side are black.
    assert (found[..., 4:20, :] == 200).all() and (found[..., :4, :] == 0).all() and (found[..., 20:, :] == 0).all()
