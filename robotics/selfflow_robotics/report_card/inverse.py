"""Actions recovered from films: an inverse model that has seen true pictures only says what was done in imagined ones.

A world model that ignores its actions may still show likely motion, which correlates with the true actions. So the
inverse model is asked about films of **another clip's** actions too: those cannot be guessed from the first picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F

from selfflow_mm.errors import UserError

from ..policies.seeds import derived_seed
from ..robot_episode import ACTION_NAMES
from .comparison import REFERENCE
from .films import Batch
from .networks import Fitting, SmallNetwork, apply, fit, shrunk
from .resampling import estimate
from .true_frames import TrueEpisode

__all__ = ["ActionsRecovered", "InverseModel"]

#: Correlation on true frames from which on a column can be recovered at all, and counts in the mean.
_RECOVERABLE = 0.3


class InverseModel:
    """Two consecutive pictures -> the action between them, in units of its standard deviation in the true episodes.

    Args:
        episodes: true ones, with at least one pair of pictures in all.
        seed: of the training.
        how: how long it learns.
        progress: called with updates done and planned.

    Raises:
        UserError: there is no pair of pictures.
    """

    def __init__(
        self,
        episodes: Sequence[TrueEpisode],
        *,
        seed: int,
        how: Fitting | None = None,
        progress: Callable[[int, int], None] = lambda done, planned: None,
    ) -> None:
        pairs, actions, pictures, before = [], [], [], 0
        for episode in episodes:
            steps = np.arange(len(episode.pictures) - 1)
            pairs.append(before + np.stack([steps, steps + 1], axis=1))
            actions.append(episode.actions[:-1])  # what is done at the last picture, none shows
            pictures.append(episode.pictures)
            before += len(episode.pictures)
        if not sum(map(len, pairs)):
            raise UserError("the inverse model needs true episodes of two pictures or more, and there are none")
        raw = np.concatenate(actions)
        self.pairs = len(raw)
        self.mean = raw.mean(axis=0)
        deviation = raw.std(axis=0)
        self.deviation = np.where(deviation > 0, deviation, 1).astype(np.float32)
        self._network: SmallNetwork = fit(
            np.concatenate(pictures),
            np.concatenate(pairs),
            self.normalised(raw),
            F.mse_loss,
            seed=derived_seed("inverse model", seed),
            how=how or Fitting(),
            progress=progress,
        )

    def normalised(self, actions: np.ndarray) -> np.ndarray:
        """Raw units -> ``(..., D)`` float32 of mean 0 and deviation 1 over the true episodes."""
        return ((actions - self.mean) / self.deviation).astype(np.float32)

    def actions(self, film: np.ndarray) -> np.ndarray:
        """``(T + 1, H, W, 3)`` uint8 -> ``(T, D)`` normalised actions between its pictures."""
        steps = np.arange(len(film) - 1)
        return apply(self._network, shrunk(film), np.stack([steps, steps + 1], axis=1))


class ActionsRecovered:
    """Section ``actions_recovered``: correlation and R2 of recovered actions with those that were put in.

    Args:
        inverse: trained on true frames.
        names: of the action's columns.
        seed: of the intervals.
    """

    name = "actions_recovered"
    films = (REFERENCE, "shuffled_actions", "copy_last_frame")

    def __init__(self, inverse: InverseModel, names: Sequence[str] = ACTION_NAMES, *, seed: int) -> None:
        self._inverse, self._names, self._seed = inverse, tuple(names), seed
        self._episodes: list[str] = []
        # film -> per clip ``(D, 7)``: n, and sums of x, y, xx, yy, xy, (x - y)^2; x was put in, y recovered
        self._sums: dict[str, list[np.ndarray]] = {}

    def add(self, batch: Batch) -> None:
        for row, clip in enumerate(batch.clips):
            truth = batch.truth[row]
            self._episodes.append(clip.episode)
            self._sums.setdefault("true_frames", []).append(self._compare(truth, clip.actions))
            for film in self.films:
                frames = np.concatenate([truth[:1], batch.films[film][row]])
                given = clip.strange_actions if film == "shuffled_actions" else clip.actions
                self._sums.setdefault(film, []).append(self._compare(frames, given))

    def result(self) -> dict[str, Any]:
        films: dict[str, Any] = {}
        for film, clips in self._sums.items():
            films[film] = {
                name: {
                    "correlation": estimate(
                        np.stack([clip[d] for clip in clips]), self._episodes, _correlation, self._seed
                    ).to_dict(),
                    "r2": estimate(np.stack([clip[d] for clip in clips]), self._episodes, _r2, self._seed).to_dict(),
                }
                for d, name in enumerate(self._names)
            }
        ceiling = {name: column["correlation"]["value"] for name, column in films["true_frames"].items()}
        recoverable = [name for name, value in ceiling.items() if value is not None and value >= _RECOVERABLE]
        return {
            "trained_on_pairs": self._inverse.pairs,
            "films": films,
            "recoverable": recoverable,
            "mean_correlation": {film: _mean_correlation(columns, recoverable) for film, columns in films.items()},
        }

    def _compare(self, film: np.ndarray, put_in: np.ndarray) -> np.ndarray:
        x, y = self._inverse.normalised(put_in).astype(np.float64), self._inverse.actions(film).astype(np.float64)
        parts = (np.ones_like(x), x, y, x * x, y * y, x * y, (x - y) ** 2)
        return np.stack([part.sum(axis=0) for part in parts], axis=1)


def _correlation(sums: np.ndarray) -> np.ndarray:
    """Pearson's r; NaN where one side does not vary (to rounding)."""
    n, x, y, xx, yy, xy, _ = np.moveaxis(sums, -1, 0)
    across, up = xx - x * x / n, yy - y * y / n
    flat = (across <= 1e-9 * xx) | (up <= 1e-9 * yy)
    return np.where(flat, np.nan, (xy - x * y / n) / np.sqrt(np.where(flat, 1, across * up)))


def _r2(sums: np.ndarray) -> np.ndarray:
    """1 - squared error / variance of what was put in; negative where the mean would have been the better guess."""
    n, x, _, xx, _, _, error = np.moveaxis(sums, -1, 0)
    variance = xx - x * x / n
    return np.where(variance <= 1e-9 * xx, np.nan, 1 - error / np.where(variance <= 0, 1, variance))


def _mean_correlation(columns: dict[str, Any], names: Sequence[str]) -> float | None:
    """Over the columns named, as far as they have one."""
    known = [value for name in names if (value := columns[name]["correlation"]["value"]) is not None]
    return float(np.mean(known)) if known else None
