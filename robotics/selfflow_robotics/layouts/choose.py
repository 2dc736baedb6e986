"""Which layout a data set takes: the one beside it, the one of its name, or the one whose columns it has."""

from __future__ import annotations

from pathlib import Path

from selfflow_mm.errors import UserError

from ..files import EpisodeFiles
from ..robot_episode import ACTION_NAMES
from .layout import Layout, Part

__all__ = ["BESIDE", "choose_layout", "named_layouts"]

#: A layout of this name in a data set's folder is taken before any other.
BESIDE = "layout.yaml"


def named_layouts() -> dict[str, Path]:
    """The layouts that ship with the package, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def choose_layout(files: EpisodeFiles, wanted: Path | str | None = None) -> Layout:
    """The layout of a data set.

    Args:
        files: the data set.
        wanted: a layout file, or the name of one that ships with the package; None lets the data set decide: its own
            ``layout.yaml``, the layout of its name, a LeRobot data set's own names, or the first layout whose columns
            it has.

    Raises:
        UserError: there is no such layout, or none fits; the sentence lists the columns there are.
    """
    known = named_layouts()
    if wanted is not None:
        path = known.get(str(wanted), Path(wanted))
        if not path.is_file():
            raise UserError(f"there is no layout '{wanted}'; give a file, or one of {', '.join(known)}")
        return _fitting(Layout.from_yaml(path), files)
    if (files.folder / BESIDE).is_file():
        return _fitting(Layout.from_yaml(files.folder / BESIDE), files)
    if files.name in known:
        return _fitting(Layout.from_yaml(known[files.name]), files)
    if files.format.startswith("LeRobot"):
        return _lerobot_layout(files)
    for path in known.values():
        layout = Layout.from_yaml(path)
        if layout.fits(files.features):
            return layout
    raise UserError(
        f"no known layout fits the data set '{files.name}' in {files.folder}; say which columns are the action and the "
        f"pictures in a file {BESIDE} beside it, or name a file with --layout (docs/robot-data.md has the format); "
        f"its columns are {', '.join(files.features)}"
    )


def _fitting(layout: Layout, files: EpisodeFiles) -> Layout:
    missing = sorted(layout.needs() - files.features.keys())
    if missing:
        raise UserError(
            f"layout '{layout.name}' does not fit {files.folder}: there is no column {', '.join(missing)}; "
            f"there are {', '.join(files.features)}"
        )
    return layout


def _lerobot_layout(files: EpisodeFiles) -> Layout:
    """LeRobot's column names have a meaning of their own: ``action``, ``observation.state``, ``observation.images.*``.

    Seven numbers called x, y, z, roll, pitch, yaw, gripper are the house's convention: that is how the converted
    copies of Open X-Embodiment have them. Anything else is taken as it is.
    """
    if "action" not in files.features:
        raise UserError(f"the LeRobot data set in {files.folder} has no column 'action'; name a layout with --layout")
    names = tuple(name.rpartition(".")[2].lower() for name in files.features["action"].names)
    pose = names == ACTION_NAMES
    cameras = {
        name.removeprefix("observation.images.").removeprefix("observation."): name
        for name, feature in files.features.items()
        if feature.kind == "picture"
    }
    action: tuple[Part, ...] = (Part("action", names=() if pose else files.features["action"].names),)
    if pose:
        action = (
            Part("action", 0, 3, names=ACTION_NAMES[:3]),
            Part("action", 3, 6, names=ACTION_NAMES[3:6], rotation="rpy"),
            Part("action", 6, 7, names=ACTION_NAMES[6:], gripper="absolute_opening"),
        )
    state = "observation.state"
    return Layout(
        name="lerobot",
        robot=str(files.description.get("robot_type") or ""),
        convention="pose" if pose else "raw",
        action=action,
        state=(Part(state, names=files.features[state].names),) if state in files.features else (),
        images=cameras,
        instruction="task",
        sound="observation.sound",
    )
