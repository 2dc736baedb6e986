"""Do actions act? Films of the same start with other actions, compared with films of the same actions and another seed.

The distance of two films is the root mean square difference of their pixels in grey levels (of 255), averaged over
frames 1 to h. Two questions:

- **with different seeds**: ratio of the distance between films of different actions to the distance between films of
  the true actions, both between different seeds. Above 1 says that actions act beyond chance; about 1, that they are
  ignored.
- **with the same seed**: the distance itself. Exactly 0 says that actions are not used at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .comparison import REFERENCE
from .films import Batch
from .resampling import Estimate, estimate, mean_of

__all__ = ["ACTIONS", "Counterfactual"]

#: Film -> what was done instead of the true actions.
ACTIONS = {
    "zero_actions": "no motion",
    "mirrored_actions": "the opposite motion",
    "shuffled_actions": "another clip's actions",
}
_OTHER = "other_seed"
#: A ratio above 1 by less is real but of little use.
_CLEAR = 1.1


class Counterfactual:
    """Section ``counterfactual``.

    Args:
        horizons: frames ahead, ascending.
        seed: of the intervals.
    """

    name = "counterfactual"
    films = (REFERENCE, _OTHER, *ACTIONS)

    def __init__(self, horizons: Sequence[int], seed: int) -> None:
        self._horizons, self._seed = tuple(horizons), seed
        self._episodes: list[str] = []
        # name of the pair -> per clip, ``(H,)`` distances up to each horizon
        self._distances: dict[str, list[np.ndarray]] = {}

    def add(self, batch: Batch) -> None:
        first, second = batch.films[REFERENCE], batch.films[_OTHER]
        pairs = {"seeds": (first, second)}
        for name in ACTIONS:
            pairs[f"{name}/different seeds"] = (first, batch.films[name])
            pairs[f"{name}/same seed"] = (second, batch.films[name])
        self._episodes += [clip.episode for clip in batch.clips]
        for name, (one, other) in pairs.items():
            self._distances.setdefault(name, []).extend(self._distance(a, b) for a, b in zip(one, other, strict=True))

    def result(self) -> dict[str, Any]:
        found = {f"h{horizon}": self._at(place) for place, horizon in enumerate(self._horizons)}
        return {"horizons": list(self._horizons), "unit": "grey levels of 255, root mean square", **found}

    def _at(self, place: int) -> dict[str, Any]:
        seeds = self._of("seeds", place)
        of_seeds = mean_of(seeds, self._episodes, self._seed)
        result: dict[str, Any] = {"between_seeds": of_seeds.to_dict(), "actions": {}}
        for name, what in ACTIONS.items():
            other, same = (self._of(f"{name}/{how}", place) for how in ("different seeds", "same seed"))
            ratio = estimate(
                np.stack([other, seeds], axis=1), self._episodes, lambda s: s[..., 0] / s[..., 1], self._seed
            )
            of_same = mean_of(same, self._episodes, self._seed)
            result["actions"][name] = {
                "ratio_to_seeds": ratio.to_dict(),
                "different_seeds": mean_of(other, self._episodes, self._seed).to_dict(),
                "same_seed": of_same.to_dict(),
                "verdict": _verdict(ratio, of_same, of_seeds, what),
            }
        return result

    def _of(self, pair: str, place: int) -> np.ndarray:
        return np.array([clip[place] for clip in self._distances[pair]])

    def _distance(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        difference = one.astype(np.float32) - other.astype(np.float32)
        of_frames = np.sqrt(np.mean(difference**2, axis=(1, 2, 3), dtype=np.float64))
        known = [of_frames[:h].mean() if h <= len(of_frames) else np.nan for h in self._horizons]
        return np.array(known)


def _verdict(ratio: Estimate, same: Estimate, seeds: Estimate, what: str) -> str:
    if same.n == 0:
        return f"no clip is long enough to try {what}"
    if same.value == 0:
        return f"actions are ignored: with the same seed, {what} gives the very same film"
    if seeds.value == 0:
        return f"actions act: {what} changes the film by {same.value:.2f} grey levels, another seed by nothing"
    if ratio.low > 1:
        how = "actions act" if ratio.value > _CLEAR else "actions hardly act"
        return f"{how}: {what} changes the film {ratio.value:.2f} times as much as another seed"
    if np.isnan(ratio.low):
        return (
            f"{what} changes the film {ratio.value:.2f} times as much as another seed; too few episodes "
            f"({ratio.episodes}) to tell"
        )
    return f"no effect beyond another seed's: {what} gives {ratio.value:.2f} times its change"
