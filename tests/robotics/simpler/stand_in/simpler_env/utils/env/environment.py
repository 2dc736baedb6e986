"""An environment that looks like ManiSkill2_real2sim's from outside."""

import json
import os
import time

import numpy as np

# Of the evaluator; the rest of an environment's arguments vary with the task (colours, lights, ...).
_ALWAYS = {
    "obs_mode", "robot", "sim_freq", "control_mode", "control_freq", "max_episode_steps", "scene_name", "camera_cfgs",
    "rgb_overlay_path",
}  # fmt: skip
_OPTIONAL = {
    "rgb_overlay_cameras", "shader_dir", "render_config", "urdf_version", "lr_switch", "upright", "laid_vertically",
    "slightly_darker_lighting", "slightly_brighter_lighting", "distractor_config", "no_distractor", "light_mode",
    "station_name", "disable_bad_material", "model_ids",
}  # fmt: skip


class _Agent:
    def get_gripper_closedness(self):
        return 0.25


class _Pose:
    def __init__(self, numbers):
        self.p, self.q = numbers[:3], numbers[3:]


class _Link:
    # A metre before the base and half a metre above it, turned as it is.
    pose = _Pose(np.array([1, 3, 3.5, np.sqrt(0.5), 0, 0, np.sqrt(0.5)]))


class StandInEnv:
    """Success is true from the third step to the limit's last but one, so that "ever" and "at the end" differ."""

    def __init__(self, env_name, **kwargs):
        assert _ALWAYS <= set(kwargs) <= _ALWAYS | _OPTIONAL, sorted(kwargs)
        overlay = kwargs["rgb_overlay_path"]
        assert overlay is None or os.path.exists(overlay), overlay
        _note("process", os.getpid())
        _note("build", env_name, {k: v for k, v in kwargs.items() if k != "rgb_overlay_path"})
        _note("overlay", os.path.basename(overlay) if overlay else None)
        self.name, self.limit = env_name, kwargs["max_episode_steps"]
        self.robot_uid = kwargs["robot"]
        self.agent, self.tcp = _Agent(), _Link()
        self.closed = False

    @property
    def unwrapped(self):
        return self

    def reset(self, *, seed=None, options=None):
        assert not self.closed
        plain = {name: {k: np.asarray(v).tolist() for k, v in inner.items()} for name, inner in options.items()}
        _note("reset", plain)
        _fail("reset")
        self.steps, self.part = 0, 0
        self.parts = 2 if "PlaceInto" in self.name else 1
        return self._obs(), {"model_id": os.environ.get("STAND_IN_MODEL", ""), "distractor_model_ids": []}

    def step(self, action):
        assert np.shape(action) == (7,) and np.all(np.isfinite(action)) and action.flags.writeable
        _note("step", [round(float(number), 9) for number in action])
        _fail("step")
        self.steps += 1
        done = 3 <= self.steps < self.limit
        stats = {"moved": np.bool_(True), "height": np.float32(0.5), "steps": np.int64(self.steps)}
        return self._obs(), float(done), done, self.steps >= self.limit, {"episode_stats": stats}

    def get_language_instruction(self):
        return ["open top drawer", "place apple into top drawer"][self.part] if self.parts == 2 else f"do {self.name}"

    def is_final_subtask(self):
        return self.part == self.parts - 1

    def advance_to_next_subtask(self):
        _note("advance")
        self.part += 1

    def close(self):
        self.closed = True

    def _obs(self):
        camera, size = (
            ("overhead_camera", (512, 640)) if "google" in self.robot_uid else ("3rd_view_camera", (480, 640))
        )
        picture = np.full((*size, 3), self.steps % 256, np.uint8)
        # The base stands at (1, 2, 3), turned by a quarter about z.
        base = np.array([1, 2, 3, np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
        return {
            "image": {camera: {"rgb": picture}},
            "agent": {"base_pose": base, "qpos": np.zeros(11)},
            "extra": {},
        }


def _note(what, *more):
    with open(os.environ["STAND_IN_LOG"], "a", encoding="utf-8") as file:
        file.write(json.dumps([what, *more]) + "\n")


def _fail(where):
    """Do what the first line of the faults file says for this place, once: ``WHERE crash|hang|raise``."""
    path = os.environ.get("STAND_IN_FAULTS")
    if not path or not os.path.exists(path):
        return
    with open(path, encoding="utf-8") as file:
        faults = file.read().split("\n")
    if not faults[0].startswith(where):
        return
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(faults[1:]))
    how = faults[0].split()[1]
    if how == "crash":
        os._exit(139)
    if how == "hang":
        time.sleep(3600)
    raise RuntimeError("vk::Device::waitForFences: ErrorDeviceLost")
