"""A robot's state as policies were trained to take it, from what a simulator tells of its hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from ..actions.rotations import matrix_to_quaternion, quaternion_to_matrix, quaternion_to_rpy, xyzw_from_wxyz
from ..interfaces import PolicyAbout

__all__ = ["KNOWN", "check_state", "state_of"]

#: Names that a state may be made of: RT-1's layout (``base_pose_tool_reached``, ``gripper_closed``) and Bridge's.
KNOWN = ("x", "y", "z", "qx", "qy", "qz", "qw", "roll", "pitch", "yaw", "gripper_closed", "gripper")


def check_state(about: PolicyAbout) -> None:
    """UserError where a policy needs a state that no simulator here tells."""
    strange = [name for name in about.state_names if name not in KNOWN]
    if about.needs_state and strange:
        raise UserError(
            f"{about.name} needs a state with '{strange[0]}', which the simulator does not tell; it tells "
            f"{', '.join(KNOWN)}"
        )


def state_of(about: PolicyAbout, moment: Mapping[str, Any]) -> np.ndarray | None:
    """``(S,)`` float32 of ``about.state_names``; None where the policy takes none, or one that is not told.

    Args:
        about: of the policy.
        moment: with ``tcp_pose`` and ``base_pose`` (7,) in one frame, w first, and ``gripper_closed``; see
            :class:`selfflow_robotics.simpler.worker.World`. The hand's place is told in the base's frame, in metres
            and radians; ``gripper`` is its opening (1 open).
    """
    if not about.state_names or not set(about.state_names) <= set(KNOWN) or moment.get("tcp_pose") is None:
        return None
    tool, base = np.asarray(moment["tcp_pose"]), np.asarray(moment["base_pose"])
    back = quaternion_to_matrix(base[3:]).T
    place = back @ (tool[:3] - base[:3])
    turn = matrix_to_quaternion(back @ quaternion_to_matrix(tool[3:]))
    closed = moment.get("gripper_closed")
    told = dict(zip(("x", "y", "z"), place, strict=True))
    told |= dict(zip(("qx", "qy", "qz", "qw"), xyzw_from_wxyz(turn), strict=True))
    told |= dict(zip(("roll", "pitch", "yaw"), quaternion_to_rpy(turn), strict=True))
    if closed is not None:
        told |= {"gripper_closed": closed, "gripper": 1 - closed}
    if not set(about.state_names) <= set(told):
        return None
    return np.array([told[name] for name in about.state_names], np.float32)
