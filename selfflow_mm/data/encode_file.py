"""A media file of any length to an encoded file, through any tokenizers, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfflow_mm.data.encoded import EncodedWriter, Track
from selfflow_mm.data.mediafile import MediaFile, Notes
from selfflow_mm.data.resampling import constant_rate, mix_channels, resample_pieces
from selfflow_mm.data.stills import is_still, read_still
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Image, Video
from selfflow_tokenizers.stream import Extent, TokenStream
from selfflow_tokenizers.streaming import encode_pieces, streams

#: Pixels of the frames that are read at a time.
_PIXELS = 2**21

#: Told the medium and how many seconds of it have been read, and the seconds the header states (None: unknown).
Progress = Callable[[str, float, float | None], None]


@dataclass(frozen=True)
class NamedTokenizer:
    """A tokenizer with the name under which decoding will find it again."""

    name: str
    tokenizer: Any


@dataclass(frozen=True)
class Encoded:
    """What was written: tracks by medium, and notes on what was changed or left out."""

    tracks: Mapping[str, Track]
    notes: tuple[str, ...]


def encode_file(
    source: Path,
    target: Path,
    *,
    picture: NamedTokenizer | None = None,
    sound: NamedTokenizer | None = None,
    size: str | None = None,
    progress: Progress = lambda medium, seconds, stated: None,
) -> Encoded:
    """Encode a video, sound or still image; ``target`` appears when it is complete.

    Frames keep their size and are filled up to whole tokens (decoding crops back); a sound is resampled and mixed to
    what the tokenizer takes, and in step with the picture.

    Args:
        source: a media file.
        target: the safetensors file to write.
        picture, sound: tokenizers; a medium without one is left out.
        size: resize frames to ``HEIGHTxWIDTH``, or their shorter side to ``N``.
        progress: called as the medium is read.

    Raises:
        UserError: a file that cannot be read, or holds none of the media that the tokenizers are for.
    """
    if picture is None and sound is None:
        raise UserError("name a tokenizer to encode with")
    scale = _scale(size)
    notes = Notes()
    with EncodedWriter(target) as writer:
        if is_still(source):
            tracks = _encode_still(writer, source, picture, scale, notes)
        else:
            with MediaFile(source, notes) as file:
                tracks = _encode_clip(writer, file, picture, sound, scale, notes, progress)
        writer.close(tracks, {"source": source.name, "created_by": f"selfflow-mm {version('selfflow-mm')}"})
    return Encoded(tracks, tuple(notes.items))


def _encode_still(
    writer: EncodedWriter, source: Path, picture: NamedTokenizer | None, scale: Any, notes: Notes
) -> dict[str, Track]:
    if picture is None:
        raise UserError(f"'{source}' is an image and the tokenizer named is for sound")
    image, remarks = read_still(source)
    for remark in remarks:
        notes.add(remark)
    if scale is not None:
        image = _resized(image, scale)
    stream = picture.tokenizer.encode([image])
    writer.add("image", stream)
    return {"image": _track(picture, stream.extents[0], stream.values.shape[1])}


def _encode_clip(
    writer: EncodedWriter,
    file: MediaFile,
    picture: NamedTokenizer | None,
    sound: NamedTokenizer | None,
    scale: Any,
    notes: Notes,
    progress: Progress,
) -> dict[str, Track]:
    tracks: dict[str, Track] = {}
    if picture is not None and file.has_video:
        fps = file.fps
        pieces = encode_pieces(picture.tokenizer, _frames(file, fps, scale, progress))
        tracks["video"] = _write(writer, "video", picture, pieces, notes)
        if file.variable:
            notes.add(f"variable frame rate: resampled to {fps:.4g} frames per second")
    if sound is not None and file.has_audio:
        spec = sound.tokenizer.spec
        heard = _sound(file, spec.sample_rate, spec.audio_channels, notes, progress)
        first = next(heard, None)
        if first is not None:
            pieces = encode_pieces(sound.tokenizer, _chain(first, heard))
            tracks["audio"] = _write(writer, "audio", sound, pieces, notes)
    for named, medium, there in ((picture, "picture", file.has_video), (sound, "sound", file.has_audio)):
        if named is None and there:
            notes.add(f"left out: its {medium}, as no tokenizer for it was named")
        if named is not None and not there:
            notes.add(f"missing: there is no {medium} for the tokenizer {named.name}")
    if not tracks:
        kinds = " or ".join(k for k, n in (("picture", picture), ("sound", sound)) if n is not None)
        raise UserError(f"{file.name} has no {kinds}, which the tokenizer named takes")
    return tracks


def _write(
    writer: EncodedWriter, medium: str, named: NamedTokenizer, pieces: Iterator[TokenStream], notes: Notes
) -> Track:
    if not streams(named.tokenizer):
        notes.add(f"in one piece: {named.name} cannot go piece by piece, so all of the {medium} is in memory at once")
    extent, tokens = None, 0
    for stream in pieces:
        writer.add(medium, stream)
        tokens += stream.values.shape[1]
        part = stream.extents[0]
        extent = (
            part
            if extent is None
            else replace(extent, frames=extent.frames + part.frames, samples=extent.samples + part.samples)
        )
    assert extent is not None  # encode_pieces refuses a medium without pieces
    return _track(named, extent, tokens)


def _track(named: NamedTokenizer, extent: Extent, tokens: int) -> Track:
    return Track(named.name, named.tokenizer.spec, extent, tokens)


def _frames(file: MediaFile, fps: float, scale: Any, progress: Progress) -> Iterator[Video]:
    """The picture at a constant rate, some frames at a time."""
    frames = constant_rate(file.frames(scale), fps)
    stated, done, at_once = file.stated("video"), 0, 1
    while block := list(islice(frames, at_once)):
        done += len(block)
        at_once = max(1, _PIXELS // (block[0].shape[0] * block[0].shape[1]))
        yield Video(torch.from_numpy(np.stack(block)), fps)
        progress("video", done / fps, stated)


def _sound(file: MediaFile, rate: int, channels: int, notes: Notes, progress: Progress) -> Iterator[Audio]:
    """The sound as the tokenizer takes it, a second or more at a time."""
    stated = file.stated("audio")

    def stored() -> Iterator[Audio]:
        seconds, held = 0.0, list[Audio]()
        for block in file.sound_blocks():
            if not held and not seconds:
                if block.rate != rate:
                    notes.add(f"resampled: its sound from {block.rate} to {rate} Hz")
                if block.waveform.shape[0] != channels:
                    notes.add(f"mixed: its sound from {block.waveform.shape[0]} to {channels} channels")
            held.append(block)
            if sum(b.waveform.shape[1] for b in held) >= block.rate:
                yield _joined(held)
                seconds += sum(b.seconds for b in held)
                held = []
                progress("audio", seconds, stated)
        if held:
            yield _joined(held)
            progress("audio", seconds + sum(b.seconds for b in held), stated)

    return resample_pieces((mix_channels(piece, channels) for piece in stored()), rate)


def _joined(blocks: list[Audio]) -> Audio:
    whole = Audio(torch.cat([b.waveform for b in blocks], dim=1), blocks[0].rate)
    if not bool(torch.isfinite(whole.waveform).all()):
        raise UserError("its sound has NaN or infinite samples")
    return whole


def _chain(first: Audio, rest: Iterator[Audio]) -> Iterator[Audio]:
    yield first
    yield from rest


def _scale(size: str | None) -> Callable[[float, float], tuple[int, int]] | None:
    """From ``--size`` to what :meth:`MediaFile.frames` takes: upright height and width -> those to deliver."""
    if size is None:
        return None
    height, by, width = size.lower().partition("x")
    if not height.isdigit() or int(height) < 1 or (by and (not width.isdigit() or int(width) < 1)):
        raise UserError(f"a size is HEIGHTxWIDTH or the shorter side in pixels, got '{size}'")
    if by:
        return lambda h, w: (int(height), int(width))

    def shorter(h: float, w: float) -> tuple[int, int]:
        factor = int(height) / min(h, w)
        return max(1, round(h * factor)), max(1, round(w * factor))

    return shorter


def _resized(image: Image, scale: Callable[[float, float], tuple[int, int]]) -> Image:
    from PIL import Image as Pillow

    height, width = scale(*(float(n) for n in image.pixels.shape[:2]))
    picture = Pillow.fromarray(image.pixels.numpy()).resize((width, height), Pillow.Resampling.BICUBIC)
    return Image(torch.from_numpy(np.array(picture)))
