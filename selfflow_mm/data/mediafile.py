"""An open video or sound file: frames one by one, sound as a whole, both upright and in step.

What is changed on the way is noted, one sentence each, as ``kind: what was done``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter

from selfflow_mm.data.dynamic_range import NOTE, is_high, rgb_format, to_srgb
from selfflow_mm.data.orientation import display_matrix, orient
from selfflow_mm.data.resampling import resample
from selfflow_mm.data.streams import is_cover, planar, stated_seconds
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio

#: swscale flags: without FULL_CHR_H_INT and ACCURATE_RND its colours are 1 to 3 levels too dark.
CONVERSION = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
KEPT_WHEN_DAMAGED = 0.9  # the part of a damaged file's stated length that must decode
_SMALL = 256 * 256  # pixels; below it a second decoding thread costs more than it brings
_PADDING = 2048  # samples; a last block is shorter than that, so no more of it is padding

Source = Path | str | bytes | BinaryIO


@dataclass
class Notes:
    """Collects notes, each once, in order."""

    items: list[str] = field(default_factory=list)

    def add(self, note: str) -> None:
        if note not in self.items:
            self.items.append(note)


class MediaFile:
    """An open video or sound file: its frames one by one, its sound as a whole.

    ``frames`` streams, so that a film of any length can be cut into clips; ``sound`` is aligned to the first frame.

    Args:
        source: path, bytes or binary file.
        notes: receives what was changed.
        threads: decoding threads; None lets FFmpeg choose for large pictures and takes one for small ones.
    """

    def __init__(self, source: Source, notes: Notes, threads: int | None = None) -> None:
        self.name = describe(source)
        self.notes = notes
        self.times: list[float] = []  # of the frames decoded so far, in seconds from the first
        self._source = source if isinstance(source, Path | str | bytes) else source.read()
        self._threads = threads
        self._heard: list[Any] | None = None  # the sound's packets, met on the way through the picture's
        self._origin: float | None = None  # time stamp of the first frame
        self._open()

    def __enter__(self) -> MediaFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def has_video(self) -> bool:
        return self._video is not None

    @property
    def has_audio(self) -> bool:
        return self._audio is not None

    @property
    def fps(self) -> float:
        """Average frame rate, in frames per second."""
        assert self._video is not None
        rate = self._video.average_rate or self._video.guessed_rate or Fraction(25)
        return float(rate)

    @property
    def source(self) -> Path | str | bytes:
        return self._source

    @property
    def codec(self) -> str:
        """FFmpeg's name of the picture's."""
        assert self._video is not None
        return self._video.codec_context.name

    @property
    def plain(self) -> bool:
        """Whether pictures are upright, of square pixels and of 8 bits in the usual range; decodes the first."""
        assert self._video is not None
        frame = next(iter(self._decode("video")), None)
        if frame is None or is_high(frame) or abs(self.pixel_aspect - 1) > 1e-3:
            return False
        upright = np.array_equal(display_matrix(frame, self._video), np.eye(2))
        return upright and all(component.bits == 8 for component in frame.format.components)

    def stated(self, kind: str) -> float | None:
        """Seconds that the header says the ``video`` or ``audio`` is; None where it does not say."""
        stream = self._video if kind == "video" else self._audio
        found = stated_seconds(stream) if stream is not None else None
        whole = self._container.duration  # in microseconds
        return found if found is not None or not whole else whole / 1e6

    @property
    def pixel_aspect(self) -> float:
        """Width over height of one pixel, before rotation; 1 when square or not stated."""
        assert self._video is not None
        ratio = self._video.sample_aspect_ratio
        return float(ratio) if ratio else 1.0

    @property
    def variable(self) -> bool:
        """Whether intervals between the frames decoded so far differ by more than a tenth (and 1.5 ms, because
        Matroska counts milliseconds)."""
        steps = np.diff(self.times)
        if len(steps) < 2:
            return False
        usual = float(np.median(steps))
        return bool(np.abs(steps - usual).max() > max(0.0015, usual / 10))

    def frames(
        self, scale: Callable[[float, float], tuple[int, int]] | None = None, *, sound_next: bool = False
    ) -> Iterator[tuple[float, float, np.ndarray]]:
        """Yield (seconds since the first frame, seconds it is shown, upright uint8 ``(H, W, 3)``).

        Args:
            scale: given the upright picture's height and width in square pixels, the height and width to deliver;
                None keeps the stored pixels.
            sound_next: the whole sound is read after the last frame: its packets (compressed) are kept on the way, so
                that the file is opened and gone through once.
        """
        assert self._video is not None
        nominal = 1 / self.fps
        converter = VideoReformatter()
        orientation = None
        size: tuple[int, int] | None = None
        self.times = []
        for frame in self._decode("video", sound_next):
            if orientation is None:
                orientation = display_matrix(frame, self._video)
                upright = np.array_equal(orientation, np.eye(2))
                size = self._stored_size(frame, orientation, scale)
                self._look(frame, orientation)
            if frame.pts is not None:
                stamp = frame.pts * self._tick
            else:
                stamp = (self._origin or 0.0) + (self.times[-1] + nominal if self.times else 0.0)
            if self._origin is None:
                self._origin = stamp
            seconds = stamp - self._origin
            if self.times and seconds <= self.times[-1]:
                self.notes.add("repeated time stamps: frames whose time does not advance were left out")
                continue
            self.times.append(seconds)
            shown = frame.duration * self._tick if frame.duration else nominal
            assert size is not None
            rgb = converter.reformat(
                frame,
                width=size[0],
                height=size[1],
                format=rgb_format(frame, self.name),
                interpolation=CONVERSION,
                threads=1,
            )
            pixels = rgb.to_ndarray()
            if rgb.format.name == "rgb48le":
                pixels = to_srgb(pixels, int(frame.color_trc), int(frame.color_primaries))
            yield seconds, shown, pixels if upright else orient(pixels, orientation)
        if not self.times:
            raise UserError(f"{self.name} has a video stream, but no frame of it can be decoded")

    def sound(self, rate: int | None = None) -> Audio | None:
        """The whole sound from the instant of the first frame, float32 planar; None when there is no sample in it.

        Args:
            rate: resample to so many samples per second; None keeps the stored rate.
        """
        blocks = list(self._aligned())
        if not blocks:
            return None
        audio = Audio(torch.from_numpy(np.concatenate([block for block, _ in blocks], axis=1)), blocks[0][1])
        return audio if rate is None else resample(audio, rate)

    def sound_blocks(self) -> Iterator[Audio]:
        """The sound from the instant of the first frame, in blocks as stored; nothing where there is no sample."""
        for block, rate in self._aligned():
            yield Audio(torch.from_numpy(block), rate)

    def _aligned(self) -> Iterator[tuple[np.ndarray, int]]:
        """:meth:`sound_blocks` as arrays ``(channels, samples)`` and their rate."""
        origin = self._first_frame()
        skip, rate = 0, 0
        last: np.ndarray | None = None
        empty = True
        for block, rate, start in self._trimmed():
            if last is None:
                ahead = self._ahead(rate, start, origin)
                skip = max(0, -ahead)
                if ahead > 0:
                    yield np.zeros((block.shape[0], ahead), np.float32), rate
            last = block
            if skip >= block.shape[1]:
                skip -= block.shape[1]
                continue
            yield block[:, skip:], rate
            skip, empty = 0, False
        if last is None:
            self.notes.add("no sound: the sound stream holds no samples")
        elif empty:  # all of it is before the picture: one sample stands for it
            yield last[:, -1:], rate

    def _ahead(self, rate: int, start: float, origin: float | None) -> int:
        """Samples of silence that bring the sound into step with the picture; negative ones are cut."""
        late = start - origin if origin is not None else 0.0
        if abs(late) < 0.001:  # the resolution of Matroska's time stamps
            return 0
        side = "after" if late > 0 else "before"
        self.notes.add(f"offset: the sound starts {abs(late):.3f} s {side} the picture, aligned")
        return round(late * rate)

    def _trimmed(self) -> Iterator[tuple[np.ndarray, int, float]]:
        """Blocks without the padding of the last one, which MP4 leaves in when only the edit list states the end."""
        assert self._audio is not None
        duration, base = self._audio.duration, self._audio.time_base
        given = 0
        held: list[tuple[np.ndarray, int, float]] = []  # what lies after the stated end
        seconds = duration * base if duration and base else 0  # a fraction: exact, and slow
        stated, rate_of_it = 0, 0
        for block, rate, start in self._stored():
            if rate != rate_of_it:
                stated, rate_of_it = round(seconds * rate), rate
            room = max(0, stated - given) if stated else block.shape[1]
            given += block.shape[1]
            if room:
                yield block[:, :room], rate, start
            if room < block.shape[1]:
                held.append((block[:, room:], rate, start))
            if held and given - stated >= _PADDING:
                yield from held
                held, seconds, rate_of_it = [], 0, 0  # more than padding: the statement is wrong, not the sound

    def _stored(self) -> Iterator[tuple[np.ndarray, int, float]]:
        """Blocks ``(channels, samples)`` with gaps as silence, the sample rate, and the first one's time stamp."""
        origin = self._origin
        stored, written, channels, start = 0, 0, 0, None
        for frame in self._decode("audio"):
            stored = stored or frame.sample_rate
            if frame.sample_rate != stored:
                raise UserError(f"{self.name}: its sound changes the sample rate midway; split it there")
            stamp = frame.pts * self._tick if frame.pts is not None else None
            block = planar(frame)
            if not block.shape[1]:
                continue
            channels = channels or block.shape[0]
            if block.shape[0] != channels:
                raise UserError(f"{self.name}: its sound changes the number of channels midway; split it there")
            if start is None:
                start = stamp if stamp is not None else (origin or 0.0)
            elif stamp is not None and (gap := round((stamp - start) * stored) - written) > 0.02 * stored:
                self.notes.add("gap in the sound: filled with silence")
                yield np.zeros((channels, gap), np.float32), stored, start
                written += gap
            yield block, stored, start
            written += block.shape[1]

    def _open(self) -> None:
        self._container = _open(self._source, self.name)
        self._fresh = True
        self._video = next((s for s in self._container.streams.video if not is_cover(s)), None)
        self._audio = next(iter(self._container.streams.audio), None)
        if self._video is not None:
            context = self._video.codec_context
            small = context.width * context.height <= _SMALL
            context.thread_count = (1 if small else 0) if self._threads is None else self._threads
            if context.thread_count != 1:
                self._video.thread_type = "AUTO"

    def _first_frame(self) -> float | None:
        """Time stamp of the first frame, decoding just it when nothing was decoded yet."""
        if self._origin is None and self._video is not None:
            next(self.frames(), None)
        return self._origin

    def _packets(self, stream: Any, keep_sound: bool) -> Iterator[Any]:
        """The stream's packets, from its start."""
        if stream is self._audio and self._heard is not None:
            heard, self._heard = self._heard, None  # once: after its last packet a decoder takes no more
            yield from heard
            return
        if not keep_sound or self._audio is None:
            yield from self._container.demux(stream)
            return
        met = []
        for packet in self._container.demux(stream, self._audio):
            if packet.stream is stream:
                yield packet
            else:
                met.append(packet)
        self._heard = met

    def _decode(self, kind: str, keep_sound: bool = False) -> Iterator[Any]:
        """Decode the video or audio stream from its start; the rule on damage is in ``data.reading``."""
        kept = kind == "audio" and self._heard is not None
        if not (self._fresh or kept):  # opened again, because seeking to the start loses WebM's first block of sound
            self._container.close()
            self._open()
            self._heard = None
        self._fresh = False
        stream: Any = self._video if kind == "video" else self._audio
        self._tick = float(stream.time_base or 0)  # seconds per unit of its time stamps
        end = 0.0
        begin: float | None = None
        trouble = ""
        try:
            for packet in self._packets(stream, keep_sound):
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise av.error.InvalidDataError(0, "a corrupt frame")
                    if frame.pts is not None:
                        if begin is None:
                            begin = frame.pts * self._tick
                        length = frame.duration if kind == "video" else 0  # a slide may be shown for seconds
                        end = (frame.pts + (length or 0)) * self._tick - begin
                    yield frame
        except (av.error.FFmpegError, EOFError) as error:
            trouble = getattr(error, "strerror", None) or str(error)
        stated = stated_seconds(stream)
        block = 0.2  # seconds a last frame or block may last
        if begin is None and trouble:
            raise UserError(f"{self.name} is damaged: its {stream.type} cannot be decoded ({trouble})")
        missing = stated is not None and end + block < KEPT_WHEN_DAMAGED * stated
        if missing or (trouble and stated is None):
            of = f" of {stated:.2f}" if stated is not None else ""
            why = trouble or "it breaks off"
            raise UserError(f"{self.name} is damaged: only {end:.2f}{of} s of its {stream.type} decode ({why})")
        if trouble:
            self.notes.add(f"damaged: the {stream.type} breaks off near its end and is kept up to {end:.2f} s")

    def _stored_size(self, frame: Any, matrix: np.ndarray, scale: Callable | None) -> tuple[int, int]:
        """The (width, height) to convert frames to before they are turned."""
        if scale is None:
            return frame.width, frame.height
        sideways = abs(matrix[0, 0]) < abs(matrix[1, 0])
        width, height = frame.width * self.pixel_aspect, float(frame.height)
        if sideways:
            new_height, new_width = scale(width, height)
            return new_height, new_width
        new_height, new_width = scale(height, width)
        return new_width, new_height

    def _look(self, frame: Any, matrix: np.ndarray) -> None:
        """Note what is unusual about a picture."""
        if not np.array_equal(matrix, np.eye(2)):
            self.notes.add("rotated: turned upright")
        if abs(self.pixel_aspect - 1) > 1e-3:
            self.notes.add(f"not square: a pixel is {self.pixel_aspect:.3f} times as wide as high")
        if frame.interlaced_frame:
            self.notes.add("interlaced: fields were left together")
        if is_high(frame):
            self.notes.add(NOTE)


def describe(source: Source) -> str:
    """What to call a source in a sentence."""
    if isinstance(source, Path | str):
        return f"'{source}'"
    return "the media data" if isinstance(source, bytes) else f"'{getattr(source, 'name', 'the media data')}'"


def _open(source: Source, name: str) -> InputContainer:
    if isinstance(source, Path | str) and not Path(source).is_file():
        raise UserError(f"there is no file {name}")
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        return av.open(str(file) if isinstance(file, Path) else file, "r", metadata_errors="replace")
    except (av.error.FFmpegError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{name} is not a media file that can be read, or is damaged ({reason})") from error
