"""Long clips and sounds piece by piece, with the tokens (and media) of the whole.

Pieces come in any lengths and are regrouped. Causal video codecs remember what their layers saw; sound codecs, which
look both ways, are given so many latents before and after a piece as they can see. Either way the result is that of the
whole medium at once (to 1e-5 in float32), while memory depends on the piece. A codec that can do neither (most
pretrained ones) is given the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from .audio_tokenizer import AudioTokenizer
from .errors import UserError
from .grids import check_stream
from .layers import Past
from .media import Audio, Video
from .stream import Extent, TokenStream
from .video_tokenizer import VideoTokenizer

#: Seconds of sound, and pixels of video, in a piece.
_SECONDS, _PIXELS = 20.0, 2**20


def streams(tokenizer: VideoTokenizer | AudioTokenizer) -> bool:
    """Whether the tokenizer can go piece by piece, so that memory does not depend on the length."""
    return tokenizer.reach is not None if isinstance(tokenizer, AudioTokenizer) else tokenizer.causal


def encode_pieces(tokenizer: VideoTokenizer | AudioTokenizer, pieces: Iterable[Video | Audio]) -> Iterator[TokenStream]:
    """Encode one medium that comes in pieces.

    Args:
        tokenizer: of video or sound.
        pieces: consecutive parts of one clip (of one size and frame rate) or of one sound.

    Yields:
        streams of one row. Joined along N they are what ``tokenizer.encode([whole])`` gives; the extent of each says
        what part of the medium it holds.

    Raises:
        UserError: no pieces, pieces of different sizes or rates, or what ``encode`` raises.
    """
    if isinstance(tokenizer, AudioTokenizer):
        return _encode_sound(tokenizer, _sounds(pieces))
    return _encode_video(tokenizer, _videos(pieces))


def decode_pieces(
    tokenizer: VideoTokenizer | AudioTokenizer, pieces: Iterable[TokenStream], fps: float | None = None
) -> Iterator[Video | Audio]:
    """Decode one medium whose tokens come in pieces of one row: whole latent frames of a clip, or latents of a sound.

    ``fps`` is read off the extents or positions where it is not given.

    Yields:
        consecutive parts of the medium.
    """
    if isinstance(tokenizer, AudioTokenizer):
        return _decode_sound(tokenizer, _rows(pieces))
    return _decode_video(tokenizer, _rows(pieces), fps)


def _encode_video(tokenizer: VideoTokenizer, clips: Iterator[Video]) -> Iterator[TokenStream]:
    if not tokenizer.causal:
        whole = list(clips)
        yield tokenizer.encode([Video(torch.cat([c.frames for c in whole]), whole[0].fps)])
        return
    step = tokenizer.spec.time_compression
    past = Past() if step > 1 else None
    done = 0  # latent frames so far
    held: list[Tensor] = []
    waiting = 0
    clip: Video | None = None
    for clip in clips:
        _, height, width, _ = clip.frames.shape
        most = step * max(1, _PIXELS // (height * width * step))
        for part in clip.frames.split(most):
            held.append(part)
            waiting += len(part)
            ready = waiting - (waiting - 1) % step if done == 0 else waiting - waiting % step
            if waiting >= most and ready > (0 if done else 1):
                frames = torch.cat(held)
                held, waiting = [frames[ready:]], waiting - ready
                stream = _piece(tokenizer, frames[:ready], clip.fps, done, past)
                done += (ready - 1) // step + 1 if done == 0 else ready // step
                yield stream
    if clip is None:
        raise UserError("there is no video to encode")
    if done == 0:
        yield tokenizer.encode([Video(torch.cat(held), clip.fps)])
    elif waiting:
        yield _piece(tokenizer, torch.cat(held), clip.fps, done, past)


def _piece(tokenizer: VideoTokenizer, frames: Tensor, fps: float, done: int, past: Past | None) -> TokenStream:
    """Tokens of a part of a clip that begins at latent frame ``done``; its end is filled up."""
    step, cell = tokenizer.spec.time_compression, tokenizer.spec.space_compression
    count, height, width, _ = frames.shape
    extra = -(count - (1 if done == 0 else 0)) % step
    _, rows, columns = tokenizer.filled(1, height, width)
    filled = tokenizer.fill(frames, (count + extra, rows, columns))
    values = tokenizer.encode_batch(filled[None], past=past)
    if not bool(torch.isfinite(values).all()):
        raise UserError(f"'{tokenizer.spec.name}' gives NaN or infinite latents for this video")
    places = tokenizer.places(
        tokenizer.times(done, values.shape[1] // (rows // cell * (columns // cell)), fps), rows // cell, columns // cell
    )
    return TokenStream.dense(values, places, (Extent(count, height, width, fps),))


def _decode_video(tokenizer: VideoTokenizer, pieces: Iterator[TokenStream], fps: float | None) -> Iterator[Video]:
    if not tokenizer.causal:
        whole = _joined(list(pieces))
        (medium,) = tokenizer.decode(whole, fps)
        yield medium if isinstance(medium, Video) else Video(medium.pixels[None], fps or 1.0)
        return
    past = Past() if tokenizer.spec.time_compression > 1 else None
    rate, waiting = fps, []
    for stream in pieces:
        check_stream(stream, tokenizer.spec)
        _, rows, columns = tokenizer.grid(stream.positions[0])
        if not rate:
            # A first piece of one latent frame does not tell the rate by its positions: wait for the next.
            waiting.append(stream)
            rate = stream.extents[0].fps if stream.extents else tokenizer.rate(_joined(waiting).positions[0])
            if not rate:
                continue
            ready, waiting = waiting, []
        else:
            ready = [stream]
        for part in ready:
            frames = tokenizer.decode_batch(part.values, rows, columns, past=past)[0].cpu()
            if part.extents:
                e = part.extents[0]
                frames = frames[: e.frames, : e.height, : e.width]
            yield Video(frames, rate)
    if waiting:
        raise UserError("one frame has no frame rate; give decode_pieces its fps")


def _encode_sound(tokenizer: AudioTokenizer, sounds: Iterator[Audio]) -> Iterator[TokenStream]:
    reach = tokenizer.reach
    if reach is None:
        whole = list(sounds)
        yield tokenizer.encode([Audio(torch.cat([s.waveform for s in whole], dim=1), whole[0].rate)])
        return
    step = tokenizer.model.samples_per_latent
    size = max(1, round(_SECONDS * tokenizer.spec.latents_per_second))
    held: Tensor | None = None
    before, done = 0, 0  # latents in front of those to encode next, and those encoded
    for sound in sounds:
        wave = tokenizer.fitted(sound)
        held = wave if held is None else torch.cat([held, wave], dim=1)
        while held.shape[1] > (before + size + reach) * step:
            values = tokenizer.encode_batch(held[None, :, : (before + size + reach) * step])[:, before : before + size]
            yield _sound_piece(tokenizer, values, done, size * step)
            done += size
            drop = max(0, before + size - reach)
            held, before = held[:, drop * step :].clone(), min(reach, before + size)
    if held is None:
        raise UserError("there is no sound to encode")
    rest = held.shape[1] - before * step
    if rest > 0 or done == 0:
        yield _sound_piece(tokenizer, tokenizer.encode_batch(held[None])[:, before:], done, rest)


def _sound_piece(tokenizer: AudioTokenizer, values: Tensor, done: int, samples: int) -> TokenStream:
    if not bool(torch.isfinite(values).all()):
        raise UserError(f"'{tokenizer.spec.name}' gives NaN or infinite latents for this sound")
    where = torch.zeros(values.shape[1], 4)
    where[:, 0] = tokenizer.times(done, len(where))
    return TokenStream.dense(values, where, (Extent(samples=samples),))


def _decode_sound(tokenizer: AudioTokenizer, pieces: Iterator[TokenStream]) -> Iterator[Audio]:
    reach, rate = tokenizer.reach, tokenizer.spec.decoded_rate or tokenizer.spec.sample_rate
    if reach is None:
        yield from tokenizer.decode(_joined(list(pieces)))
        return
    step = tokenizer.decoded(tokenizer.model.samples_per_latent)
    size = max(1, round(_SECONDS * tokenizer.spec.latents_per_second))
    held: Tensor | None = None
    before, samples, cropped = 0, 0, False
    for stream in pieces:
        check_stream(stream, tokenizer.spec)
        cropped = bool(stream.extents)
        samples += stream.extents[0].samples if stream.extents else 0
        held = stream.values if held is None else torch.cat([held, stream.values], dim=1)
        while held.shape[1] > before + size + reach:
            wave = tokenizer.decode_batch(held[:, : before + size + reach])
            yield Audio(wave[0, :, before * step : (before + size) * step].cpu().clone(), rate)
            samples -= size * tokenizer.model.samples_per_latent
            drop = max(0, before + size - reach)
            held, before = held[:, drop:].clone(), min(reach, before + size)
    if held is None:
        raise UserError("there are no tokens to decode")
    if held.shape[1] > before:
        wave = tokenizer.decode_batch(held)[0, :, before * step :].cpu()
        yield Audio(wave[:, : tokenizer.decoded(samples)] if cropped else wave, rate)


def _videos(pieces: Iterable[Video | Audio]) -> Iterator[Video]:
    first: Video | None = None
    for piece in pieces:
        if not isinstance(piece, Video):
            raise UserError(f"a tokenizer of video takes pieces of video, got {type(piece).__name__}")
        first = first or piece
        if piece.frames.shape[1:] != first.frames.shape[1:] or piece.fps != first.fps:
            raise UserError(
                f"pieces of one clip have one size and frame rate, got {tuple(first.frames.shape[1:3])} at {first.fps} "
                f"and {tuple(piece.frames.shape[1:3])} at {piece.fps}"
            )
        yield piece
    if first is None:
        raise UserError("there is no video to encode")


def _sounds(pieces: Iterable[Video | Audio]) -> Iterator[Audio]:
    empty = True
    for piece in pieces:
        if not isinstance(piece, Audio):
            raise UserError(f"a tokenizer of sound takes pieces of sound, got {type(piece).__name__}")
        empty = False
        yield piece
    if empty:
        raise UserError("there is no sound to encode")


def _rows(pieces: Iterable[TokenStream]) -> Iterator[TokenStream]:
    for stream in pieces:
        if stream.values.shape[0] != 1:
            raise UserError(f"pieces of one medium are streams of one row, got {stream.values.shape[0]}")
        yield stream


def _joined(pieces: list[TokenStream]) -> TokenStream:
    """Pieces of one medium as one stream; the extents of parts add up."""
    if not pieces:
        raise UserError("there are no tokens to decode")
    extents = [p.extents[0] for p in pieces if p.extents]
    whole: tuple[Extent, ...] = ()
    if len(extents) == len(pieces):
        frames, samples = sum(e.frames for e in extents), sum(e.samples for e in extents)
        whole = (replace(extents[0], frames=frames, samples=samples),)
    values, positions = (torch.cat([getattr(p, name) for p in pieces], dim=1) for name in ("values", "positions"))
    return TokenStream.dense(values, positions, whole)
