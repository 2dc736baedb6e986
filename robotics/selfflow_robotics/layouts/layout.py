"""A layout: which columns of a data set are the action, the state, the pictures and the instruction, and in which form.

It is a small YAML file (docs/robot-data.md has the format); those of RT-1 and Bridge lie beside this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from selfflow_mm.config import from_dict
from selfflow_mm.config_yaml import parse_yaml
from selfflow_mm.errors import UserError

from ..actions import grippers, rotations
from ..actions.chunks import terminates_at_end
from ..episode import Episode, Feature
from ..robot_episode import ACTION_NAMES, RobotEpisode

__all__ = ["FORMAT", "VERSION", "Layout", "Part", "Range"]

FORMAT = "selfflow-robot-layout"
VERSION = 1
Rotation = Literal["rpy", "axis_angle", "quaternion_wxyz", "quaternion_xyzw"]
Gripper = Literal["relative_closing", "absolute_opening", "absolute_closing", "signed_opening", "signed_closing"]


@dataclass(frozen=True)
class Range:
    """Entries ``start`` to ``stop`` (exclusive; None: to the end) of a column's last axis."""

    column: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Part:
    """A stretch of the action or the state.

    Attributes:
        column: the data set's own name.
        start, stop: entries of its last axis; all unless given. A scalar counts as one entry.
        names: of the entries, as many as the part gives.
        rotation: this part is a rotation in that form; it becomes roll, pitch, yaw.
        gripper: this part is a gripper's command in that form; it becomes absolute, 1 open and 0 closed.
        scale: multiplies the numbers, to reach metres and radians (0.001 for millimetres).
    """

    column: str
    start: int = 0
    stop: int | None = None
    names: tuple[str, ...] = ()
    rotation: Rotation | None = None
    gripper: Gripper | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Layout:
    """What the columns of a data set mean.

    Attributes:
        format, version: of the file; always ``selfflow-robot-layout`` and 1.
        name: of the layout; a data set of that name takes it by itself.
        robot: ``google_robot``, ``widowx`` or any other name.
        control_rate: steps per second; 0 takes what the data set tells.
        convention: ``pose`` for actions that are x, y, z, roll, pitch, yaw, gripper in the house's convention
            (:mod:`selfflow_robotics.robot_episode`); ``raw`` for any other, such as joint angles.
        action, state: parts put behind one another.
        images: the camera's name -> column.
        instruction: column of texts, or of the metadata; "" where there is none.
        terminate: a number above 0 in this column says that the robot is done; without one the last step does.
        sound: column ``(T, channels, samples per step)``, taken where the data set has it; "" for none.
    """

    name: str
    action: tuple[Part, ...]
    images: dict[str, str]
    robot: str = ""
    control_rate: float = 0.0
    convention: Literal["pose", "raw"] = "pose"
    state: tuple[Part, ...] = ()
    instruction: str = ""
    terminate: Range | None = None
    sound: str = ""
    format: str = FORMAT
    version: int = VERSION

    @classmethod
    def from_yaml(cls, path: Path | str) -> Layout:
        """Read a layout file.

        Raises:
            UserError: no such file, an unknown key, a wrong value, or another version.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the layout file {path} cannot be read ({error})") from error
        data = parse_yaml(text, str(path))
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise UserError(f"{path} is no layout file; it begins with 'format: {FORMAT}'")
        if data.get("version") != VERSION:
            raise UserError(f"{path} has layout version {data.get('version')}; this program reads version {VERSION}")
        layout = from_dict(cls, data, str(path))
        layout.check(str(path))
        return layout

    def check(self, where: str) -> None:
        """Refuse what cannot be right before any data are read.

        Raises:
            UserError: ``where`` names the file.
        """
        if not self.action:
            raise UserError(f"{where}: 'action' names no column")
        if not (math.isfinite(self.control_rate) and self.control_rate >= 0):
            raise UserError(f"{where}: control_rate is in steps per second, got {self.control_rate}")
        for part in (*self.action, *self.state):
            if part.rotation and part.gripper:
                raise UserError(f"{where}: '{part.column}' is given as a rotation and as a gripper; it can be one")

    def needs(self) -> set[str]:
        """The columns without which an episode cannot be read."""
        return {part.column for part in (*self.action, *self.state)}

    def uses(self) -> dict[str, str]:
        """Native column -> what it is taken for: "action", "state", "image NAME", "instruction", ..."""
        found: dict[str, list[str]] = {}
        pairs = [(part.column, "action") for part in self.action] + [(part.column, "state") for part in self.state]
        pairs += [(column, f"image {name}") for name, column in self.images.items()]
        pairs += [(self.instruction, "instruction"), (self.sound, "sound")]
        pairs += [(self.terminate.column, "terminate")] if self.terminate else []
        for column, role in pairs:
            if column and role not in found.setdefault(column, []):
                found[column].append(role)
        return {column: ", ".join(roles) for column, roles in found.items() if column}

    def fits(self, features: Mapping[str, Feature]) -> bool:
        """Whether a data set with these columns can be read: the needed ones and at least one camera are there."""
        return self.needs() <= features.keys() and any(column in features for column in self.images.values())

    def names(self, features: Mapping[str, Feature]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of the action's and of the state's entries, from the columns' descriptions alone."""
        empty = {
            part.column: np.zeros((0, *(size or 1 for size in features[part.column].shape)), np.float32)
            for part in (*self.action, *self.state)
        }
        episode = Episode("", 0, empty)
        actions = self._join(episode, self.action, "action")[1]
        return ACTION_NAMES if self.convention == "pose" else actions, self._join(episode, self.state, "state")[1]

    def read(self, episode: Episode, fps: float | None = None) -> RobotEpisode:
        """An episode in the house's convention.

        Args:
            episode: under the data set's own names.
            fps: steps per second that the data set tells; used where the layout tells none.

        Raises:
            UserError: a column is missing, or has another width than the layout says.
        """
        rate = self.control_rate or fps
        if not rate:
            raise UserError(f"neither the layout '{self.name}' nor the data set tells the control rate")
        actions, action_names = self._join(episode, self.action, "action")
        if self.convention == "pose" and actions.shape[1] != len(ACTION_NAMES):
            raise UserError(
                f"layout '{self.name}' gives actions of {actions.shape[1]} numbers; x, y, z, roll, pitch, yaw and "
                "gripper are 7 (for joint angles and the like write 'convention: raw')"
            )
        states, state_names = self._join(episode, self.state, "state")
        sound = np.asarray(episode.columns[self.sound], np.float32) if self.sound in episode.columns else None
        return RobotEpisode(
            id=episode.id,
            robot=self.robot,
            control_rate=float(rate),
            actions=actions,
            action_names=ACTION_NAMES if self.convention == "pose" else action_names,
            states=states,
            state_names=state_names,
            images={name: episode.pictures[c] for name, c in self.images.items() if c in episode.pictures},
            instruction=self._instruction(episode),
            terminate=self._terminate(episode),
            metadata=episode.metadata,
            sound=sound,
            sound_rate=0 if sound is None else round(sound.shape[-1] * rate),
        )

    def _join(self, episode: Episode, parts: tuple[Part, ...], what: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """The parts behind one another as ``(T, D)`` float32, and D names."""
        arrays = [np.zeros((episode.length, 0), np.float32)]
        names: list[str] = []
        for part in parts:
            values = self._values(episode, part, what)
            arrays.append(values)
            width = values.shape[1]
            if part.names and len(part.names) != width:
                raise UserError(f"layout '{self.name}' has {len(part.names)} names for {width} of '{part.column}'")
            plain = (part.column,) if width == 1 else tuple(f"{part.column}[{part.start + i}]" for i in range(width))
            names += part.names or plain
        return np.concatenate(arrays, axis=1, dtype=np.float32), tuple(names)

    def _values(self, episode: Episode, part: Part, what: str) -> np.ndarray:
        raw = self._entries(episode, Range(part.column, part.start, part.stop), what)
        values = raw if part.scale == 1.0 else raw.astype(np.float64) * part.scale
        if part.rotation and part.rotation != "rpy":
            values = _TO_RPY[part.rotation](values)
        if part.gripper:
            values = grippers.to_house(values, part.gripper)
        return values.astype(np.float32, copy=False)

    def _entries(self, episode: Episode, part: Range, what: str) -> np.ndarray:
        if part.column not in episode.columns:
            raise UserError(
                f"layout '{self.name}' takes the {what} from '{part.column}', which episode {episode.id} does not "
                f"have; its columns are {', '.join(episode.columns)}"
            )
        column = episode.columns[part.column]
        flat = column.reshape(len(column), math.prod(column.shape[1:]))
        stop = flat.shape[1] if part.stop is None else part.stop
        if not 0 <= part.start < stop <= flat.shape[1]:
            raise UserError(
                f"layout '{self.name}' takes entries {part.start} to {stop} of '{part.column}', "
                f"which has {flat.shape[1]} per step"
            )
        return flat[:, part.start : stop]

    def _instruction(self, episode: Episode) -> str:
        if self.instruction in episode.texts:
            # Some data sets leave the first step's empty: the first that says something is the episode's.
            words = (_text(text) for text in episode.texts[self.instruction])
            return next((text for text in words if text), "")
        value = episode.metadata.get(self.instruction, "") if self.instruction else ""
        return _text(value) if isinstance(value, str | bytes) else ""

    def _terminate(self, episode: Episode) -> np.ndarray:
        if self.terminate is not None and self.terminate.column in episode.columns:
            return np.any(self._entries(episode, self.terminate, "end") > 0, axis=1)
        return terminates_at_end(episode.length)


def _text(value: str | bytes) -> str:
    return (value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value).strip()


_TO_RPY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "axis_angle": rotations.axis_angle_to_rpy,
    "quaternion_wxyz": rotations.quaternion_to_rpy,
    "quaternion_xyzw": lambda values: rotations.quaternion_to_rpy(rotations.wxyz_from_xyzw(values)),
}
