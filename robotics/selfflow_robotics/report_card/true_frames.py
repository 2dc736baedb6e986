"""True pictures for the networks that judge: from episodes that no clip of the card was cut from."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from selfflow_mm.errors import UserError

from ..robot_episode import RobotEpisode
from ..sources import RobotFiles
from .held_out import View, shuffled_episodes
from .networks import shrunk

__all__ = ["TrueEpisode", "true_episodes"]


@dataclass(frozen=True, eq=False)
class TrueEpisode:
    """An episode as the judges see it.

    Attributes:
        id, instruction: of the episode.
        pictures: ``(T, 3, 64, 80)`` uint8, by way of the model's size, so that true and imagined pictures are alike.
        actions: ``(T, D)`` float32.
        success: as the data set tells; True where it does not.
    """

    id: str
    instruction: str
    pictures: np.ndarray
    actions: np.ndarray
    success: bool


def true_episodes(
    source: RobotFiles,
    count: int,
    *,
    seed: int,
    view: View,
    without: Collection[str] = (),
    wanted: Callable[[RobotEpisode], bool] = lambda episode: True,
    progress: Callable[[int, int], None] = lambda done, planned: None,
) -> list[TrueEpisode]:
    """Up to ``count`` readable episodes in a seeded order.

    Args:
        source: where from.
        count: at most so many.
        seed: of the order.
        view: pictures are brought to the model's size first, as the card's clips are.
        without: ids of episodes that must not be seen.
        wanted: which of the others; asked before pictures are decoded.
        progress: called with episodes done and planned.
    """
    found: list[TrueEpisode] = []
    order = shuffled_episodes(source, seed, "true episodes")
    planned = min(count, len(order))
    progress(0, planned)
    for number in order:
        if len(found) == count:
            break
        try:
            episode = source.read(*source.locate(int(number)))
            if episode.id in without or not np.isfinite(episode.actions).all() or not wanted(episode):
                continue
            pictures = shrunk(view.read(episode))
        except UserError:
            continue  # a damaged episode is one example fewer
        success = bool(episode.metadata.get("aspects/success", True))
        actions = np.asarray(episode.actions, np.float32)
        found.append(TrueEpisode(episode.id, episode.instruction, pictures, actions, success))
        progress(len(found), planned)
    return found
