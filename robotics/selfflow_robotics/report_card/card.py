"""The report card: sections measured over one pass through the clips, and the file ``card.json``."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import WorldModel
from ..sources import RobotFiles
from .counterfactual import Counterfactual
from .films import Batch, Imagining, batches
from .held_out import Clip, View, choose_clips
from .inverse import ActionsRecovered, InverseModel
from .moving import Moving
from .networks import Fitting
from .open_loop import OpenLoop
from .true_frames import true_episodes

__all__ = ["FORMAT", "HORIZONS", "SECTIONS", "VERSION", "CardSettings", "Example", "make_card", "save_card", "view_of"]

FORMAT, VERSION = "selfflow-world-model-card", 1
HORIZONS = (1, 2, 4, 8, 16, 32, 64)
#: Those that one pass over the clips measures; ``policies_ranked`` is another matter.
SECTIONS = ("open_loop", "moving_region", "counterfactual", "actions_recovered")
_SHOWN = 4

#: Called with what is done, how much of it, and how much there is.
Progress = Callable[[str, int, int], None]


class Section(Protocol):
    """One kind of measurement: it names the films it needs, sees every batch once, and then gives plain values."""

    @property
    def name(self) -> str: ...

    @property
    def films(self) -> tuple[str, ...]: ...

    def add(self, batch: Batch) -> None: ...

    def result(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class CardSettings:
    """What is measured, and how.

    Attributes:
        clips: how many are cut from held-out episodes.
        horizons: frames ahead, ascending.
        imagining: how the model is asked; its seed is the card's.
        sections: of :data:`SECTIONS`.
        true_episodes: that the inverse model learns from.
        fitting: how long it learns.
        camera: None for the one that the model says, or else the first.
        first: clips come from the first so many episodes of the split only; None for all.
    """

    clips: int = 64
    horizons: tuple[int, ...] = HORIZONS
    imagining: Imagining = field(default_factory=Imagining)
    sections: tuple[str, ...] = SECTIONS
    true_episodes: int = 300
    fitting: Fitting = field(default_factory=Fitting)
    camera: str | None = None
    first: int | None = None

    def __post_init__(self) -> None:
        if self.first is not None and self.first < 2:
            raise UserError(f"a card needs clips of two episodes at least, and they may come from {self.first} only")
        for name in self.sections:
            if name not in SECTIONS:
                raise UserError(f"the card has no section '{name}'; it has {', '.join(SECTIONS)}")
        if not self.horizons or list(self.horizons) != sorted(set(self.horizons)) or self.horizons[0] < 1:
            raise UserError(f"horizons are ascending numbers of frames, at least 1, got {list(self.horizons)}")
        if self.true_episodes < 1:
            raise UserError(f"the inverse model learns from at least one episode, not {self.true_episodes}")


@dataclass(frozen=True, eq=False)
class Example:
    """Films of one clip, to look at: ``films``: name -> ``(T, H, W, 3)`` uint8, the truth among them."""

    clip: Clip
    films: dict[str, np.ndarray]


def view_of(model: WorldModel, camera: str | None = None) -> View:
    """How the model sees an episode; its own camera unless another is named."""
    about = model.about
    return View(about.height, about.width, about.fit, camera or about.camera or None)


def make_card(
    model: WorldModel,
    held_out: RobotFiles,
    true_source: RobotFiles,
    settings: CardSettings,
    progress: Progress = lambda what, done, planned: None,
) -> tuple[dict[str, Any], list[Example]]:
    """Measure.

    Args:
        model: the world model.
        held_out: episodes it was not trained on; clips are cut from them.
        true_source: where the inverse model learns; may be the same: episodes of clips are left out. Where no other is
            there, so is the section, and the card says so.
        settings: what and how.
        progress: called as work goes on.

    Returns:
        the card as plain values for JSON, and films of a few clips to look at. A function of the arguments, but for the
        time it took.

    Raises:
        UserError: the data do not fit the model, or are too few.
    """
    began = time.monotonic()
    about, seed = model.about, settings.imagining.seed
    view = view_of(model, settings.camera)
    clips = choose_clips(
        held_out,
        settings.clips,
        settings.horizons,
        seed=seed,
        view=view,
        first=settings.first,
        progress=lambda done, planned: progress("choosing clips", done, planned),
    )
    width = clips.clips[0].actions.shape[1]
    if width != len(about.action_names):
        raise UserError(
            f"the model takes actions of {len(about.action_names)} numbers ({', '.join(about.action_names)}), the data "
            f"in {held_out.files.folder} have {width}"
        )
    skipped: dict[str, str] = {}
    if not math.isclose(about.control_rate, held_out.control_rate, rel_tol=0.01):
        raise UserError(
            f"the model takes {about.control_rate:g} actions a second, the data in {held_out.files.folder} have "
            f"{held_out.control_rate:g}"
        )
    sections: list[Section] = []
    for name in settings.sections:
        if name == "open_loop":
            sections.append(OpenLoop(settings.horizons, seed))
        elif name == "moving_region":
            sections.append(Moving(settings.horizons, seed))
        elif name == "counterfactual":
            sections.append(Counterfactual(settings.horizons, seed))
        else:
            inverse = _inverse(true_source, [clip.episode for clip in clips.clips], view, settings, progress)
            if inverse is None:
                skipped[name] = (
                    f"in split '{true_source.files.split}' no episode without a clip is left for the inverse model "
                    "to learn from; name another split (--true-split), or take fewer clips"
                )
            else:
                sections.append(ActionsRecovered(inverse, about.action_names, seed=seed))
    examples: list[Example] = []
    wanted = {film for section in sections for film in section.films}
    done = 0
    progress("imagining", 0, len(clips.clips))
    for batch in batches(model, clips, settings.imagining, wanted) if sections else ():
        for section in sections:
            section.add(batch)
        examples += _examples(batch, _SHOWN - len(examples))
        done += len(batch.clips)
        progress("imagining", done, len(clips.clips))
    card = {
        "format": FORMAT,
        "format_version": VERSION,
        "model": asdict(about),
        "data": {
            "name": held_out.files.name,
            "split": held_out.files.split,
            "episodes": len(held_out),
            "true_split": true_source.files.split,
            "skipped_episodes": list(clips.skipped),
        },
        "settings": asdict(settings) | {"camera": view.camera, "fit": view.fit},
        "versions": versions(),
        "clips": [clip.facts() for clip in clips.clips],
        "skipped": skipped,
        **{section.name: section.result() for section in sections},
        "seconds": round(time.monotonic() - began, 1),
    }
    return card, examples


def save_card(card: dict[str, Any], path: Path) -> None:
    """Write ``card.json``, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(card, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(draft, path)


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in ("selfflow-mm", "torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that was not installed
            found[package] = "not installed"
    return found


def _inverse(
    source: RobotFiles, clips: Sequence[str], view: View, settings: CardSettings, progress: Progress
) -> InverseModel | None:
    episodes = true_episodes(
        source,
        settings.true_episodes,
        seed=settings.imagining.seed,
        view=view,
        without=set(clips),
        progress=lambda done, planned: progress("reading true episodes", done, planned),
    )
    if not any(len(episode.pictures) > 1 for episode in episodes):
        return None
    return InverseModel(
        episodes,
        seed=settings.imagining.seed,
        how=settings.fitting,
        progress=lambda done, planned: progress("training the inverse model", done, planned),
    )


def _examples(batch: Batch, most: int) -> list[Example]:
    return [
        Example(clip, {"truth": batch.truth[row, 1:], **{name: film[row] for name, film in batch.films.items()}})
        for row, clip in enumerate(batch.clips[: max(0, most)])
    ]
