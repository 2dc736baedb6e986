"""Prediction: PSNR and SSIM over horizons, beside copying and beside the model with wrong actions.

The protocol is part of a metric's name. ``psnr_gray_h16_openloop``: mean over frames 1 to 16 of each frame's PSNR,
frame 0 being the true picture that prediction starts from, on luma, without any other true picture.
``psnr_gray_at16_openloop``: frame 16 alone. ``..._reanchor8``: a true picture is given again after every 8 frames, as
in IRASim's short benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .comparison import BASELINES, REFERENCE, compare, verdict
from .films import REANCHOR_EVERY, REANCHOR_TO, Batch
from .picture_errors import COLOURS, psnr, squared_error, ssim_of_each

__all__ = ["OpenLoop"]

_REANCHORED = "reanchor8"


class OpenLoop:
    """Section ``open_loop``.

    Args:
        horizons: frames ahead, ascending.
        seed: of the intervals.
    """

    name = "open_loop"
    films = (REFERENCE, *BASELINES, _REANCHORED, "tokenizer_ceiling")

    def __init__(self, horizons: Sequence[int], seed: int) -> None:
        self._horizons, self._seed = tuple(horizons), seed
        self._episodes: list[str] = []
        # (film, quantity) -> clip's place in _episodes -> value of each frame
        self._frames: dict[tuple[str, str], dict[int, np.ndarray]] = {}

    def add(self, batch: Batch) -> None:
        for row, clip in enumerate(batch.clips):
            place = len(self._episodes)
            self._episodes.append(clip.episode)
            for film in self.films:
                if film in batch.films:
                    output = batch.films[film][row]
                    truth = batch.truth[row, 1 : 1 + len(output)]
                    for quantity, values in _each_frame(output, truth).items():
                        self._frames.setdefault((film, quantity), {})[place] = values

    def result(self) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        verdicts: dict[str, Any] = {}
        for horizon in self._horizons:
            for quantity in sorted({quantity for _, quantity in self._frames}):
                for part, first in (("h", 0), ("at", horizon - 1)):
                    values = self._values(quantity, slice(first, horizon))
                    again = values.pop(_REANCHORED, None)
                    metrics[f"{quantity}_{part}{horizon}_openloop"] = compare(values, self._episodes, self._seed)
                    if again is not None and REANCHOR_EVERY < horizon <= REANCHOR_TO:
                        found = compare({REFERENCE: again}, self._episodes, self._seed)
                        metrics[f"{quantity}_{part}{horizon}_{_REANCHORED}"] = found
            main = metrics[f"psnr_rgb_h{horizon}_openloop"]
            verdicts[f"h{horizon}"] = {"n": main[REFERENCE]["n"], **verdict(main["minus"])}
        return {"horizons": list(self._horizons), "metrics": metrics, "verdicts": verdicts}

    def _values(self, quantity: str, frames: slice) -> dict[str, np.ndarray]:
        """Film -> ``(clips,)`` mean over those frames; NaN where the film is not as long."""
        result = {}
        for film in self.films:
            known = self._frames.get((film, quantity))
            if known is not None:
                values = np.full(len(self._episodes), np.nan)
                for place, of_frames in known.items():
                    if len(of_frames) >= frames.stop:
                        values[place] = of_frames[frames].mean()
                result[film] = values
        return result


def _each_frame(output: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """``psnr_rgb``, ``psnr_gray``, ``ssim_rgb``, ``ssim_gray`` -> ``(T,)``."""
    errors = {colour: squared_error(output, truth, colour).mean(axis=(1, 2)) for colour in COLOURS}
    similar = {f"ssim_{colour}": ssim_of_each(output, truth, colour) for colour in COLOURS}
    return {f"psnr_{colour}": psnr(error) for colour, error in errors.items()} | similar
