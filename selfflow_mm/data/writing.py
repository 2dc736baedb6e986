"""Writing media: MP4 (H.264 with AAC), 16-bit WAV and PNG, to files or to bytes.

Picture and sound of a video have equal length: the sound is cut, or padded with silence, to
``round(frames / fps * rate)`` samples. AAC delays a sound by one transform block ("priming"); the MP4
edit list tells players to drop it, and the file's time scale is the sample rate, so that the edit list is
exact to the sample: a click written at sample ``n`` is read back at sample ``n``.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor

from selfflow_mm.data.movie import AAC_RATES, FALLBACK_RATE, MovieWriter, WavWriter, finite_waveform
from selfflow_mm.data.resampling import resample
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Image, Video


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
    buffer = io.BytesIO()
    with WavWriter(buffer, audio.rate, audio.waveform.shape[0]) as file:
        file.add_sound(audio.waveform)
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
    if audio is not None:
        audio = match_length(Audio(finite_waveform(audio.waveform), audio.rate), video.seconds)
        if audio.rate not in AAC_RATES:
            audio = resample(audio, FALLBACK_RATE)
    sound = None if audio is None else (audio.rate, audio.waveform.shape[0])
    _, height, width, _ = video.frames.shape
    with MovieWriter(path, height, width, video.fps, sound, crf=crf, fast=fast) as movie:
        movie.add_frames(video.frames)
        if audio is not None:
            movie.add_sound(audio.waveform)


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
