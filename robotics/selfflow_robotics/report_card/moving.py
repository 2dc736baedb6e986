"""The same errors where something truly moves: elsewhere copying wins, and most of a picture is elsewhere.

A pixel moves in frame t if one of its channels differs from frame 0 by more than ``THRESHOLD`` levels of 255 in the
**true** film, so no model can choose its own region. ``psnr_rgb_moving_h16_openloop`` is the PSNR of the mean squared
error over all moving pixels of frames 1 to 16 of a clip; clips in which fewer than ``LEAST`` pixels move do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .comparison import BASELINES, REFERENCE, compare, verdict
from .films import Batch
from .picture_errors import COLOURS, psnr, squared_error
from .resampling import mean_of

__all__ = ["LEAST", "THRESHOLD", "Moving"]

#: Over what JPEG and film compression change in pictures of a scene at rest.
THRESHOLD = 20
LEAST = 16


class Moving:
    """Section ``moving_region``.

    Args:
        horizons: frames ahead, ascending.
        seed: of the intervals.
    """

    name = "moving_region"
    films = (REFERENCE, *BASELINES, "tokenizer_ceiling")

    def __init__(self, horizons: Sequence[int], seed: int) -> None:
        self._horizons, self._seed = tuple(horizons), seed
        self._episodes: list[str] = []
        # (film, colour) -> per clip, ``(H,)`` PSNR over the moving pixels of frames 1..h; NaN where it does not count
        self._psnr: dict[tuple[str, str], list[np.ndarray]] = {}
        self._share: list[np.ndarray] = []

    def add(self, batch: Batch) -> None:
        for row, clip in enumerate(batch.clips):
            truth = batch.truth[row]
            moved = np.abs(truth[1:].astype(np.int16) - truth[0].astype(np.int16)).max(axis=-1) > THRESHOLD
            count = np.cumsum(moved.sum(axis=(1, 2)))
            pixels = moved[0].size * np.arange(1, len(moved) + 1)
            self._episodes.append(clip.episode)
            self._share.append(self._at_horizons(count / pixels))
            for film in self.films:
                if film in batch.films:
                    for colour in COLOURS:
                        error = squared_error(batch.films[film][row], truth[1:], colour)
                        total = np.cumsum((error * moved).sum(axis=(1, 2)))
                        # Too few moving pixels: NaN, and the clip does not count.
                        mean = np.where(count >= LEAST, total / np.maximum(count, 1), np.nan)
                        self._psnr.setdefault((film, colour), []).append(psnr(self._at_horizons(mean)))

    def result(self) -> dict[str, Any]:
        metrics, verdicts, shares = {}, {}, {}
        for place, horizon in enumerate(self._horizons):
            for colour in COLOURS:
                values = {
                    film: np.array([clip[place] for clip in self._psnr[film, colour]])
                    for film in self.films
                    if (film, colour) in self._psnr
                }
                metrics[f"psnr_{colour}_moving_h{horizon}_openloop"] = compare(values, self._episodes, self._seed)
            main = metrics[f"psnr_rgb_moving_h{horizon}_openloop"]
            verdicts[f"h{horizon}"] = {"n": main[REFERENCE]["n"], **verdict(main["minus"])}
            share = np.array([clip[place] for clip in self._share])
            shares[f"h{horizon}"] = mean_of(share, self._episodes, self._seed).to_dict()
        return {
            "horizons": list(self._horizons),
            "threshold": THRESHOLD,
            "least_pixels": LEAST,
            "share_of_pixels_that_move": shares,
            "metrics": metrics,
            "verdicts": verdicts,
        }

    def _at_horizons(self, of_frames: np.ndarray) -> np.ndarray:
        known = [of_frames[h - 1] if h <= len(of_frames) else np.nan for h in self._horizons]
        return np.array(known, np.float64)
