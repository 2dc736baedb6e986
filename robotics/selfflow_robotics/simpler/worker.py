"""The simulator's side of an evaluation: one process that acts one episode after another, in SIMPLER's own Python.

Run as a file by any Python of 3.9 or later that has SIMPLER, numpy, msgpack and websockets; nothing else of this
project is imported there. It speaks openpi's policy protocol as a robot does: what is seen goes out, the actions to
carry out come back. What is more: an answer may be the start of an episode, and the episode's state goes along with the
picture.

    out  {"hello": {...}}                          once: versions, and what is unusual here
    in   {"start": {...}}                          the trial, see `SimplerWorld.start`
    out  {"image", "prompt", ..., "over": False}   see `World`
    in   {"actions": (n, 7), "terminate": (n,)}    commands as the robot takes them
    out  {"image", "prompt", ..., "over": True}

A trial that cannot be acted here is answered by {"refused": text}. A failure goes out as {"error": text}, and the
process ends: after an error of the renderer nothing in it is trusted.
Source of the wire format: openpi's ``packages/openpi-client/src/openpi_client/msgpack_numpy.py``.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import importlib
import os
import platform
import sys
import time
import traceback
from typing import Any

import numpy as np

# SIMPLER's control modes (its simpler_env/utils/env/env_builder.py) are asked of SIMPLER itself, in SimplerWorld.
_PACKAGES = ("numpy", "sapien", "gymnasium", "simpler_env", "mani_skill2_real2sim", "websockets", "msgpack")


class Refusal(Exception):
    """A trial that cannot be acted here, such as one whose scene is missing: to try again would not help."""


class World:
    """An environment with SIMPLER's surface, as an episode goes through it. Another simulator needs two methods.

    What :meth:`start` and :meth:`carry_out` give is a dictionary: ``image`` (H, W, 3) uint8, ``prompt`` (the
    instruction that is valid now), ``tcp_pose`` and ``base_pose`` (7,) in the world's frame, w first,
    ``gripper_closed`` (0 open, 1 closed, or None), ``steps``, ``success`` (now), ``success_any``, ``over``,
    ``terminated`` (by the policy), ``instructions`` (all so far), ``stats`` (the simulator's own of the episode),
    ``seconds`` that the simulator took, and ``frames`` (n, H, W, 3) since the last time where the trial is filmed.
    """

    def build(self, trial: dict) -> Any:
        """The environment of a trial."""
        raise NotImplementedError

    def places(self, trial: dict) -> dict:
        """Where things begin: the options of the environment's ``reset``."""
        raise NotImplementedError

    def image(self, env: Any, obs: Any) -> np.ndarray:
        """What the policy's camera sees, ``(H, W, 3)`` uint8."""
        raise NotImplementedError

    def body(self, env: Any, obs: Any) -> dict:
        """``tcp_pose``, ``base_pose`` and ``gripper_closed``."""
        raise NotImplementedError

    def look_over(self, info: dict) -> None:
        """Raise :class:`Refusal` where the scene is not what it should be; ``info`` is the reset's."""

    def facts(self) -> dict:
        """Of the simulator, for the record."""
        return {}

    _env: Any = None

    def start(self, trial: dict) -> dict:
        """Begin an episode, in an environment of its own as SIMPLER's evaluator does.

        Args:
            trial: what :meth:`build` needs, ``seed`` of the reset, ``filmed``, and ``until``: "limit", or "success" to
                end when the aim is reached.

        Raises:
            Refusal: the trial cannot be acted here, now or later.
        """
        began = time.perf_counter()
        self.close()
        self._env = self.build(trial)
        obs, info = self._env.reset(seed=trial["seed"], options=self.places(trial))
        self.look_over(info)
        self._filmed, self._until = trial["filmed"], trial["until"]
        self._steps, self._success, self._ever, self._terminated = 0, False, False, False
        self._stats: dict = {}
        self._instructions = [self._prompt()]
        image = self.image(self._env, obs)
        return self._moment(obs, image, [image], False, began)

    def carry_out(self, actions: np.ndarray, terminate: np.ndarray | None) -> dict:
        """Take commands ``(n, 7)`` one after another, or fewer where the episode ends.

        Args:
            actions: what ``env.step`` takes.
            terminate: ``(n,)``, where the policy says that it is done: with the subtask, if another follows.
        """
        began = time.perf_counter()
        frames, over = [], False
        base = self._env.unwrapped
        for place, action in enumerate(actions):
            if terminate is not None and terminate[place]:
                if base.is_final_subtask():
                    self._terminated = True
                else:
                    base.advance_to_next_subtask()
            # A copy: what came over the wire is read-only, and a controller takes no such view.
            obs, _, success, truncated, info = self._env.step(np.array(action))
            self._steps += 1
            self._success = bool(success)
            self._ever |= self._success
            self._stats = _plain(info.get("episode_stats", {}))
            if self._prompt() != self._instructions[-1]:
                self._instructions.append(self._prompt())
            image = self.image(self._env, obs)
            frames.append(image)
            over = bool(truncated) or self._terminated or (self._success and self._until == "success")
            if over:
                break
        return self._moment(obs, image, frames, over, began)

    def close(self) -> None:
        """Let go of the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _prompt(self) -> str:
        return str(self._env.unwrapped.get_language_instruction())

    def _moment(self, obs: Any, image: np.ndarray, frames: list, over: bool, began: float) -> dict:
        moment = {
            "image": image,
            "prompt": self._instructions[-1],
            "steps": self._steps,
            "success": self._success,
            "success_any": self._ever,
            "over": over,
            "terminated": self._terminated,
            "instructions": list(self._instructions),
            "stats": self._stats,
            "seconds": time.perf_counter() - began,
        }
        moment.update(self.body(self._env, obs))
        if self._filmed:
            moment["frames"] = np.stack(frames)
        return moment


class SimplerWorld(World):
    """SIMPLER's environments, built and reset as its ``maniskill2_evaluator.py`` does.

    Args:
        shader: in place of ray tracing where a trial asks for it: ``rt`` does as it says, ``ibl`` rasterises (on a CPU
            some 300 times faster, shadows differ slightly).
        overlays: folder of the real pictures that are laid over the background; ManiSkill2_real2sim's own if empty.
    """

    def __init__(self, shader: str = "rt", overlays: str = "") -> None:
        os.environ["DISPLAY"] = ""  # as the evaluator: no window
        from simpler_env.utils.env import env_builder, observation_utils  # type: ignore[import-not-found]

        self._builder, self._observation = env_builder, observation_utils
        self._shader, self._overlays, self._assets = shader, overlays, _assets()

    def build(self, trial: dict) -> Any:
        # SAPIEN only logs what it cannot load, and an episode in a void would count as a failure.
        if "dummy" not in trial["scene"]:
            _there(os.path.join(self._assets, "hab2_bench_assets", "stages", trial["scene"] + ".glb"), "stage")
        kwargs = dict(trial["options"])
        if trial["ray_tracing"]:
            if self._shader == "rt":
                kwargs = {"shader_dir": "rt", **kwargs}
            else:
                kwargs["render_config"] = {
                    "camera_shader_dir": self._shader,
                    "viewer_shader_dir": self._shader,
                    "rt_use_denoiser": False,
                }
        kwargs.update(
            obs_mode="rgbd",
            robot=trial["robot"],
            sim_freq=trial["simulation_rate"],
            control_mode=self._builder.get_robot_control_mode(trial["robot"], ""),
            control_freq=trial["control_rate"],
            max_episode_steps=trial["limit"],
            scene_name=trial["scene"],
            camera_cfgs={"add_segmentation": True},
            rgb_overlay_path=self._overlay(trial["overlay"]),
        )
        return self._builder.build_maniskill2_env(trial["environment"], **kwargs)

    def places(self, trial: dict) -> dict:
        robot = {"init_xy": np.array(trial["robot_xy"]), "init_rot_quat": np.array(trial["robot_quaternion"])}
        if trial["episode"] is None:
            objects: dict = {"init_xy": np.array(trial["objects"])}
        else:
            objects = {"episode_id": trial["episode"]}
        return {"robot_init_options": robot, "obj_init_options": objects}

    def image(self, env: Any, obs: Any) -> np.ndarray:
        found = self._observation.get_image_from_maniskill2_obs_dict(env.unwrapped, obs)
        return np.ascontiguousarray(found[..., :3], dtype=np.uint8)

    def body(self, env: Any, obs: Any) -> dict:
        closedness = getattr(env.unwrapped.agent, "get_gripper_closedness", None)
        tool = env.unwrapped.tcp.pose  # some tasks leave it out of what is observed
        return {
            "tcp_pose": np.concatenate([tool.p, tool.q]).astype(np.float64),
            "base_pose": np.asarray(obs["agent"]["base_pose"], np.float64),
            "gripper_closed": None if closedness is None else float(closedness()),
        }

    def facts(self) -> dict:
        return {
            "shader": self._shader,
            "driver": os.environ.get("VK_DRIVER_FILES") or os.environ.get("VK_ICD_FILENAMES"),
            "assets": asset_hashes(self._assets, self._overlays),
        }

    def look_over(self, info: dict) -> None:
        models = os.path.join(self._assets, "custom", "models")
        named = [name for value in info.values() for name in (value if isinstance(value, (list, tuple)) else [value])]
        for name in named:
            folder = os.path.join(models, name) if isinstance(name, str) and name else ""
            if folder and os.path.isdir(folder) and not glob.glob(os.path.join(folder, "textured.*")):
                raise Refusal(f"the model '{name}' has nothing to be seen by in {folder}")

    def _overlay(self, name: str) -> str | None:
        if not name:
            return None
        folder = self._overlays or os.path.join(self._assets, "real_inpainting")
        return _there(os.path.abspath(os.path.join(folder, name)), "real picture")


def pack(message: Any) -> bytes:
    """A message as bytes: msgpack, arrays in openpi's form."""
    import msgpack

    return msgpack.packb(message, default=_packed)


def unpack(data: bytes) -> Any:
    """The inverse of :func:`pack`."""
    import msgpack

    return msgpack.unpackb(data, object_hook=_unpacked)


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    raise TypeError(f"{type(value).__name__} does not travel")


def _unpacked(found: dict) -> Any:
    if b"__ndarray__" in found:
        return np.ndarray(buffer=found[b"data"], dtype=np.dtype(found[b"dtype"]), shape=found[b"shape"])
    return found


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def asset_hashes(folder: str, overlays: str = "") -> dict:
    """Path below ``folder`` -> git's hash of the file: stages, models, and real pictures."""
    places = {
        "hab2_bench_assets/stages": os.path.join(folder, "hab2_bench_assets", "stages", "*.glb"),
        "custom/models": os.path.join(folder, "custom", "models", "*", "textured.*"),
        "real_inpainting": os.path.join(overlays or os.path.join(folder, "real_inpainting"), "*.png"),
    }
    found = {}
    for place, pattern in places.items():
        depth = 2 if place == "custom/models" else 1
        for path in sorted(glob.glob(pattern)):
            with open(path, "rb") as file:
                data = file.read()
            name = "/".join([place, *path.split(os.sep)[-depth:]])
            found[name] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return found


def _there(path: str, what: str) -> str:
    if not os.path.exists(path):
        raise Refusal(f"the {what} {path} is missing")
    return path


def _assets() -> str:
    return str(importlib.import_module("mani_skill2_real2sim").ASSET_DIR)


def versions() -> dict:
    """Of Python and what matters here; where a package came from as a checkout, its folder."""
    import importlib.metadata as metadata

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def serve(world: World, connection: Any) -> None:
    """Act what comes until the other side is gone, which raises."""
    while True:
        message = unpack(connection.recv())
        if "start" in message:
            try:
                answer = world.start(message["start"])
            except Refusal as refusal:
                answer = {"refused": str(refusal)}
        else:
            answer = world.carry_out(message["actions"], message.get("terminate"))
        connection.send(pack(answer))


def main() -> int:
    parser = argparse.ArgumentParser(description="Act episodes for 'selfflow-mm eval-simpler', which starts this.")
    parser.add_argument("url", help="where it listens")
    parser.add_argument("--world", default="simpler", help="simpler, or MODULE:CLASS of another World")
    parser.add_argument("--shader", default="rt", help="of SIMPLER's trials that ask for ray tracing: rt or ibl")
    parser.add_argument("--overlays", default="", help="folder of SIMPLER's real pictures")
    args = parser.parse_args()
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    headers = {"Authorization": "Api-Key " + os.environ["SELFFLOW_WORKER_KEY"]}
    with connect(
        args.url, additional_headers=headers, compression=None, max_size=None, ping_interval=None
    ) as connection:
        try:
            if args.world == "simpler":
                world: World = SimplerWorld(args.shader, args.overlays)
            else:
                module, name = args.world.split(":")
                world = getattr(importlib.import_module(module), name)()
            connection.send(pack({"hello": {"versions": versions(), "facts": world.facts(), "pid": os.getpid()}}))
            serve(world, connection)
        except ConnectionClosed:
            return 0  # the supervisor is gone, and starts another one where it left off
        except Exception:
            text = traceback.format_exc()
            print(text, file=sys.stderr)
            connection.send(pack({"error": text}))
            return 1
    return 0


if __name__ == "__main__":
    sys.path.pop(0)  # this file's own folder: its neighbours must not be taken for packages
    sys.exit(main())
