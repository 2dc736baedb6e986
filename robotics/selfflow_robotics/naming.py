"""What a data set's columns are called in another format, and the way back.

To LeRobot: ``action``, ``observation.state`` and ``observation.images.*`` as the layout understands them, and beside
them every column of the source under its own name with dots, bit for bit. A note in ``meta/info.json`` says what was
what, so that the way back to RLDS restores the source's own features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from .episode import Episode, Feature
from .files import EpisodeFiles
from .layouts import Layout, Part
from .rlds.features import Tree
from .rlds.reader import RldsFiles
from .sources import RobotFiles

__all__ = ["NOTE", "Naming", "lerobot_naming", "rlds_naming"]

#: The key of ``meta/info.json`` under which a conversion says what was what.
NOTE = "selfflow_conversion"
NOTE_VERSION = 1
#: Columns that LeRobot makes itself.
_RESERVED = frozenset({"timestamp", "frame_index", "episode_index", "index", "task_index", "task"})
_ACTION, _STATE, _TASK = "action", "observation.state", "task"
_NUMBER = "episode_index"


@dataclass(frozen=True)
class Naming:
    """How the target calls what the source has.

    Attributes:
        features, metadata_features: of the target.
        translate: a source's episode under the target's names.
        note: what the way back needs to know.
        tree: of an RLDS target; None makes one from the features.
    """

    features: Mapping[str, Feature]
    metadata_features: Mapping[str, Feature]
    translate: Callable[[Episode], Episode]
    note: Mapping[str, Any] = field(default_factory=dict)
    tree: Tree | None = None


def lerobot_naming(source: RobotFiles) -> Naming:
    """Names for a LeRobot data set."""
    files, layout = source.files, source.layout
    if files.format.startswith("LeRobot"):
        return Naming(files.features, _kept(files), _unnumbered, files.description.get(NOTE) or {})
    names = _lerobot_names(files.features, layout)
    features = {new: files.features[old] for old, new in names.items()}
    features[_TASK] = Feature("text", (), "str")
    # What the layout puts together or changes becomes a column of its own; what it takes as it is has the name already.
    action_names, state_names = layout.names(files.features)
    made = []
    for name, labels in ((_ACTION, action_names), (_STATE, state_names)):
        if name in features:
            features[name] = replace(features[name], names=labels)
        elif labels:
            features[name] = Feature("array", (len(labels),), "float32", names=labels)
            made.append(name)

    def translate(episode: Episode) -> Episode:
        robot = layout.read(episode, files.fps)
        columns = {names[old]: values for old, values in episode.columns.items() if old in names}
        columns |= {name: robot.actions if name == _ACTION else robot.states for name in made}
        texts = {names[old]: words for old, words in episode.texts.items() if old in names}
        texts.setdefault(_TASK, [robot.instruction] * episode.length)
        pictures = {names[old]: value for old, value in episode.pictures.items() if old in names}
        return Episode(episode.id, episode.length, columns, texts, pictures, episode.metadata)

    note = {
        "version": NOTE_VERSION,
        "source": {"format": files.format, "name": files.name, "split": files.split},
        "layout": layout.name,
        "columns": {new: old for old, new in names.items()},
        "tree": {"json": files.tree.json, "order": files.tree.order} if isinstance(files, RldsFiles) else None,
    }
    return Naming(features, files.metadata_features, translate, note)


def rlds_naming(source: RobotFiles) -> Naming:
    """Names for an RLDS data set: the source's own if it was RLDS once, else the usual ones of such data."""
    files = source.files
    if isinstance(files, RldsFiles):
        return Naming(files.features, files.metadata_features, lambda episode: episode, tree=files.tree)
    note = files.description.get(NOTE) or {}
    if note.get("tree") is not None:
        if note.get("version") != NOTE_VERSION:
            raise UserError(f"{files.folder} was converted by another version of this program ({note.get('version')})")
        return _restored(files, note)
    return _usual(files)


def _restored(files: EpisodeFiles, note: Mapping[str, Any]) -> Naming:
    names: dict[str, str] = note["columns"]
    features = {old: files.features[new] for new, old in names.items() if new in files.features}
    missing = sorted(names.keys() - files.features.keys())
    if missing:
        raise UserError(f"{files.folder} no longer has the columns {', '.join(missing)} that its conversion note names")

    def translate(episode: Episode) -> Episode:
        return Episode(
            episode.id,
            episode.length,
            {names[new]: values for new, values in episode.columns.items() if new in names},
            {names[new]: words for new, words in episode.texts.items() if new in names},
            {names[new]: value for new, value in episode.pictures.items() if new in names},
            _unnumbered(episode).metadata,
        )

    return Naming(features, _kept(files), translate, tree=Tree(note["tree"]["json"], tuple(note["tree"]["order"])))


def _usual(files: EpisodeFiles) -> Naming:
    """RLDS' own step fields beside the columns, whose dots become slashes."""
    names = {new: new.replace(".", "/") for new in files.features if new != _TASK}
    if _TASK in files.features:
        names[_TASK] = "language_instruction"
    clashes = {old for old in names.values() if any(other.startswith(f"{old}/") for other in names.values())}
    names = {new: f"{old}/value" if old in clashes else old for new, old in names.items()}
    features = {old: files.features[new] for new, old in names.items()}
    flags = {"is_first": "bool", "is_last": "bool", "is_terminal": "bool", "reward": "float32", "discount": "float32"}
    added = {name: dtype for name, dtype in flags.items() if name not in features}
    features |= {name: Feature("array", (), dtype) for name, dtype in added.items()}

    def translate(episode: Episode) -> Episode:
        columns = {names[new]: values for new, values in episode.columns.items() if new in names}
        first, last = np.zeros(episode.length, bool), np.zeros(episode.length, bool)
        first[:1] = last[-1:] = True
        ones = np.ones(episode.length)
        values = {"is_first": first, "is_last": last, "is_terminal": last, "reward": last, "discount": ones}
        columns |= {name: values[name].astype(dtype) for name, dtype in added.items()}
        texts = {names[new]: words for new, words in episode.texts.items() if new in names}
        pictures = {names[new]: value for new, value in episode.pictures.items() if new in names}
        return Episode(episode.id, episode.length, columns, texts, pictures, _unnumbered(episode).metadata)

    return Naming(features, _kept(files), translate)


def _kept(files: EpisodeFiles) -> dict[str, Feature]:
    """The metadata of a LeRobot data set but its own count, which begins anew in another one."""
    return {name: feature for name, feature in files.metadata_features.items() if name != _NUMBER}


def _unnumbered(episode: Episode) -> Episode:
    return replace(episode, metadata={name: value for name, value in episode.metadata.items() if name != _NUMBER})


def _lerobot_names(features: Mapping[str, Feature], layout: Layout) -> dict[str, str]:
    """Native column -> LeRobot's name; every column has one, no two the same."""
    special = {column: f"observation.images.{name}" for name, column in layout.images.items()}
    special[layout.instruction] = _TASK
    for parts, name in ((layout.action, _ACTION), (layout.state, _STATE)):
        if parts and _as_it_is(parts, features[parts[0].column]):
            special[parts[0].column] = name
    names: dict[str, str] = {}
    taken = _RESERVED | {_ACTION, _STATE}
    for column, feature in features.items():
        name = special.get(column, "")
        if not name or (name == _TASK and feature.kind != "text"):
            name = column.replace("/", ".")
            if feature.kind == "picture":
                name = f"observation.images.{name.removeprefix('observation.')}"
            while name in taken or name in names.values() or name in special.values():
                name = f"native.{name}"
        names[column] = name
    return names


def _as_it_is(parts: tuple[Part, ...], feature: Feature) -> bool:
    """Whether the layout takes one whole float32 column without changing a number."""
    end: int | None = 0
    for part in parts:
        plain = part.rotation in (None, "rpy") and part.gripper in (None, "absolute_opening") and part.scale == 1
        if not plain or part.column != parts[0].column or part.start != end or len(feature.shape) != 1:
            return False
        end = feature.shape[0] if part.stop is None else part.stop
    return feature.dtype == "float32" and len(feature.shape) == 1 and end == feature.shape[0]
