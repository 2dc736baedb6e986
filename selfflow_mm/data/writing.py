"""Writing media: MP4 (H.264 with AAC), 16-bit WAV and PNG, to files or to bytes.

Picture and sound of a video have equal length: the sound is cut, or padded with silence, to
``round(frames / fps * rate)`` samples. AAC delays a sound by one transform block ("priming"); the MP4
edit list tells players to drop it, and the file's time scale is the sample rate, so that the edit list is
exact to the sample: a click written at sample ``n`` is read back at sample ``n``.
"""

from __future__ import annotations

import io
import math
import os
import tempfile
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from PIL import Image as PillowImage
from torch import Tensor

from selfflow_mm.data.mediafile import CONVERSION
from selfflow_mm.data.resampling import LAYOUTS, resample
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Image, Video

#: AAC's sampling frequencies, ISO/IEC 14496-3 table 1.18; other rates are resampled to 48 kHz.
AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_FRAME_BITS = 6144  # an AAC frame holds at most this many bits per channel (ISO/IEC 14496-3, 4.5.3)


def write_video(path: str | Path, video: Video, audio: Audio | None = None, *, crf: int = 18) -> None:
    """Write an MP4 file that browsers play: H.264 4:2:0 in BT.709, AAC, index in front ("faststart").

    Args:
        path: a name that ends in ``.mp4``; the file appears when it is complete.
        video: uint8 ``(T, H, W, 3)``. 4:2:0 needs even sizes: an odd height or width gains one line or
            column, a copy of the last one.
        audio: cut or padded with silence to the length of the picture.
        crf: H.264 quality, 0 (best) to 51; 18 looks like the original.

    Raises:
        UserError: another ending, a quality out of range, a sound that is not finite or has a number of
            channels that has no name.
    """
    path = _checked(path, ".mp4", "a video")
    _write(path, lambda beside: _mux(beside, video, audio, crf, fast=False))


def encode_mp4(video: Video, audio: Audio | None = None, *, crf: int = 18, fast: bool = False) -> bytes:
    """The bytes of an MP4 file, see :func:`write_video`.

    Args:
        fast: the quickest encoder settings and one thread: files about half again as large, made several times as
            fast. For data sets of small clips, where the parallelism is over clips.
    """
    with tempfile.TemporaryDirectory(prefix="selfflow-") as folder:  # faststart reads back what it wrote
        path = Path(folder) / "clip.mp4"
        _mux(path, video, audio, crf, fast)
        return path.read_bytes()


def write_audio(path: str | Path, audio: Audio) -> None:
    """Write a 16-bit PCM WAV file (``.wav``); values outside [-1, 1] are clipped."""
    data = encode_wav(audio)
    _write(_checked(path, ".wav", "a sound"), lambda beside: beside.write_bytes(data))


def encode_wav(audio: Audio) -> bytes:
    """The bytes of a 16-bit PCM WAV file: ``value * 32768``, rounded; values outside [-1, 1] are clipped."""
    waveform = _finite(audio)
    pcm = (waveform * 32768).round().clamp(max=32767).to(torch.int16).T.contiguous().numpy()
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(waveform.shape[0])
        file.setsampwidth(2)
        file.setframerate(audio.rate)
        file.writeframes(pcm.astype("<i2").tobytes())
    return buffer.getvalue()


def write_image(path: str | Path, image: Image) -> None:
    """Write a PNG file (``.png``), lossless."""
    data = encode_png(image)
    _write(_checked(path, ".png", "an image"), lambda beside: beside.write_bytes(data))


def encode_png(image: Image) -> bytes:
    """The bytes of a PNG file, lossless."""
    buffer = io.BytesIO()
    PillowImage.fromarray(_pixels(image.pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def match_length(audio: Audio, seconds: float) -> Audio:
    """Cut a sound, or pad it with silence at its end, to ``round(seconds * rate)`` samples (at least one)."""
    samples = max(1, round(seconds * audio.rate))
    missing = samples - audio.waveform.shape[1]
    if missing > 0:
        return Audio(torch.nn.functional.pad(audio.waveform, (0, missing)), audio.rate)
    return Audio(audio.waveform[:, :samples], audio.rate)


def _mux(path: Path, video: Video, audio: Audio | None, crf: int, fast: bool) -> None:
    if not 0 <= crf <= 51:
        raise UserError(f"crf (H.264 quality) goes from 0 to 51, got {crf}")
    options = {"movflags": "faststart"}
    if audio is not None:
        audio = match_length(Audio(_finite(audio), audio.rate), video.seconds)
        audio = _encodable(audio)
        options["movie_timescale"] = str(audio.rate)  # edit lists count in it: exact for the sound
    with av.open(str(path), "w", format="mp4", options=options) as container:
        write_picture = _video_encoder(container, video, crf, fast)
        write_sound = _audio_encoder(container, audio) if audio is not None else None
        write_picture()
        if write_sound is not None:
            write_sound()


def _video_encoder(container: OutputContainer, video: Video, crf: int, fast: bool) -> Callable[[], None]:
    """Add the video stream (all streams exist before the first packet) and return what fills it."""
    fps = Fraction(video.fps).limit_denominator(1001)  # 23.976..., 29.97... are n/1001
    preset = "ultrafast" if fast else "medium"
    stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": preset})
    frames = video.frames
    if odd := (frames.shape[1] % 2, frames.shape[2] % 2):
        if odd[0]:
            frames = torch.cat([frames, frames[:, -1:]], dim=1)
        if odd[1]:
            frames = torch.cat([frames, frames[:, :, -1:]], dim=2)
    _, stream.height, stream.width, _ = frames.shape
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1 if fast else 0
    stream.codec_context.colorspace = Colorspace.ITU709
    stream.codec_context.color_range = ColorRange.MPEG
    stream.codec_context.color_primaries = ColorPrimaries.BT709
    stream.codec_context.color_trc = ColorTrc.BT709

    def write() -> None:
        converter = VideoReformatter()  # one for all frames: making one takes longer than a small frame
        for index, pixels in enumerate(_pixels(frames)):
            frame = converter.reformat(
                av.VideoFrame.from_ndarray(pixels, format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=CONVERSION,
                threads=1,
            )
            frame.pts, frame.time_base = index, 1 / fps
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    return write


def _audio_encoder(container: OutputContainer, audio: Audio) -> Callable[[], None]:
    channels, samples = audio.waveform.shape
    # The default coder searches twice as long for a worse result on sharp onsets (docs/world.md has figures).
    stream = container.add_stream(
        "aac", rate=audio.rate, layout=LAYOUTS[channels], options={"aac_coder": "fast"}
    )
    assert isinstance(stream, AudioStream)
    stream.bit_rate = min(64_000 * channels, int(audio.rate / 1024 * _FRAME_BITS * channels))

    def write() -> None:
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(audio.waveform.numpy()), format="fltp", layout=LAYOUTS[channels]
        )
        frame.sample_rate, frame.pts, frame.time_base = audio.rate, 0, Fraction(1, audio.rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    return write


def _encodable(audio: Audio) -> Audio:
    channels = audio.waveform.shape[0]
    if channels not in LAYOUTS:
        raise UserError(f"a video's sound has one of {sorted(LAYOUTS)} channels, got {channels}; mix it down first")
    if audio.rate in AAC_RATES:
        return audio
    return resample(audio, 48_000)


def _finite(audio: Audio) -> Tensor:
    waveform = audio.waveform.detach().to("cpu", torch.float32)
    if not math.isfinite(float(waveform.sum())):
        raise UserError("the sound holds values that are not finite (nan or infinity); nothing was written")
    return waveform.clamp(-1, 1)


def _pixels(pixels: Tensor) -> np.ndarray:
    return np.ascontiguousarray(pixels.detach().cpu().numpy())


def _checked(path: str | Path, ending: str, what: str) -> Path:
    path = Path(path)
    if path.suffix.lower() != ending:
        raise UserError(f"{what} is written as {ending}, but the name is '{path.name}'; end it in {ending}")
    return path


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the final place and rename, so that nobody sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
