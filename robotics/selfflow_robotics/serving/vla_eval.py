"""vla-eval's protocol (Allen AI's evaluation harness, protocol version 1), as its model servers speak it.

Messages are msgpack maps ``{type, payload, seq, timestamp}`` with string keys; an answer repeats the question's
``seq``. ``hello`` is answered by what the policy takes and gives, ``episode_start`` begins an episode, and each
``observation`` is answered by **one** action: a chunk's first actions are given out one by one, then the policy is
asked again. An error is a message of its own and the connection goes on.

The gripper is the house's (1 open, 0 closed), which its SIMPLER benchmark takes for the WidowX as it is and for the
Google robot with ``gripper_mode: sticky``. That benchmark hands rotations to a controller that takes them for
axis-angle; ``rotation='axis_angle'`` gives it that.

Source: allenai/vla-evaluation-harness 0.8.0, ``docs/rfcs/0002-communication-protocol.md``, ``protocol/messages.py``.
"""

from __future__ import annotations

import asyncio
import io
import math
import time
import zlib
from collections import deque
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from PIL import Image

from selfflow_mm.errors import UserError

from ..actions.rotations import rpy_to_axis_angle
from ..interfaces import Observation, PolicyAbout
from ..policies.seeds import derived_seed
from ..robot_episode import ACTION_NAMES
from .conversation import Send, sentence
from .episodes import Episodes
from .msgpack_numpy import pack, unpack
from .observations import read_image, read_prompt, read_state
from .options import ServerOptions

__all__ = ["VlaEvalConversation"]

_PROTOCOL_VERSION = 1
_FIELDS = ("type", "payload", "seq", "timestamp")
#: Pixels of one picture; a small PNG can claim any number of them.
_MAX_PIXELS = 4096 * 4096


class VlaEvalConversation:
    """One connection.

    Args:
        episodes: of this connection; row 0 is used.
        options: ``camera``, ``rotation`` and ``default_prompt`` of them.
        seed: an episode's seed is a hash of it, the task's name and the episode's number, so a benchmark gives the same
            result however its episodes are spread over connections.
    """

    def __init__(self, episodes: Episodes, options: ServerOptions, seed: int) -> None:
        self._episodes, self._options, self._seed = episodes, options, seed
        self._actions: deque[np.ndarray] = deque()
        self._seq = 0

    async def open(self, send: Send) -> None:
        """Here the client speaks first."""

    async def take(self, message: bytes | str, send: Send) -> None:
        self._seq = 0
        kind, payload, self._seq = _read(message)
        if kind == "hello":
            await send(self._packed("hello", self._hello()))
        elif kind == "episode_start":
            self._start(payload)
        elif kind == "observation":
            await send(self._packed("action", {"actions": await self._act(payload)}))
        elif kind not in ("episode_end", "error"):
            raise UserError(f"messages are hello, episode_start, observation, episode_end or error, not '{kind[:40]}'")

    async def fail(self, error: Exception, send: Send) -> bool:
        await send(self._packed("error", {"error": sentence(error)}))
        return True

    def _packed(self, kind: str, payload: dict[str, Any]) -> bytes:
        message = {"type": kind, "payload": payload, "seq": self._seq, "timestamp": time.time()}
        return pack(message, text_keys=True)

    def _hello(self) -> dict[str, Any]:
        about = self._episodes.about
        described: dict[str, Any] = {"action_spec": _action_spec(about, self._options.rotation)}
        pictures = {self._options.camera or "primary": {"name": "image", "dims": 0, "format": "rgb_hwc_uint8"}}
        language = {"language": {"name": "language", "dims": 0, "format": "language"}}
        described["observation_spec"] = pictures | language
        if about.needs_state:
            described["observation_params"] = {"send_state": True}
        return {
            "harness_version": f"selfflow-mm {version('selfflow-mm')}",
            "protocol_version": _PROTOCOL_VERSION,
            "model_server": about.name,
            "capabilities": {},
            **described,
        }

    def _start(self, payload: Mapping[Any, Any]) -> None:
        self._actions.clear()
        task = payload.get("task")
        task = task if isinstance(task, dict) else {}
        number = task.get("episode_idx")
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            self._episodes.reset()
            return
        name = zlib.crc32(str(task.get("name", ""))[:1000].encode(errors="replace"))
        self._episodes.reset(derived_seed("vla-eval episode", self._seed, name, number))

    async def _act(self, payload: Mapping[Any, Any]) -> np.ndarray:
        """``(D,)`` float32 for this observation."""
        # A picture is decoded only where the policy is asked, and in a thread, because decoding takes milliseconds.
        if not self._actions:
            observation = await asyncio.to_thread(_observation, payload, self._episodes.about, self._options)
            chunk = (await self._episodes.act([observation]))[0][: self._episodes.executed]
            if self._options.rotation == "axis_angle":
                chunk = _with_axis_angle(chunk, self._episodes.about)
            self._actions.extend(chunk)
        return self._actions.popleft()


def _read(message: bytes | str) -> tuple[str, dict, int]:
    """Type, payload and number of a message."""
    if isinstance(message, str):
        raise UserError("messages are binary (msgpack), this one is text")
    found = unpack(message, text_keys=True)
    if not isinstance(found, dict) or not all(field in found for field in _FIELDS):
        raise UserError(f"a message is a dictionary with {', '.join(_FIELDS)}")
    kind, payload, seq = found["type"], found["payload"], found["seq"]
    if not isinstance(kind, str) or not isinstance(payload, dict) or not isinstance(seq, int):
        raise UserError("a message's type is a text, its payload a dictionary, its seq a whole number")
    return kind, payload, seq


def _observation(payload: Mapping[Any, Any], about: PolicyAbout, options: ServerOptions) -> Observation:
    image, rows = read_image(_picture(payload.get("images"), options.camera))
    if rows:
        raise UserError("vla-eval's pictures are (H, W, 3), one at a time")
    said = payload.get("task_description")
    prompt = options.default_prompt if said is None else said
    if prompt is None:
        raise UserError("the observation has no 'task_description', the text that the robot is told")
    sent = payload.get("states", payload.get("state"))
    state = read_state(sent) if sent is not None and about.state_names else None
    return Observation(image[0], read_prompt(prompt), state)


def _picture(images: Any, camera: str | None) -> Any:
    """The picture that is looked at, decoded."""
    if not isinstance(images, dict) or not images:
        raise UserError("the observation has no 'images', a dictionary of pictures by camera")
    names = ", ".join(str(name)[:40] for name in list(images)[:20])
    if camera is None and len(images) > 1:
        raise UserError(f"there are several cameras ({names}); name one when starting the server (--camera)")
    if camera is not None and camera not in images:
        raise UserError(f"there is no picture of the camera '{camera}', there are: {names}")
    found = images[camera] if camera is not None else next(iter(images.values()))
    if isinstance(found, dict) and "__image__" in found:
        return _decoded(found.get("format"), found.get("data"))
    return found


def _decoded(kind: Any, data: Any) -> np.ndarray:
    if kind not in ("png", "jpeg") or not isinstance(data, bytes):
        raise UserError("encoded pictures are bytes of the format 'png' or 'jpeg'")
    try:
        with Image.open(io.BytesIO(data), formats=[kind.upper()]) as picture:
            if math.prod(picture.size) > _MAX_PIXELS:
                raise UserError(f"a picture has at most {_MAX_PIXELS} pixels, this one is {picture.size}")
            return np.asarray(picture)
    except UserError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise UserError(f"this {kind} cannot be decoded: {type(error).__name__}") from error


def _with_axis_angle(chunk: np.ndarray, about: PolicyAbout) -> np.ndarray:
    if about.action_names[:6] != ACTION_NAMES[:6]:
        raise UserError(f"{about.name} gives no roll, pitch, yaw that could be made axis-angle")
    turned = rpy_to_axis_angle(chunk[:, 3:6]).astype(np.float32)
    return np.concatenate([chunk[:, :3], turned, chunk[:, 6:]], axis=1)


def _action_spec(about: PolicyAbout, rotation: str) -> dict[str, Any]:
    """In vla-eval's words (its ``specs.py``); names that are not the house's are declared raw."""
    if about.action_names != ACTION_NAMES:
        return {"raw": {"name": "raw", "dims": len(about.action_names), "format": "raw"}}
    return {
        "position": {"name": "position", "dims": 3, "format": "delta_xyz"},
        "rotation": {"name": "rotation", "dims": 3, "format": rotation},
        "gripper": {"name": "gripper", "dims": 1, "format": "continuous_01", "range": [0, 1]},
    }
