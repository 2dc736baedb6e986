"""Pictures out of a stretch of a video file: the exact frame for each time stamp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from ..files import BadEpisode

__all__ = ["CONVERSION", "TOLERANCE", "VideoPictures"]

#: Seconds that a frame may lie away from its step, LeRobot's own default.
TOLERANCE = 1e-4
#: swscale flags: without FULL_CHR_H_INT and ACCURATE_RND its colours are 1 to 3 levels too dark.
CONVERSION = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
#: A gap of so many frames between two steps is worth a jump to the keyframe before the second.
_JUMP = 48


@dataclass(frozen=True)
class VideoPictures:
    """The frames of one camera and episode in an MP4 that may hold many episodes; decoded when asked for, never kept.

    Any codec that PyAV's FFmpeg decodes (H.264, HEVC, VP9, AV1). A rotation that the file states is not applied,
    because LeRobot does not apply it. Nothing is opened before ``read``, and the object can be pickled.

    Attributes:
        path: of the file.
        times: ``(T,)`` seconds from the file's start, float64: the episode's start plus its time stamps.
        fps: steps per second, for the tolerance's upper limit of half a frame.
        tolerance: seconds that a frame may lie away; rounding of float32 time stamps comes on top.
        channels: 3 gives RGB, 1 gives grey.
        shard, index: named in errors.
    """

    path: Path
    times: np.ndarray
    fps: float
    tolerance: float = TOLERANCE
    channels: int = 3
    shard: str = ""
    index: int = 0

    def __len__(self) -> int:
        return len(self.times)

    def read(self, steps: Sequence[int] | None = None) -> np.ndarray:
        """``(n, H, W, channels)`` uint8 of the steps named (any order, repeats allowed), or of all.

        Steps are sorted, decoded in one pass from the keyframe before the first (a long gap jumps to the next
        keyframe), and put into the order asked for.

        Raises:
            BadEpisode: the file is missing or damaged, or no frame lies at a step's time.
        """
        chosen = np.arange(len(self.times)) if steps is None else np.asarray(steps, dtype=np.int64).reshape(-1)
        times = np.asarray(self.times, np.float64)[chosen]
        if len(times) == 0:
            return np.zeros((0, 0, 0, self.channels), np.uint8)
        unique, back = np.unique(times, return_inverse=True)
        try:
            with av.open(str(self.path)) as container:
                frames = list(self._frames(container, unique))
        except (av.FFmpegError, OSError) as error:
            raise self._bad(f"{self.path} cannot be decoded ({_reason(error)})") from error
        try:
            pictures = np.stack(frames)
        except ValueError as error:
            raise self._bad(f"{self.path}: its frames have different sizes") from error
        return pictures if np.array_equal(back, np.arange(len(pictures))) else pictures[back]

    def _frames(self, container: Any, times: np.ndarray) -> Iterator[np.ndarray]:
        if not container.streams.video:
            raise self._bad(f"{self.path} has no video stream")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # data loaders run one process per core
        converter = VideoReformatter()
        gaps = np.flatnonzero(np.diff(times) * self.fps > _JUMP) + 1
        for run in np.split(times, gaps):
            for frame in self._run(container, stream, run):
                picture = converter.reformat(
                    frame, format="gray" if self.channels == 1 else "rgb24", interpolation=CONVERSION, threads=1
                ).to_ndarray()
                yield picture[..., None] if self.channels == 1 else picture

    def _run(self, container: Any, stream: Any, times: np.ndarray) -> Iterator[Any]:
        """The frame nearest to each of the sorted times."""
        # The frame before may be nearer to the first time than the one after it: allow for the tolerance.
        start = times[0] - self._allowed(times[0])
        for begin in (start, 0.0):
            container.seek(int(max(begin, 0.0) / stream.time_base), stream=stream, backward=True)
            done, before = 0, None
            for frame in self._decoded(container, stream, times[0]):
                now = float(frame.pts * stream.time_base)
                if before is None and begin > 0 and now > times[0] + self._allowed(times[0]):
                    break  # the container's index led behind the frame: decode from the file's start
                while done < len(times) and times[done] <= now + self._allowed(times[done]):
                    yield self._nearest(times[done], before, frame, stream)
                    done += 1
                before = frame
                if done == len(times):
                    return
            else:
                end = "its end" if before is None else f"its last frame at {float(before.pts * stream.time_base):.4f} s"
                raise self._bad(f"{self.path} has no frame at {times[done]:.4f} s; {end} comes first")

    def _decoded(self, container: Any, stream: Any, start: float) -> Iterator[Any]:
        now = start
        try:
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                now = float(frame.pts * stream.time_base)
                if frame.is_corrupt:
                    raise self._bad(f"{self.path} is damaged at {now:.4f} s")
                yield frame
        except av.FFmpegError as error:
            raise self._bad(f"{self.path} cannot be decoded after {now:.4f} s ({_reason(error)})") from error

    def _nearest(self, time: float, before: Any, after: Any, stream: Any) -> Any:
        frames = [frame for frame in (before, after) if frame is not None]
        distances = [abs(float(frame.pts * stream.time_base) - time) for frame in frames]
        best = int(np.argmin(distances))
        if distances[best] > self._allowed(time):
            raise self._bad(
                f"{self.path} has no frame at {time:.4f} s; the nearest is {distances[best]:.4f} s away "
                f"(tolerance {self.tolerance:g} s)"
            )
        return frames[best]

    def _allowed(self, time: float) -> float:
        # Time stamps are float32: one hour from the start they are exact to 0.00012 s.
        return min(self.tolerance + float(np.spacing(np.float32(abs(time)))), 0.5 / self.fps)

    def _bad(self, reason: str) -> BadEpisode:
        return BadEpisode(self.shard, self.index, reason)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
