"""Clips cut from held-out episodes: chosen by a seed, read when needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from selfflow_mm.errors import UserError

from ..actions.chunks import padded
from ..episode import Pictures
from ..policies.seeds import derived_seed
from ..resizing import Fit, resize
from ..robot_episode import RobotEpisode
from ..sources import RobotFiles

__all__ = ["Clip", "HeldOut", "choose_clips", "View", "pictures_of", "shuffled_episodes"]


@dataclass(frozen=True, eq=False)
class Clip:
    """A stretch of an episode: the picture at ``start``, T actions, and the T pictures after each of them.

    Attributes:
        number: of the clip in the card.
        episode: its id.
        place: (shard, index) of the episode.
        start: step of the first picture.
        actions: ``(T, D)`` raw units.
        strange_actions: ``(T, D)`` of another clip's episode, from that clip's start on.
        strange_clip: that clip's number.
        instruction: what the robot was told.
    """

    number: int
    episode: str
    place: tuple[int, int]
    start: int
    actions: np.ndarray
    strange_actions: np.ndarray
    strange_clip: int
    instruction: str

    def __len__(self) -> int:
        return len(self.actions)

    def facts(self) -> dict[str, str | int]:
        """What is recorded of it."""
        return {
            "number": self.number,
            "episode": self.episode,
            "start": self.start,
            "length": len(self),
            "strange_clip": self.strange_clip,
        }


def pictures_of(episode: RobotEpisode, camera: str | None) -> Pictures:
    """What one camera saw, or the first one for None.

    Raises:
        UserError: the episode has no such camera.
    """
    name = next(iter(episode.images), "") if camera is None else camera
    if name not in episode.images:
        raise UserError(f"episode {episode.id} has no camera '{name}'; it has {', '.join(episode.images) or 'none'}")
    return episode.images[name]


@dataclass(frozen=True)
class View:
    """How the model sees an episode.

    Attributes:
        height, width: of its pictures.
        fit: how others are brought to that size.
        camera: whose pictures; None for an episode's first camera.
    """

    height: int
    width: int
    fit: Fit = "pad"
    camera: str | None = None

    def read(self, episode: RobotEpisode, steps: Sequence[int] | None = None) -> np.ndarray:
        """``(n, height, width, 3)`` uint8 of the steps named, or of all.

        Raises:
            UserError: no such camera, or a picture that does not decode.
        """
        return resize(pictures_of(episode, self.camera).read(steps), (self.height, self.width), self.fit)


@dataclass(frozen=True)
class HeldOut:
    """The clips and where their pictures come from.

    Attributes:
        source: the data set, at the held-out split.
        clips: in the order in which they were chosen.
        view: the model's.
        skipped: sentences about episodes that could not be used.
    """

    source: RobotFiles
    clips: tuple[Clip, ...]
    view: View
    skipped: tuple[str, ...] = ()

    def pictures(self, clip: Clip) -> np.ndarray:
        """``(T + 1, height, width, 3)`` uint8; the first is the one that prediction starts from."""
        return self.view.read(self.source.read(*clip.place), range(clip.start, clip.start + len(clip) + 1))


def shuffled_episodes(source: RobotFiles, seed: int, what: str, first: int | None = None) -> np.ndarray:
    """Numbers of the first so many episodes, or of all, in a seeded order; those in missing shards do not count."""
    numbers = [n for n in range(len(source)) if source.locate(n)[0] not in source.files.missing]
    return np.random.default_rng(derived_seed(what, seed)).permutation(numbers[:first])


def choose_clips(
    source: RobotFiles,
    count: int,
    horizons: Sequence[int],
    *,
    seed: int,
    view: View,
    first: int | None = None,
    progress: Callable[[int, int], None] = lambda done, planned: None,
) -> HeldOut:
    """Choose ``count`` clips: first one from each episode in a seeded order, then a second one from each, and so on.

    A clip is as long as the largest of the ``horizons`` that its episode holds, so that the long ones get all the clips
    that the data can give; where it starts is drawn. Two clips of an episode start at different steps. Fewer come where
    there are no more. With ``first`` they come from the first so many episodes only: those that a fine-tuning run holds
    out of a split that it trains on.

    Raises:
        UserError: a setting out of range, or fewer than two episodes are long enough (actions are exchanged between
            episodes).
    """
    if count < 1 or not horizons or min(horizons) < 1:
        raise UserError(f"a card needs at least one clip and horizons of at least 1, got {count} and {list(horizons)}")
    order = shuffled_episodes(source, seed, "clips", first)
    found: list[tuple[tuple[int, int], RobotEpisode, np.ndarray, int]] = []
    skipped: list[str] = []
    progress(0, min(count, len(order)))
    for number in order:
        if len(found) == count:
            break
        place = source.locate(int(number))
        try:
            episode = source.read(*place)
            pictures_of(episode, view.camera).read(range(len(episode)))  # a damaged one shows now, not in mid-card
        except UserError as error:
            skipped.append(str(error))
            continue
        fitting = [h for h in horizons if h < len(episode)]
        if not fitting or not np.isfinite(episode.actions).all():
            why = "has an action that is not finite" if fitting else f"has only {len(episode)} steps"
            skipped.append(f"episode {episode.id} {why}")
            continue
        random = np.random.default_rng(derived_seed("starts of clips", seed, *episode.id.encode()))
        found.append((place, episode, random.permutation(len(episode) - max(fitting)), max(fitting)))
        progress(len(found), min(count, len(order)))
    if len(found) < 2:
        reason = f" (left out: {skipped[0]})" if skipped else ""
        raise UserError(
            f"{source.files.folder} has {len(found)} readable episodes of more than {min(horizons)} steps in split "
            f"'{source.files.split}'; the card needs at least two{reason}"
        )
    rounds = range(max(len(starts) for _, _, starts, _ in found))
    chosen = [
        (place, episode, int(starts[r]), length)
        for r in rounds
        for place, episode, starts, length in found
        if r < len(starts)
    ][:count]
    if len({episode.id for _, episode, _, _ in chosen}) < 2:
        raise UserError("a card needs clips of two episodes at least, because actions are exchanged between them")
    clips = []
    for number, (place, episode, start, length) in enumerate(chosen):
        other = _partner(number, [entry[1].id for entry in chosen], seed)
        actions, strange = (_actions(chosen[which][1], chosen[which][2], length) for which in (number, other))
        clips.append(Clip(number, episode.id, place, start, actions, strange, other, episode.instruction))
    return HeldOut(source, tuple(clips), view, tuple(skipped))


def _partner(number: int, episodes: Sequence[str], seed: int) -> int:
    """A clip of another episode."""
    others = [n for n, episode in enumerate(episodes) if episode != episodes[number]]
    return int(np.random.default_rng(derived_seed("partner of a clip", seed, number)).choice(others))


def _actions(episode: RobotEpisode, start: int, length: int) -> np.ndarray:
    """``(length, D)`` float32; beyond the episode's end the robot holds still."""
    actions = np.asarray(episode.actions, np.float32)
    return padded(actions, np.arange(start, start + length), episode.action_names)
