"""A film of episodes at their control rate: pictures, instruction, and the actions as plots with a moving cursor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from selfflow_mm.errors import UserError

from ..robot_episode import RobotEpisode
from .cameras import as_rgb, choose_cameras, resized
from .film_sound import FilmSound
from .instruments import ActionScale, draw_instruments, instruments_size
from .lettering import INK, PAPER, RED, SOFT, figures, fit, font, line_height
from .plots import ActionPlots

__all__ = ["FilmOptions", "FilmReport", "play"]

_MARGIN, _GAP, _LEAST_WIDTH, _MOST_WIDTH = 16, 8, 640, 1280
_WORDS = 2 * line_height(18)  # the instruction's place
_CHUNK = 32  # steps whose pictures are in memory at a time


@dataclass(frozen=True)
class FilmOptions:
    """How a film is made.

    Attributes:
        cameras: shown side by side; empty for all of them.
        speed: 2 plays twice as fast; the sound goes along and changes its pitch.
        height: of the pictures, pixels; 0 shows them as they are, small ones (below 256) enlarged to 256 and large ones
            shrunk to 480.
        crf: H.264 quality, 0 (best) to 51.
    """

    cameras: tuple[str, ...] = ()
    speed: float = 1.0
    height: int = 0
    crf: int = 15

    def __post_init__(self) -> None:
        if not 0.01 <= self.speed <= 100:
            raise UserError(f"the speed goes from 0.01 to 100 (2 plays twice as fast), got {self.speed:g}")
        if self.height < 0 or self.height > 2160:
            raise UserError(f"the height of pictures goes from 1 to 2160 pixels (0: as they are), got {self.height}")


@dataclass(frozen=True)
class FilmReport:
    """What was written: numbers of episodes and frames, frames per second, size in pixels, and whether it sounds."""

    episodes: int
    frames: int
    fps: float
    size: tuple[int, int]
    sound: bool


def play(
    path: Path | str,
    episodes: Iterable[RobotEpisode],
    options: FilmOptions = FilmOptions(),  # noqa: B008 - frozen
    scale: ActionScale | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> FilmReport:
    """Write an MP4 file (H.264, AAC) with the episodes behind one another, one frame per step.

    Args:
        path: a name that ends in ``.mp4``; the file appears when it is complete.
        episodes: read one at a time. The first one decides the size, the frames per second and whether there is sound;
            others are fitted in, and where they have no sound there is silence.
        options: cameras, speed, size.
        scale: what a full arrow means; None for each episode's own 99th percentile.
        progress: called with the number of steps that were added.

    Raises:
        UserError: no episode with a step in it, an unknown camera, another ending, a picture that does not decode.
    """
    import torch

    from selfflow_mm.data.movie import MovieWriter

    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UserError(f"a film is written as .mp4, but the name is '{path.name}'; end it in .mp4")
    coming = (episode for episode in episodes if len(episode))
    first = next(coming, None)
    if first is None:
        raise UserError("there is no episode with a step in it, so there is no film to make")
    stage = _Stage(first, options)
    fps = first.control_rate * options.speed
    sound = FilmSound.of(first, options.speed)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    count = frames = 0
    try:
        about = None if sound is None else (sound.rate, sound.channels)
        with MovieWriter(beside, *stage.size[::-1], fps, about, crf=options.crf, fast=True) as movie:
            for episode in _with(first, coming):
                count += 1
                for chunk in stage.frames(episode, scale):
                    movie.add_frames(torch.from_numpy(chunk))
                    frames += len(chunk)
                    progress(len(chunk))
                if sound is not None:
                    movie.add_sound(sound.next(episode, frames / fps))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return FilmReport(count, frames, fps, stage.size, sound is not None)


def _with(first: RobotEpisode, others: Iterator[RobotEpisode]) -> Iterator[RobotEpisode]:
    yield first
    yield from others


class _Stage:
    """Where everything stands in a frame; the same for all episodes of a film."""

    def __init__(self, first: RobotEpisode, options: FilmOptions) -> None:
        self._cameras = choose_cameras(first, options.cameras)
        shapes = [first.images[name].read([0]).shape[1:3] for name in self._cameras]
        boxes = [_box(high, wide, options.height) for high, wide in shapes]
        together = sum(wide for wide, _ in boxes) + _GAP * (len(boxes) - 1)
        shrink = min(1.0, (_MOST_WIDTH - 2 * _MARGIN) / together) if boxes else 1.0
        self._boxes = [(max(1, int(wide * shrink)), max(1, int(high * shrink))) for wide, high in boxes]
        together = sum(wide for wide, _ in self._boxes) + _GAP * (len(boxes) - 1) if boxes else 0
        width = max(_LEAST_WIDTH, together + 2 * _MARGIN)
        width += width % 2
        self._start = (width - together) // 2
        self._top = _MARGIN + (8 if len(boxes) > 1 else 0)  # several cameras have their names above them
        self._tallest = max((high for _, high in self._boxes), default=0)
        self._names = first.action_names
        self._words_top = self._top + self._tallest + (10 if boxes else 0)
        gauges = instruments_size(self._names)
        self._plots_top = self._words_top + max(_WORDS + 30, gauges[1]) + 6
        height = self._plots_top + ActionPlots.height_of(self._names) + 4
        self.size = (width, height + height % 2)

    def frames(self, episode: RobotEpisode, scale: ActionScale | None = None) -> Iterator[np.ndarray]:
        """``(n, H, W, 3)`` uint8, some steps at a time.

        Raises:
            UserError: a camera is missing, the actions are others than the first episode's, or a picture is broken.
        """
        if episode.action_names != self._names:
            raise UserError(f"episode {episode.id} has other action columns than the first; they cannot share a film")
        cameras = choose_cameras(episode, self._cameras) if self._cameras else ()
        plots = ActionPlots(episode, self.size[0] - 2 * _MARGIN)
        scale = ActionScale.fitting(episode, scale)
        still = self._still(episode, plots)
        for start in range(0, len(episode), _CHUNK):
            steps = range(start, min(start + _CHUNK, len(episode)))
            pictures = [as_rgb(episode.images[name].read(steps)) for name in cameras]
            frames = np.repeat(still[None], len(steps), axis=0)
            for i, step in enumerate(steps):
                self._pictures(frames[i], [p[i] for p in pictures])
                gauges = draw_instruments(episode.actions[step], episode.action_names, scale)
                _put(frames[i], gauges, self.size[0] - _MARGIN - gauges.shape[1], self._words_top)
                self._clock(frames[i], episode, step)
                plots.mark(frames[i], _MARGIN, self._plots_top, step)
            yield frames

    def _still(self, episode: RobotEpisode, plots: ActionPlots) -> np.ndarray:
        """All that does not move."""
        picture = Pillow.new("RGB", self.size, PAPER)
        picture.paste(plots.picture, (_MARGIN, self._plots_top))
        draw = ImageDraw.Draw(picture)
        left = self._start
        for name, (wide, _) in zip(self._cameras, self._boxes, strict=True):
            if len(self._boxes) > 1:
                draw.text((left, self._top - 4), name, fill=SOFT, font=font(13), anchor="ls")
            left += wide + _GAP
        room = self.size[0] - 2 * _MARGIN - instruments_size(self._names)[0] - 12
        size, lines = fit(episode.instruction or "(no instruction)", room, 2)
        for i, line in enumerate(lines):
            draw.text((_MARGIN, self._words_top + i * line_height(size)), line, fill=INK, font=font(size))
        place = self.size[0] - _MARGIN - instruments_size(self._names)[0] - 12, self._words_top + _WORDS + 12
        longest = font(14).getlength(self._now(episode, len(episode))) + 78  # with the mark of the end
        if font(12).getlength(episode.id) < room - longest:
            draw.text(place, episode.id, fill=SOFT, font=font(12), anchor="rm")
        return np.asarray(picture)

    def _pictures(self, frame: np.ndarray, pictures: Sequence[np.ndarray]) -> None:
        left = self._start
        for (wide, high), pixels in zip(self._boxes, pictures, strict=True):
            ratio = min(wide / pixels.shape[1], high / pixels.shape[0])
            width, height = max(1, round(pixels.shape[1] * ratio)), max(1, round(pixels.shape[0] * ratio))
            fitted = np.asarray(resized(pixels, width, height))
            _put(frame, fitted, left + (wide - width) // 2, self._top + (self._tallest - height) // 2)
            left += wide + _GAP

    def _clock(self, frame: np.ndarray, episode: RobotEpisode, step: int) -> None:
        """Step, time and the end."""
        now = self._now(episode, step)
        right, middle = _MARGIN + font(14).getlength(now), self._words_top + _WORDS + 12
        figures(frame, (right, middle), now, 14)
        if episode.terminate[step]:
            _put(frame, _done_mark(), round(right) + 16, middle - 10)

    @staticmethod
    def _now(episode: RobotEpisode, step: int) -> str:
        return f"step {step} of {len(episode)}   {step / episode.control_rate:.2f} s"


def _put(frame: np.ndarray, pixels: np.ndarray, left: int, top: int) -> None:
    frame[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels


@cache
def _done_mark() -> np.ndarray:
    mark = Pillow.new("RGB", (47, 21), PAPER)
    draw = ImageDraw.Draw(mark)
    draw.rounded_rectangle((0, 0, 46, 20), radius=4, fill=RED)
    draw.text((23, 10), "done", fill=(255, 255, 255), font=font(14), anchor="mm")
    return np.asarray(mark)


def _box(high: int, wide: int, wanted: int) -> tuple[int, int]:
    """(width, height) of a camera's place."""
    height = wanted or min(max(high, 256), 480)
    return max(1, round(wide * height / high)), height
