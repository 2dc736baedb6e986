"""An encoded file back to a media file of any length, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from selfflow_mm.data.encoded import EncodedFile, Track
from selfflow_mm.data.movie import AAC_RATES, FALLBACK_RATE, MovieWriter, WavWriter
from selfflow_mm.data.resampling import resample_pieces
from selfflow_mm.data.writing import encode_png
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Image, Video
from selfflow_tokenizers.streaming import decode_pieces

#: Medium -> the endings it can be written with.
ENDINGS = {"video": (".mp4",), "image": (".png",), "audio": (".wav", ".mp4")}
#: Told the medium, the seconds written, and how many there will be.
Progress = Callable[[str, float, float], None]
_SECONDS = 1.0  # of sound written at a time beside the picture


def media_to_decode(file: EncodedFile, target: Path) -> tuple[str, ...]:
    """Which tracks of ``file`` a target of this name takes.

    Raises:
        UserError: an ending that none of its media can be written with.
    """
    ending = target.suffix.lower()
    chosen = tuple(m for m in file.tracks if ending in ENDINGS[m])
    if not chosen or (ending == ".mp4" and "video" not in chosen):
        can = " or ".join(dict.fromkeys(ENDINGS[m][0] for m in file.tracks))
        raise UserError(
            f"'{file.path}' holds {' and '.join(file.tracks)}, which is written as {can}, not '{target.name}'"
        )
    return chosen


def decode_file(
    source: EncodedFile,
    target: Path,
    tokenizers: Mapping[str, Any],
    *,
    crf: int = 18,
    progress: Progress = lambda medium, seconds, whole: None,
) -> None:
    """Write an MP4 (video, with its sound where there is one), WAV or PNG file by ``target``'s ending.

    In an MP4 the sound is cut, or padded with silence, to the length of the picture. ``target`` appears when complete.

    Args:
        source: the encoded file.
        target: the media file to write.
        tokenizers: medium -> tokenizer, for those that :func:`media_to_decode` names.
        crf: H.264 quality, 0 (best) to 51.
        progress: called as the medium is written.

    Raises:
        UserError: a tokenizer other than the one it was encoded by, or an ending that does not fit.
    """
    chosen = media_to_decode(source, target)
    for medium in chosen:
        check_tokenizer(source, medium, tokenizers[medium])
    with _beside(target) as beside:
        if "video" in chosen:
            _movie(source, beside, tokenizers, crf, progress)
        elif "image" in chosen:
            (image,) = tokenizers["image"].decode(source.stream("image"))
            assert isinstance(image, Image)
            beside.write_bytes(encode_png(image))
        else:
            track = source.tracks["audio"]
            rate = track.spec.decoded_rate or track.spec.sample_rate
            whole = track.extent.samples / track.spec.sample_rate
            with WavWriter(beside, rate, track.spec.audio_channels) as wav:
                seconds = 0.0
                for piece in _sounds(source, tokenizers["audio"]):
                    wav.add_sound(piece.waveform)
                    seconds += piece.seconds
                    progress("audio", seconds, whole)


def check_tokenizer(source: EncodedFile, medium: str, tokenizer: Any) -> None:
    """Refuse a tokenizer of other weights than those that encoded ``medium``."""
    wanted, got = source.tracks[medium].spec.name, tokenizer.spec.name
    if wanted != got:
        raise UserError(f"the {medium} of '{source.path}' was encoded by '{wanted}', the tokenizer given is '{got}'")


def _movie(source: EncodedFile, target: Path, tokenizers: Mapping[str, Any], crf: int, progress: Progress) -> None:
    extent = source.tracks["video"].extent
    whole = extent.frames / extent.fps
    track = source.tracks.get("audio")
    sound, heard = None, None
    if track is not None:
        sound, heard = _fitting(source, track, tokenizers["audio"], whole)
    with MovieWriter(target, extent.height, extent.width, extent.fps, sound, crf=crf) as movie:
        seconds = 0.0
        spoken = 0.0
        for piece in decode_pieces(tokenizers["video"], source.pieces("video"), extent.fps):
            assert isinstance(piece, Video)
            for frames in piece.frames.split(max(1, round(extent.fps * _SECONDS))):
                movie.add_frames(frames)
                seconds += len(frames) / extent.fps
                while heard is not None and spoken < seconds:
                    block = next(heard, None)
                    if block is None:
                        heard = None
                        break
                    movie.add_sound(block.waveform)
                    spoken += block.seconds
                progress("video", seconds, whole)
        for block in heard or ():
            movie.add_sound(block.waveform)


def _fitting(
    source: EncodedFile, track: Track, tokenizer: Any, seconds: float
) -> tuple[tuple[int, int], Iterator[Audio]]:
    """Rate and channels of a film's sound, and the sound at that rate, as long as the picture."""
    rate = track.spec.decoded_rate or track.spec.sample_rate
    pieces = _sounds(source, tokenizer)
    if rate not in AAC_RATES:
        rate, pieces = FALLBACK_RATE, resample_pieces(pieces, FALLBACK_RATE)
    channels, block = track.spec.audio_channels, round(_SECONDS * rate)

    def fitted() -> Iterator[Audio]:
        left = max(1, round(seconds * rate))
        for piece in pieces:
            for part in piece.waveform[:, :left].split(block, dim=1):
                left -= part.shape[1]
                yield Audio(part, rate)
            if not left:
                return
        while left:
            silent = min(left, block)
            left -= silent
            yield Audio(torch.zeros(channels, silent), rate)

    return (rate, channels), fitted()


def _sounds(source: EncodedFile, tokenizer: Any) -> Iterator[Audio]:
    for piece in decode_pieces(tokenizer, source.pieces("audio")):
        assert isinstance(piece, Audio)
        yield piece


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A place to write to, renamed to ``target`` when all went well and removed when not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.tmp")
    try:
        yield beside
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
