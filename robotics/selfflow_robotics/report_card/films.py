"""Films to be compared with the truth: what the model imagines of true and of other actions, and what copying gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from ..actions.chunks import padded
from ..interfaces import WorldModel
from ..policies.seeds import derived_seed
from ..robot_episode import ACTION_NAMES, GRIPPER
from .held_out import Clip, HeldOut

__all__ = ["REANCHOR_EVERY", "REANCHOR_TO", "Batch", "Imagining", "batches", "mirrored", "still"]

#: Frames between two true pictures in the re-anchored protocol, and its last frame (IRASim's short benchmark).
REANCHOR_EVERY, REANCHOR_TO = 8, 16


@dataclass(frozen=True)
class Imagining:
    """How the model is asked.

    Attributes:
        seed: of the card; every film has a seed of its own, derived from it, the film's name and the clip.
        batch: clips at a time; results do not depend on it as far as the model's do not.
        steps, context_level: as in :meth:`WorldModel.imagine`.
    """

    seed: int = 0
    batch: int = 8
    steps: int | None = None
    context_level: float | None = None

    def __post_init__(self) -> None:
        if self.batch < 1 or self.seed < 0:
            raise UserError(f"a batch has at least one clip and a seed is 0 or more, got {self.batch} and {self.seed}")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"the solver takes at least 1 step, got {self.steps}")
        if self.context_level is not None and not 0 <= self.context_level < 1:
            raise UserError(f"the context level is a noise level in [0, 1), got {self.context_level:g}")

    def ask(
        self, model: WorldModel, images: np.ndarray, actions: np.ndarray, instructions: Sequence[str], seeds: list[int]
    ) -> np.ndarray:
        """``(B, T, height, width, 3)`` uint8, checked.

        Raises:
            UserError: the model gives something else than it promises.
        """
        films = model.imagine(
            images, actions, instructions, seeds=seeds, steps=self.steps, context_level=self.context_level
        )
        expected = (*actions.shape[:2], model.about.height, model.about.width, 3)
        if films.shape != expected or films.dtype != np.uint8:
            raise UserError(
                f"the world model '{model.about.name}' gave pictures of {films.shape} and {films.dtype}; "
                f"asked for were {expected} of uint8"
            )
        return films


@dataclass(frozen=True, eq=False)
class Batch:
    """Clips of one length T with everything that sections measure.

    Attributes:
        clips: B of them.
        truth: ``(B, T + 1, height, width, 3)`` uint8.
        films: name -> ``(B, T, height, width, 3)`` uint8 (``reanchor8`` may be shorter, and missing).
        actions: name -> ``(B, T, D)``, what was put into the film.
    """

    clips: tuple[Clip, ...]
    truth: np.ndarray
    films: dict[str, np.ndarray] = field(default_factory=dict)
    actions: dict[str, np.ndarray] = field(default_factory=dict)


def still(actions: np.ndarray, names: Sequence[str] = ACTION_NAMES) -> np.ndarray:
    """As many actions ``(T, D)`` in which nothing moves: zero motion and the gripper that the first action wants.

    Actions that are no pose (joint angles) repeat the first one.
    """
    return padded(actions, np.full(len(actions), -1), names)


def mirrored(
    actions: np.ndarray, names: Sequence[str] = ACTION_NAMES, low: Sequence[float] = (), high: Sequence[float] = ()
) -> np.ndarray:
    """The opposite of ``(..., D)`` actions: motion the other way, an open gripper closed.

    Actions that are no pose are mirrored at the middle of their range where ``low`` and ``high`` tell it, else at 0.
    """
    if tuple(names[: len(ACTION_NAMES)]) == ACTION_NAMES:
        result = -actions
        result[..., GRIPPER:] = 1 - actions[..., GRIPPER:]
        return result
    centre = np.add(low, high) if len(low) and len(low) == len(high) else 0.0
    return np.asarray(centre - actions, actions.dtype)


def batches(model: WorldModel, held_out: HeldOut, how: Imagining, wanted: Iterable[str]) -> Iterator[Batch]:
    """All clips in batches of equal length, the longest first, with the films that are ``wanted``.

    Films: ``model`` (true actions); ``other_seed`` (true actions, a second seed); ``zero_actions``,
    ``mirrored_actions`` and ``shuffled_actions`` (another clip's), with the second seed; ``reanchor8`` (true actions,
    starting anew from the true picture every 8 frames, up to frame 16; only of clips longer than 8);
    ``copy_last_frame``; ``tokenizer_ceiling`` (the truth through the model's tokenizer, if the model has
    ``reconstruct``).

    Clips of different lengths never share a call: padding would be actions that a model may see.
    """
    names = set(wanted)
    longest = sorted(held_out.clips, key=lambda clip: -len(clip))
    for _, group in groupby(longest, key=len):
        same = list(group)
        for start in range(0, len(same), how.batch):
            clips = tuple(same[start : start + how.batch])
            yield _batch(model, held_out, how, clips, names)


def _batch(model: WorldModel, held_out: HeldOut, how: Imagining, clips: tuple[Clip, ...], names: set[str]) -> Batch:
    about = model.about
    truth = np.stack([held_out.pictures(clip) for clip in clips])
    true = np.stack([clip.actions for clip in clips])
    actions = {
        "model": true,
        "other_seed": true,
        "zero_actions": np.stack([still(clip.actions, about.action_names) for clip in clips]),
        "mirrored_actions": mirrored(true, about.action_names, about.action_low, about.action_high),
        "shuffled_actions": np.stack([clip.strange_actions for clip in clips]),
    }
    batch = Batch(clips, truth, actions={name: value for name, value in actions.items() if name in names})
    told = [clip.instruction for clip in clips]
    for name, given in batch.actions.items():
        which = "first" if name == "model" else "second"
        seeds = [derived_seed(f"{which} film", how.seed, clip.number) for clip in clips]
        batch.films[name] = how.ask(model, truth[:, 0], given, told, seeds)
    if "copy_last_frame" in names:
        batch.films["copy_last_frame"] = np.broadcast_to(truth[:, :1], truth[:, 1:].shape)
    if "reanchor8" in names and true.shape[1] > REANCHOR_EVERY:
        batch.films["reanchor8"] = _reanchored(model, how, batch, true, told)
    reconstruct: Any = getattr(model, "reconstruct", None)
    if "tokenizer_ceiling" in names and reconstruct is not None:
        batch.films["tokenizer_ceiling"] = np.stack([reconstruct(clip[1:]) for clip in truth])  # memory: one at a time
    return batch


def _reanchored(model: WorldModel, how: Imagining, batch: Batch, actions: np.ndarray, told: list[str]) -> np.ndarray:
    parts = []
    for start in range(0, min(actions.shape[1], REANCHOR_TO), REANCHOR_EVERY):
        stretch = actions[:, start : min(start + REANCHOR_EVERY, REANCHOR_TO)]
        seeds = [derived_seed("reanchored film", how.seed, clip.number, start) for clip in batch.clips]
        parts.append(how.ask(model, batch.truth[:, start], stretch, told, seeds))
    return np.concatenate(parts, axis=1)
