"""The options of ``prepare``, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass, replace

from selfflow_mm.data.prepare_buckets import STEP, nearest_bucket
from selfflow_mm.errors import UserError

MODALITIES = ("video", "audio", "image")
#: AAC's sampling frequencies, ISO/IEC 14496-3 table 1.18: what the sound of an MP4 file can have.
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


@dataclass(frozen=True)
class PrepareOptions:
    """How media become clips.

    Attributes:
        frames: frames of a clip, 1 + 4k: the video tokenizer packs the first frame alone and then four at a time. Of
            several lengths a film is cut to the longest that it fills.
        fps: frames per second.
        height, width: pixels, multiples of 16 (8 x 8 autoencoder, 2 x 2 patches).
        buckets: several sizes (height, width) in place of that one: a picture gets that nearest in aspect ratio.
        letterbox: keep the whole picture on black instead of cutting out its centre.
        rate: samples per second.
        channels: 1 or 2.
        seconds: length of sounds without picture, or several, of which a sound is cut to the longest that it fills;
            None for that of a clip.
        modalities: which to keep; None for all.
        crf: H.264 quality of the clips.
    """

    frames: int | tuple[int, ...] = 33
    fps: float = 16.0
    height: int = 64
    width: int = 64
    buckets: tuple[tuple[int, int], ...] = ()
    letterbox: bool = False
    rate: int = 16_000
    channels: int = 2
    seconds: float | tuple[float, ...] | None = None
    modalities: tuple[str, ...] | None = None
    crf: int = 18

    def __post_init__(self) -> None:
        if not self.lengths:
            raise UserError("--frames names no length of a clip")
        for frames in self.lengths:
            if frames < 1 or frames % 4 != 1:
                near = max(1, (frames - 1) // 4 * 4 + 1)
                raise UserError(
                    f"a clip has 1 + 4k frames, because the video tokenizer packs the first frame alone and then four "
                    f"at a time; --frames {frames} is not one of them, {near} and {near + 4} are"
                )
        if not 1 <= self.fps <= 240:
            raise UserError(f"--fps goes from 1 to 240, got {self.fps:g}")
        for name, sizes in (("--size", ((self.height, self.width),)), ("a size of --buckets", self.buckets)):
            for height, width in sizes:
                if height < STEP or width < STEP or height % STEP or width % STEP:
                    raise UserError(f"{name} is a multiple of {STEP} pixels both ways, got {height}x{width}")
        if self.rate not in RATES:
            raise UserError(f"--rate is one of AAC's: {', '.join(map(str, RATES))}; got {self.rate}")
        if self.channels not in (1, 2):
            raise UserError(f"--channels is 1 or 2, got {self.channels}")
        for seconds in self.sound_lengths if self.seconds is not None else ():
            if not 0.05 <= seconds <= 3600:
                raise UserError(f"--seconds goes from 0.05 to 3600, got {seconds:g}")
        for name in self.modalities or ():
            if name not in MODALITIES:
                raise UserError(f"unknown modality '{name}'; there are {', '.join(MODALITIES)}")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Frames of clips, the shortest first."""
        return tuple(sorted(set(self.frames))) if isinstance(self.frames, tuple) else (self.frames,)

    @property
    def sound_lengths(self) -> tuple[float, ...]:
        """Seconds of sounds without picture, the shortest first."""
        if self.seconds is None:
            return tuple(frames / self.fps for frames in self.lengths)
        return tuple(sorted(set(self.seconds))) if isinstance(self.seconds, tuple) else (self.seconds,)

    @property
    def several(self) -> bool:
        """Whether samples of a modality may differ in size or length."""
        return len(self.buckets) > 1 or len(self.lengths) > 1 or len(self.sound_lengths) > 1

    def of_picture(self, height: float, width: float) -> PrepareOptions:
        """The options for a picture of this size: those of its bucket, which has one size."""
        if not self.buckets:
            return self
        height, width = nearest_bucket(self.buckets, height, width)
        return replace(self, height=height, width=width, buckets=())

    def wants(self, modality: str) -> bool:
        return self.modalities is None or modality in self.modalities

    def scale(self, height: float, width: float) -> tuple[int, int]:
        """The (height, width) to resize a picture to before :func:`~selfflow_mm.data.prepare_clips.fit`: covering the
        wanted size, or with ``letterbox`` inside it."""
        choose = min if self.letterbox else max
        factor = choose(self.height / height, self.width / width)
        new = max(1, round(height * factor)), max(1, round(width * factor))
        return new
