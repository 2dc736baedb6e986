"""What a policy's pictures and numbers mean, said out loud and saved with every result.

Figures of SIMPLER are disagreed about because of these: the gripper's sign, whether its command sticks, and
whether three numbers are angles or a rotation vector. See also :mod:`selfflow_robotics.actions.simpler`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from selfflow_mm.errors import UserError

from ..actions.gripper_control import STICKY, GoogleRobotGripper, GripperControl, WidowXGripper
from ..actions.grippers import CONVENTIONS, to_house
from ..actions.rotations import rpy_to_axis_angle
from ..interfaces import PolicyAbout
from ..resizing import Fit, resize
from ..robot_episode import ACTION_NAMES, GRIPPER

__all__ = ["PRESETS", "Control", "PolicyConventions", "preset"]

TERMINATE = "terminate"
#: Of the policy's gripper column, besides the affine ones of :mod:`selfflow_robotics.actions.grippers`: what the robot
#: takes, handed on as it is.
COMMAND = "command"
_GRIPPERS = (COMMAND, *(name for name in CONVENTIONS if name != "relative_closing"))


@dataclass(frozen=True)
class PolicyConventions:
    """How a policy's seven numbers become a robot's command, and what it sees.

    Attributes:
        rotation: what columns 3 to 5 are: ``rpy`` (roll, pitch, yaw) or ``axis_angle``.
        gripper: what column 6 is: ``absolute_opening`` (1 open, 0 closed), ``absolute_closing``, ``signed_opening`` (1
            open, -1 closed), ``signed_closing``, or ``command``: what the robot takes, as it is.
        by: how the Google robot's gripper is told of it: ``level`` or ``change``, see
            :class:`selfflow_robotics.actions.gripper_control.GoogleRobotGripper`.
        sticky: steps for which the Google robot's gripper command is repeated; 1 for none.
        scale: of all six motions, as the evaluator's ``--action-scale``.
        image_size: (height, width) that pictures are brought to before the policy sees them; None: as they come.
        fit: how (:func:`selfflow_robotics.resizing.resize`).

    Raises:
        UserError: a value that it cannot be.
    """

    rotation: Literal["rpy", "axis_angle"] = "rpy"
    gripper: str = "absolute_opening"
    by: Literal["level", "change"] = "level"
    sticky: int = STICKY
    scale: float = 1.0
    image_size: tuple[int, int] | None = None
    fit: Fit = "pad"

    def __post_init__(self) -> None:
        if self.rotation not in ("rpy", "axis_angle"):
            raise UserError(f"a policy's rotation is 'rpy' or 'axis_angle', not '{self.rotation}'")
        if self.gripper not in _GRIPPERS:
            raise UserError(f"a policy's gripper is one of {', '.join(_GRIPPERS)}, not '{self.gripper}'")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise UserError(f"actions are scaled by a number above 0, not {self.scale}")
        if self.fit not in ("pad", "stretch"):
            raise UserError(f"pictures are fitted by 'pad' or 'stretch', not by '{self.fit}'")
        if self.image_size is not None and (len(self.image_size) != 2 or min(self.image_size) < 1):
            raise UserError(f"a picture has a height and a width of at least 1, not {self.image_size}")
        GoogleRobotGripper(self.sticky, self.by)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return asdict(self)

    def picture(self, image: np.ndarray) -> np.ndarray:
        """What the policy sees of ``(H, W, 3)`` uint8."""
        return image if self.image_size is None else resize(image, self.image_size, self.fit)


#: Name -> conventions. ``ours``: what this project's fine-tuning gives. ``rt-1``: RT-1's checkpoints as SIMPLER runs
#: them (its rt1_model.py). ``octo``: as its octo_model.py. ``openpi``: policies on an openpi server that were trained
#: on Open-X's form of the data, as open-pi-zero runs them.
PRESETS: dict[str, PolicyConventions] = {
    "ours": PolicyConventions(),
    "rt-1": PolicyConventions(rotation="axis_angle", gripper=COMMAND, sticky=1, image_size=(256, 320)),
    "rt-1-widowx": PolicyConventions(gripper="signed_closing", image_size=(256, 320)),
    "octo": PolicyConventions(by="change", image_size=(256, 256), fit="stretch"),
    "openpi": PolicyConventions(image_size=(224, 224)),
    # One command moves the tabletop's gripper all the way, so nothing needs repeating there.
    "tabletop": PolicyConventions(sticky=1),
}


def preset(name: str, **changes: Any) -> PolicyConventions:
    """The conventions of that name, with some values changed; changes that are None are none.

    Raises:
        UserError: an unknown name, or a value that it cannot be.
    """
    if name not in PRESETS:
        raise UserError(f"there are no conventions '{name}'; there are {', '.join(PRESETS)}")
    known = {field.name for field in fields(PolicyConventions)}
    assert set(changes) <= known
    return replace(PRESETS[name], **{key: value for key, value in changes.items() if value is not None})


class Control:
    """Actions of one episode, in the order in which they are carried out, into a robot's commands.

    Args:
        about: of the policy; its columns are the house's seven, and ``terminate`` may follow.
        conventions: of its numbers.
        robot: of the trial (``google_robot_static``, ``widowx``, ..., or ``tabletop``), or ``house`` for who takes the
            house's actions.

    Raises:
        UserError: a policy with other columns.
    """

    def __init__(self, about: PolicyAbout, conventions: PolicyConventions, robot: str) -> None:
        if about.action_names not in (ACTION_NAMES, (*ACTION_NAMES, TERMINATE)):
            raise UserError(
                f"a suite's robots take {', '.join(ACTION_NAMES)} (and {TERMINATE}); {about.name} gives "
                f"{', '.join(about.action_names)}"
            )
        self._conventions = conventions
        self._house = robot == "house"
        self._terminates = TERMINATE in about.action_names
        self._gripper: GripperControl
        if robot.startswith("widowx"):
            self._gripper = WidowXGripper()
        else:
            self._gripper = GoogleRobotGripper(conventions.sticky, conventions.by)

    def commands(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """``(n, D)`` -> commands ``(n, 7)`` float64; and ``(n,)`` bool: the policy says that it is done; or None."""
        how = self._conventions
        values = np.asarray(actions, np.float64)
        terminate = values[:, 7] > 0.5 if self._terminates else None
        if self._house:
            return values[:, :7], terminate
        turns = values[:, 3:6]
        if how.rotation == "rpy":
            turns = rpy_to_axis_angle(turns)
        gripper = values[:, GRIPPER]
        if how.gripper != COMMAND:
            gripper = np.array([self._gripper.step(float(opening)) for opening in to_house(gripper, how.gripper)])
        commands = np.concatenate([how.scale * values[:, :3], how.scale * turns, gripper[:, None]], axis=1)
        return commands, terminate
