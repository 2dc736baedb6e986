"""Layouts: what a mapping file says is what comes out, and what cannot be is refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from selfflow_mm.errors import UserError
from selfflow_robotics.episode import Episode, Feature
from selfflow_robotics.layouts import Layout, Part, Range, choose_layout, named_layouts
from tests.robotics.memory import LAYOUT, MemoryFiles

FRACTAL = """
format: selfflow-robot-layout
version: 1
name: mine
robot: widowx
control_rate: 10
action:
  - {column: move, scale: 0.001}
  - {column: turn, rotation: axis_angle}
  - {column: hand, gripper: relative_closing}
state: [{column: joints, start: 1, stop: 3, names: [elbow, wrist]}]
images: {front: camera}
instruction: words
terminate: {column: mode, start: 0, stop: 1}
"""


def written(tmp_path, text=FRACTAL, name="mine.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def episode(length=5, **changes):
    random = np.random.default_rng(0)
    columns = {
        "move": random.normal(size=(length, 3)).astype(np.float32) * 100,
        "turn": random.normal(size=(length, 3)).astype(np.float32),
        "hand": np.array([0, 1, 0, -1, 0], np.float32)[:length],
        "joints": random.normal(size=(length, 4)),
        "mode": np.array([[0, 1, 0]] * (length - 1) + [[1, 0, 0]], np.int32),
    }
    columns.update(changes)
    return Episode("e", length, columns, {"words": ["", b"push the cup "] + ["push"] * (length - 2)})


def test_a_mapping_file_becomes_the_house_convention(tmp_path):
    found = Layout.from_yaml(written(tmp_path)).read(given := episode())
    np.testing.assert_allclose(found.actions[:, :3], given.columns["move"] / 1000, rtol=1e-6)
    expected = Rotation.from_rotvec(given.columns["turn"]).as_euler("xyz")
    np.testing.assert_allclose(found.actions[:, 3:6], expected, atol=1e-6)
    assert found.actions[:, 6].tolist() == [1, 0, 0, 1, 1]  # open before the first closing event
    np.testing.assert_array_equal(found.states, given.columns["joints"][:, 1:3].astype(np.float32))
    assert found.state_names == ("elbow", "wrist") and found.actions.dtype == found.states.dtype == np.float32
    assert found.instruction == "push the cup"  # the first that says something
    assert found.terminate.tolist() == [False] * 4 + [True]
    assert (found.control_rate, found.robot) == (10.0, "widowx")


def test_names_need_no_data_and_agree_with_what_is_read(tmp_path):
    layout = Layout.from_yaml(written(tmp_path))
    features = {name: Feature("array", values.shape[1:]) for name, values in episode().columns.items()}
    found = layout.read(episode())
    assert layout.names(features) == (found.action_names, found.state_names)
    raw = Layout(name="raw", convention="raw", action=(Part("joints"),), images={})
    assert raw.names(features)[0] == ("joints[0]", "joints[1]", "joints[2]", "joints[3]")


def test_quaternions_of_either_order_are_turned_into_roll_pitch_yaw():
    quaternions = Rotation.random(6, random_state=1).as_quat().astype(np.float64)  # x, y, z, w
    columns = {"q": quaternions, "p": quaternions[:, [3, 0, 1, 2]]}
    parts = (Part("q", rotation="quaternion_xyzw"), Part("p", rotation="quaternion_wxyz"))
    layout = Layout(name="q", convention="raw", control_rate=1, action=parts, images={})
    found = layout.read(Episode("e", 6, columns)).actions
    expected = Rotation.from_quat(quaternions).as_euler("xyz")
    np.testing.assert_allclose(found, np.hstack([expected, expected]), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("version: 1", "version: 2"), "layout version 2"),
        (("format: selfflow-robot-layout", "format: other"), "is no layout file"),
        (("robot: widowx", "robt: widowx"), "robt"),
        (("relative_closing", "backwards"), "backwards"),
        (("control_rate: 10", "control_rate: -1"), "control_rate"),
        (
            ("rotation: axis_angle", "rotation: axis_angle, gripper: absolute_opening"),
            "'turn' is given as a rotation and",
        ),
        (("action:\n  - {column: move, scale: 0.001}", "action:\n  - {scale: 0.001}"), "column"),
    ],
)
def test_a_wrong_mapping_file_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        Layout.from_yaml(written(tmp_path, FRACTAL.replace(*change)))


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        Layout.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        Layout.from_yaml(tmp_path / "bytes.yaml")


def test_what_the_data_do_not_have_is_named(tmp_path):
    layout = Layout.from_yaml(written(tmp_path))
    lacking = episode()
    del lacking.columns["move"]
    with pytest.raises(UserError, match="takes the action from 'move', which episode e does not have"):
        layout.read(lacking)
    with pytest.raises(UserError, match="entries 1 to 3 of 'joints', which has 2"):
        layout.read(episode(joints=np.zeros((5, 2))))
    with pytest.raises(UserError, match="gives actions of 8 numbers"):
        layout.read(episode(move=np.zeros((5, 4))))
    with pytest.raises(UserError, match="2 names for 1"):
        Layout(name="n", convention="raw", control_rate=1, action=(Part("hand", names=("a", "b")),), images={}).read(
            episode()
        )
    with pytest.raises(UserError, match="control rate"):
        Layout(name="n", convention="raw", action=(Part("hand"),), images={}).read(episode())


def test_the_data_sets_rate_is_taken_where_the_layout_tells_none():
    layout = Layout(name="n", convention="raw", action=(Part("hand"),), images={})
    assert layout.read(episode(), fps=7.5).control_rate == 7.5


def test_an_end_mark_may_be_one_of_many_or_absent():
    columns = {"hand": np.zeros(3), "done": np.array([False, True, True])}
    common = {"name": "n", "convention": "raw", "control_rate": 1.0, "action": (Part("hand"),), "images": {}}
    marked = Layout(**common, terminate=Range("done")).read(Episode("e", 3, columns))
    assert marked.terminate.tolist() == [False, True, True]
    assert Layout(**common).read(Episode("e", 3, columns)).terminate.tolist() == [False, False, True]


def test_an_instruction_may_be_metadata():
    common = {"name": "n", "convention": "raw", "control_rate": 1.0, "action": (Part("hand"),), "images": {}}
    read = Layout(**common, instruction="task").read
    assert read(Episode("e", 1, {"hand": np.zeros(1)}, metadata={"task": b"open it"})).instruction == "open it"
    assert read(Episode("e", 1, {"hand": np.zeros(1)})).instruction == ""


def test_the_layouts_that_ship_are_valid_and_called_as_their_files():
    for name, path in named_layouts().items():
        assert Layout.from_yaml(path).name == name
    assert {"fractal20220817_data", "bridge_dataset", "bridge"} <= named_layouts().keys()


def test_the_example_in_the_docs_is_valid(repository, tmp_path):
    page = (repository / "docs/robot-data.md").read_text()
    layout = Layout.from_yaml(written(tmp_path, page.split("```yaml\n")[1].split("```")[0]))
    assert layout.name == "my_arm" and len(layout.action) == 3 and layout.images.keys() == {"front", "wrist"}


def test_uses_says_what_each_column_is_for():
    assert LAYOUT.uses() == {
        "action": "action",
        "observation/state": "state",
        "observation/image": "image front",
        "language_instruction": "instruction",
    }


class TestChoosing:
    def test_the_file_beside_the_data_comes_first(self, tmp_path):
        files = MemoryFiles([[1]], folder=tmp_path, name="bridge_dataset")
        text = "format: selfflow-robot-layout\nversion: 1\nname: beside\nconvention: raw\naction: [{column: action}]\n"
        written(tmp_path, text + "images: {a: observation/image}\n", "layout.yaml")
        assert choose_layout(files).name == "beside"

    def test_then_the_name_then_the_columns(self, tmp_path):
        files = MemoryFiles([[1]], folder=tmp_path)
        files.features |= {"observation/image_0": Feature("picture", (8, 8, 3), "uint8")}
        assert choose_layout(files).name == "bridge_dataset"  # by its columns
        files.features = {
            "action/world_vector": Feature("array", (3,)),
            "action/rotation_delta": Feature("array", (3,)),
            "action/open_gripper": Feature("array", (), "bool"),
            "observation/state": Feature("array", (7,)),
            "observation/image": Feature("picture", (8, 8, 3), "uint8"),
        }
        assert choose_layout(files).name == "bridge"

    def test_none_that_fits_lists_the_columns(self, tmp_path):
        files = MemoryFiles([[1]], folder=tmp_path)
        files.features = {"torque": Feature("array", (3,))}
        with pytest.raises(UserError, match="no known layout fits .* its columns are torque"):
            choose_layout(files)
        with pytest.raises(UserError, match="there is no layout 'nonsense'; give a file, or one of bridge"):
            choose_layout(files, "nonsense")
        with pytest.raises(UserError, match="'bridge' does not fit .* there is no column action/open_gripper"):
            choose_layout(files, "bridge")

    def test_lerobot_names_speak_for_themselves(self, tmp_path):
        files = MemoryFiles([[1]], folder=tmp_path, format="LeRobot v3.0", description={"robot_type": "so100"})
        files.features = {
            "action": Feature("array", (7,), names=("x", "y", "z", "roll", "pitch", "yaw", "gripper")),
            "observation.state": Feature("array", (2,), names=("a", "b")),
            "observation.images.top": Feature("picture", (8, 8, 3), "uint8", "video"),
        }
        layout = choose_layout(files)
        assert layout.convention == "pose" and layout.images == {"top": "observation.images.top"}
        files.features["action"] = Feature("array", (6,), names=tuple("abcdef"))
        layout = choose_layout(files)
        assert layout.convention == "raw" and layout.robot == "so100"
        assert layout.names(files.features) == (tuple("abcdef"), ("a", "b"))
