"""The gymnasium environment ``selfflow/Tabletop-v0``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from selfflow_mm.errors import UserError

from . import measures as m
from .contacts import Contact
from .renderer import Renderer
from .scene import moving_bodies, static_bodies
from .sound import SAMPLES, Microphones
from .tasks import ALL_TASKS, Task, make_task
from .variants import Setting, chosen, make_setting

HEIGHT, WIDTH = 256, 320
CAMERA = "overhead_camera"
_OPTIONS = ("task", "variant", "episode", "naming")


class TabletopEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """A test bed, not a benchmark: simple tasks on a table, with SIMPLER's conventions for the Google robot.

    Physics is quasi-static and deterministic: nothing bounces, rolls on or swings, the arm behind the hand meets
    nothing, and a grasp holds. It lets the whole path from recording to a trained policy run anywhere; success here
    says little about a robot.

    Action, ``Box(-1, 1, (7,))`` at 3 Hz: x, y, z in metres and a rotation vector in radians, both per step in the
    base frame (the rotation about the tool), then the gripper as a change of its target: +1 closes, -1 opens, 0 keeps.
    The tool manages 0.25 m and 0.8 rad per step; longer commands are cut.

    Observation: ``image/overhead_camera/rgb`` (256, 320, 3) uint8, and with ``depth=True`` ``depth`` (256, 320, 1)
    float32 metres along the camera's axis; ``agent/qpos`` (8,) float32: the tool's x, y, z, its rotation vector from
    pointing straight down, how far the gripper is closed (0 open) and was told to close; ``extra/tcp_pose`` (7,)
    float32: x, y, z and a quaternion w, x, y, z; with ``sound=True`` ``sound`` (2, 8000) float32, the 1/3 s before the
    observation at 24 kHz in stereo.

    ``terminated`` is success, reward 1 then and else 0; ``truncated`` at SIMPLER's limits (pick and move near 80
    steps, drawers 113, place 200). ``info``: success, elapsed_steps, instruction, task, episode_stats, contacts.

    Args:
        task: pick, move_near, open_drawer, close_drawer, place_in_drawer or random.
        variant: how the scene looks: base, light, texture, camera, distractors, all, or a list of them. Physics and
            task are the same for the same seed whatever the variant.
        depth, sound: whether they are observed.
        pictures: False leaves out the pictures, and with them most of the time.
        render_mode: ``"rgb_array"`` or None.

    ``reset(seed=, options={"task":, "variant":, "episode": n, "naming": k})``: options hold for this and later
    episodes, but ``episode`` and ``naming`` for one: the n-th layout of a task whatever the seed, and which of its
    objects are named (pick_among has 3 instructions for a scene, move_near 6).

    Raises:
        UserError: an unknown task, variant or option, or an action that is not finite.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": m.RATE}

    def __init__(
        self,
        task: str = "random",
        variant: str | Sequence[str] = "base",
        depth: bool = False,
        sound: bool = False,
        pictures: bool = True,
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode '{render_mode}' is not there; use 'rgb_array' or None")
        if depth and not pictures:
            raise UserError("depth=True needs pictures=True")
        self.render_mode = render_mode
        self._name = _known_task(task)
        self._aspects = chosen(variant)
        self._depth, self._sound, self._pictures = depth, sound, pictures
        self._renderer = Renderer(HEIGHT, WIDTH)
        self._task: Task | None = None
        self._steps = 0
        self._contacts: list[Contact] = []
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.observation_space = _space(depth, sound, pictures)

    @property
    def task(self) -> Task:
        """The episode's task, with its world: what a scripted expert may look at."""
        if self._task is None:
            raise UserError("there is no episode yet; call reset() first")
        return self._task

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        options = dict(options or {})
        for name in options:
            if name not in _OPTIONS:
                raise UserError(f"reset does not know the option '{name}'; known: {', '.join(_OPTIONS)}")
        self._name = _known_task(options.get("task", self._name))
        if "variant" in options:
            self._aspects = chosen(options["variant"])
        # One draw per episode, so that options do not shift the episodes that follow.
        drawn = int(self.np_random.integers(2**32))
        episode = drawn if options.get("episode") is None else int(options["episode"])
        if episode < 0:
            raise UserError(f"the option 'episode' is {episode}; episodes are numbered from 0")
        self._task = make_task(self._name, np.random.default_rng([episode, 0]), int(options.get("naming", 0)))
        world = self._task.world
        self._setting: Setting = make_setting(self._aspects, episode, [thing.name for thing in world.things])
        # Drawers that nobody is asked to move are part of the scene that stays, until one moves after all.
        openings = world.cabinet.opening if world.cabinet else []
        self._still = {d: opening for d, opening in enumerate(openings) if d != self._task.drawer}
        self._static = static_bodies(world.cabinet, self._setting, self._still)
        self._microphones = Microphones()
        self._steps, self._contacts = 0, []
        return self._observe(0.0), self._info(False)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        task = self.task
        command = np.asarray(action, dtype=np.float64)
        if command.shape != (7,) or not np.isfinite(command).all():
            raise UserError(f"an action is 7 finite numbers, and this is {action!r}")
        command = np.clip(command, -1.0, 1.0)
        since = task.world.seconds
        self._contacts = task.world.step(command[:3], command[3:6], float(command[6]))
        self._steps += 1
        success = bool(task.evaluate())
        if self._steps == 100 and not self.is_final_subtask():
            self.advance_to_next_subtask()
        truncated = self._steps >= task.limit
        return self._observe(since), float(success), success, truncated, self._info(success)

    def render(self) -> np.ndarray | None:
        if self.render_mode is None:
            return None
        return self._picture().rgb

    def get_language_instruction(self) -> str:
        """What the robot is told now."""
        return self.task.instruction

    def is_final_subtask(self) -> bool:
        """Whether no other instruction follows in this episode."""
        return self.task.subtask == self.task.subtasks - 1

    def advance_to_next_subtask(self) -> None:
        """Go on to the next instruction, as when a policy says that it is done; at the last one nothing happens."""
        self.task.subtask = min(self.task.subtask + 1, self.task.subtasks - 1)

    def _picture(self) -> Any:
        world = self.task.world
        if world.cabinet is not None:
            still = {
                drawer: opening for drawer, opening in self._still.items() if world.cabinet.opening[drawer] == opening
            }
            if len(still) < len(self._still):
                self._still = still
                self._static = static_bodies(world.cabinet, self._setting, still)
        moving = moving_bodies(world, self._setting, self._still)
        return self._renderer.render(self._setting.camera, self._setting.light, self._static, moving)

    def _observe(self, since: float) -> dict[str, Any]:
        world = self.task.world
        hand = world.hand
        gripper = (1 - hand.gap / m.GAP, world.closed)
        observation: dict[str, Any] = {
            "agent": {"qpos": np.array([*hand.place, *hand.lean(), *gripper], np.float32)},
            "extra": {"tcp_pose": np.array([*hand.place, *hand.quaternion()], np.float32)},
        }
        if self._pictures:
            picture = self._picture()
            observation["image"] = {CAMERA: {"rgb": picture.rgb}}
            if self._depth:
                observation["image"][CAMERA]["depth"] = picture.depth[..., None]
        if self._sound:
            observation["sound"] = self._microphones.hear(self._contacts, since)
        return observation

    def _info(self, success: bool) -> dict[str, Any]:
        return {
            "success": success,
            "elapsed_steps": self._steps,
            "instruction": self.task.instruction,
            "task": self.task.name,
            "episode_stats": dict(self.task.stats),
            "contacts": list(self._contacts),
        }


def get_image(env: gymnasium.Env[Any, Any], obs: dict[str, Any], camera_name: str | None = None) -> np.ndarray:
    """The picture in an observation, as SIMPLER's ``get_image_from_maniskill2_obs_dict(env, obs, camera_name)``."""
    return obs["image"][camera_name or CAMERA]["rgb"]


def _known_task(name: str) -> str:
    if name not in ALL_TASKS and name != "random":
        raise UserError(f"there is no task '{name}'; known: {', '.join(ALL_TASKS)}, random")
    return name


def _space(depth: bool, sound: bool, pictures: bool) -> spaces.Dict:
    space: dict[str, spaces.Space[Any]] = {
        "agent": spaces.Dict({"qpos": spaces.Box(-4.0, 4.0, (8,), np.float32)}),
        "extra": spaces.Dict({"tcp_pose": spaces.Box(-2.0, 2.0, (7,), np.float32)}),
    }
    if pictures:
        camera: dict[str, spaces.Space[Any]] = {"rgb": spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)}
        if depth:
            camera["depth"] = spaces.Box(0.0, 100.0, (HEIGHT, WIDTH, 1), np.float32)
        space["image"] = spaces.Dict({CAMERA: spaces.Dict(camera)})
    if sound:
        space["sound"] = spaces.Box(-1.0, 1.0, (2, SAMPLES), np.float32)
    return spaces.Dict(space)
