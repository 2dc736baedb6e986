"""The tabletop as a policy meets it: house actions in, observations as its recorded episodes have them out."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image as Pillow

from selfflow_mm.errors import UserError

from ..actions.gripper_control import GoogleRobotGripper
from ..actions.rotations import xyzw_from_wxyz
from ..actions.simpler import SimplerControl
from ..interfaces import Observation, PolicyAbout
from ..robot_episode import ACTION_NAMES
from .simulation import Job, Moment

if TYPE_CHECKING:
    import gymnasium

__all__ = [
    "CONTROL_RATE",
    "STATE_NAMES",
    "TabletopOptions",
    "TabletopSimulation",
    "check_policy",
    "tabletop_observation",
]

CONTROL_RATE = 3.0
#: As the layout of RT-1 names what the recorder writes.
STATE_NAMES = ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper_closed")
_QUALITY = 90  # of filmed pictures


@dataclass(frozen=True)
class TabletopOptions:
    """How episodes on the tabletop go.

    Attributes:
        variant: how the scenes look: the environment's option of that name.
        max_steps: after which an episode is over; the task's own limit if that is lower, or for None.
        until: ``success`` ends an episode when its aim is reached; ``limit`` goes on to the last step and counts what
            is true *then*, as SIMPLER's evaluator does with a policy that never says that it is done.
        advance: what brings the second instruction of a task that has two: ``environment``, its own rule (at step 100);
            ``success``, that too, and before it the first part's success (the drawer is open).
        gripper: how the gripper's command is made, see :class:`selfflow_robotics.actions.gripper_control.
            GoogleRobotGripper`: ``level`` loses nothing; ``change`` is the rule of SIMPLER's Octo.
        sticky: steps for which a gripper command is repeated. One command moves the tabletop's gripper all the way;
            SIMPLER's needs 15.

    Raises:
        UserError: a value out of range, or an unknown variant.
    """

    variant: str | tuple[str, ...] = ("base",)
    max_steps: int | None = None
    until: Literal["success", "limit"] = "success"
    advance: Literal["environment", "success"] = "environment"
    gripper: Literal["level", "change"] = "level"
    sticky: int = 1

    def __post_init__(self) -> None:
        from ..tabletop.variants import chosen

        if isinstance(self.variant, str):  # one name is a list of one, so that settings are the same either way
            object.__setattr__(self, "variant", (self.variant,))
        if self.max_steps is not None and self.max_steps < 1:
            raise UserError(f"an episode has at least one step, not {self.max_steps}")
        if self.until not in ("success", "limit"):
            raise UserError(f"an episode goes until 'success' or 'limit', not until '{self.until}'")
        if self.advance not in ("environment", "success"):
            raise UserError(f"the next instruction comes by 'environment' or 'success', not by '{self.advance}'")
        chosen(self.variant)
        GoogleRobotGripper(self.sticky, self.gripper)


def check_policy(about: PolicyAbout) -> None:
    """Refuse what cannot act on the tabletop before anything runs.

    Raises:
        UserError: other actions, another control rate, or another state.
    """
    if about.action_names != ACTION_NAMES:
        raise UserError(
            f"the tabletop takes {', '.join(ACTION_NAMES)}; {about.name} gives {', '.join(about.action_names)}"
        )
    if not math.isclose(about.control_rate, CONTROL_RATE):
        raise UserError(
            f"the tabletop takes {CONTROL_RATE:g} actions per second; {about.name} gives {about.control_rate:g}"
        )
    if about.state_names and about.state_names != STATE_NAMES:
        raise UserError(
            f"{about.name} takes a state of {', '.join(about.state_names)}; the tabletop's is {', '.join(STATE_NAMES)}"
        )


def tabletop_observation(env: gymnasium.Env[Any, Any], obs: dict[str, Any]) -> Observation:
    """What a policy is shown: as if the step had been recorded and read back, but for the JPEG.

    The picture, ``(256, 320, 3)`` uint8, the instruction that is valid now, and the state of :data:`STATE_NAMES`.

    Args:
        env: of ``selfflow/Tabletop-v0``, wrapped or not. One without pictures draws this one, and no other.
        obs: what ``reset`` or ``step`` gave last.
    """
    from ..tabletop import TabletopEnv, get_image

    base = env.unwrapped
    assert isinstance(base, TabletopEnv)
    picture = get_image(env, obs) if "image" in obs else env.render()
    assert isinstance(picture, np.ndarray)
    pose, closed = obs["extra"]["tcp_pose"], obs["agent"]["qpos"][6:7]
    state = np.concatenate([pose[:3], xyzw_from_wxyz(pose[3:]), closed]).astype(np.float32)
    return Observation(picture, base.get_language_instruction(), state)


class TabletopSimulation:
    """One environment. Pictures are drawn only when a policy (or a film) looks, which physics does not notice."""

    def __init__(self, options: TabletopOptions) -> None:
        import gymnasium

        from ..tabletop import ID, TabletopEnv

        self._options = options
        self._env = gymnasium.make(
            ID, variant=options.variant, pictures=False, render_mode="rgb_array", disable_env_checker=True
        )
        base = self._env.unwrapped
        assert isinstance(base, TabletopEnv)
        self._base = base
        self._control = SimplerControl("google_robot", GoogleRobotGripper(options.sticky, options.gripper))

    def start(self, job: Job) -> Moment:
        obs, _ = self._env.reset(options={"task": job.task, "episode": job.layout})
        self._control.reset()
        limit = self._base.task.limit
        self._limit = limit if self._options.max_steps is None else min(limit, self._options.max_steps)
        self._filmed, self._steps, self._success, self._ever = job.filmed, 0, False, False
        self._instructions = [self._base.get_language_instruction()]
        return self._moment(obs, [self._frame()] if job.filmed else [])

    def carry_out(self, actions: np.ndarray) -> Moment:
        frames: list[bytes] = []
        for action in actions:
            obs, _, self._success, _, info = self._env.step(self._control.step(action).astype(np.float32))
            self._steps += 1
            self._ever |= self._success
            first_done = info["episode_stats"].get("is_drawer_open", False)
            if self._options.advance == "success" and first_done and not self._base.is_final_subtask():
                self._base.advance_to_next_subtask()
            said = self._base.get_language_instruction()
            if said != self._instructions[-1]:
                self._instructions.append(said)
            if self._filmed:
                frames.append(self._frame())
            if self._over():
                break
        return self._moment(obs, frames)

    def _over(self) -> bool:
        return self._steps >= self._limit or (self._success and self._options.until == "success")

    def _moment(self, obs: dict[str, Any], frames: Sequence[bytes]) -> Moment:
        seen = None if self._over() else tabletop_observation(self._env, obs)
        return Moment(seen, self._steps, self._success, self._ever, tuple(self._instructions), tuple(frames))

    def _frame(self) -> bytes:
        file = io.BytesIO()
        picture = self._env.render()
        assert isinstance(picture, np.ndarray)
        Pillow.fromarray(picture).save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()
