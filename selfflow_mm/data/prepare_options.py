"""The options of ``prepare``, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass

from selfflow_mm.errors import UserError

MODALITIES = ("video", "audio", "image")
#: AAC's sampling frequencies, ISO/IEC 14496-3 table 1.18: what the sound of an MP4 file can have.
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


@dataclass(frozen=True)
class PrepareOptions:
    """How media become clips.

    Attributes:
        frames: frames of a clip, 1 + 4k: the video tokenizer packs the first frame alone and then four at a time.
        fps: frames per second.
        height, width: pixels, multiples of 16 (8 x 8 autoencoder, 2 x 2 patches).
        letterbox: keep the whole picture on black instead of cutting out its centre.
        rate: samples per second.
        channels: 1 or 2.
        seconds: length of sounds without picture; None for that of a clip.
        modalities: which to keep; None for all.
        crf: H.264 quality of the clips.
    """

    frames: int = 33
    fps: float = 16.0
    height: int = 64
    width: int = 64
    letterbox: bool = False
    rate: int = 16_000
    channels: int = 2
    seconds: float | None = None
    modalities: tuple[str, ...] | None = None
    crf: int = 18

    def __post_init__(self) -> None:
        if self.frames < 1 or self.frames % 4 != 1:
            near = max(1, (self.frames - 1) // 4 * 4 + 1)
            raise UserError(
                f"a clip has 1 + 4k frames, because the video tokenizer packs the first frame alone and then four at a "
                f"time; --frames {self.frames} is not one of them, {near} and {near + 4} are"
            )
        if not 1 <= self.fps <= 240:
            raise UserError(f"--fps goes from 1 to 240, got {self.fps:g}")
        if self.height < 16 or self.width < 16 or self.height % 16 or self.width % 16:
            raise UserError(f"--size is a multiple of 16 pixels both ways, got {self.height}x{self.width}")
        if self.rate not in RATES:
            raise UserError(f"--rate is one of AAC's: {', '.join(map(str, RATES))}; got {self.rate}")
        if self.channels not in (1, 2):
            raise UserError(f"--channels is 1 or 2, got {self.channels}")
        if self.seconds is not None and not 0.05 <= self.seconds <= 3600:
            raise UserError(f"--seconds goes from 0.05 to 3600, got {self.seconds:g}")
        for name in self.modalities or ():
            if name not in MODALITIES:
                raise UserError(f"unknown modality '{name}'; there are {', '.join(MODALITIES)}")

    @property
    def sound_seconds(self) -> float:
        """Length of sounds without picture."""
        return self.frames / self.fps if self.seconds is None else self.seconds

    def wants(self, modality: str) -> bool:
        return self.modalities is None or modality in self.modalities

    def scale(self, height: float, width: float) -> tuple[int, int]:
        """The (height, width) to resize a picture to before :func:`~selfflow_mm.data.prepare_clips.fit`: covering the
        wanted size, or with ``letterbox`` inside it."""
        choose = min if self.letterbox else max
        factor = choose(self.height / height, self.width / width)
        new = max(1, round(height * factor)), max(1, round(width * factor))
        return new
