"""The features of ``fractal20220817_data`` 0.1.0, RT-1's data set, so that other episodes can be written in its layout.

Names, shapes, types and words are those of the catalogue of TensorFlow Datasets.
"""

from __future__ import annotations

from ..episode import Feature
from .treemaking import make_tree

__all__ = ["FRACTAL_FEATURES", "FRACTAL_METADATA", "FRACTAL_NAME", "FRACTAL_TREE", "FRACTAL_VERSION"]

FRACTAL_NAME, FRACTAL_VERSION = "fractal20220817_data", "0.1.0"


def _floats(*shape: int, about: str = "") -> Feature:
    return Feature("array", shape, "float32", description=about)


def _flag() -> Feature:
    return Feature("array", (), "bool")


_TEXT = Feature("text", (), "str")

FRACTAL_FEATURES: dict[str, Feature] = {
    "action/base_displacement_vector": _floats(2),
    "action/base_displacement_vertical_rotation": _floats(1),
    "action/gripper_closedness_action": _floats(1, about="continuous gripper position"),
    "action/rotation_delta": _floats(3, about="rpy commanded orientation displacement, in base-relative frame"),
    "action/terminate_episode": Feature("array", (3,), "int32"),
    "action/world_vector": _floats(3, about="commanded end-effector displacement, in base-relative frame"),
    "is_first": _flag(),
    "is_last": _flag(),
    "is_terminal": _flag(),
    "observation/base_pose_tool_reached": _floats(7, about="end-effector base-relative position+quaternion pose"),
    "observation/gripper_closed": _floats(1),
    "observation/gripper_closedness_commanded": _floats(1, about="continuous gripper position"),
    "observation/height_to_bottom": _floats(1, about="height of end-effector from ground"),
    "observation/image": Feature("picture", (256, 320, 3), "uint8", "jpeg"),
    "observation/natural_language_embedding": _floats(512),
    "observation/natural_language_instruction": _TEXT,
    "observation/orientation_box": _floats(2, 3),
    "observation/orientation_start": _floats(4),
    "observation/robot_orientation_positions_box": _floats(3, 3),
    "observation/rotation_delta_to_go": _floats(3, about="rotational displacement from current orientation to target"),
    "observation/src_rotation": _floats(4),
    "observation/vector_to_go": _floats(3, about="displacement from current end-effector position to target"),
    "observation/workspace_bounds": _floats(3, 3),
    "reward": _floats(),
}
"""Of each step, under the names that episodes have."""

FRACTAL_METADATA: dict[str, Feature] = {
    f"aspects/{name}": _flag() for name in ("already_success", "feasible", "has_aspects", "success", "undesirable")
}
"""Of whole episodes: what raters said, and numbers and names of how and where an episode was recorded."""

for _name in ("collection_mode", "data_type", "env", "location", "objects_family", "task_family"):
    FRACTAL_METADATA[f"attributes/{_name}"] = Feature("array", (), "int64")
    FRACTAL_METADATA[f"attributes/{_name}_name"] = _TEXT

FRACTAL_TREE = make_tree(FRACTAL_FEATURES, FRACTAL_METADATA)
"""``features.json`` of the data set."""
