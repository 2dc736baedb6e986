"""The treatment of one medium by ``prepare``: read, cut into clips, resize, resample, check, encode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from PIL import Image as PillowImage

from selfflow_mm.data.mediafile import MediaFile, Notes
from selfflow_mm.data.prepare_options import PrepareOptions
from selfflow_mm.data.prepare_sources import Item
from selfflow_mm.data.resampling import constant_rate, mix_channels, resample
from selfflow_mm.data.retrying import Unreachable
from selfflow_mm.data.stills import is_still, read_still
from selfflow_mm.data.writing import encode_mp4, encode_png, encode_wav, match_length
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Image, Video

SILENCE = 1e-3  # a sound whose peak is below this (-60 dB of full scale) is silent
SHORTEST_SOUND = 0.05  # seconds; shorter ones are skipped
LATE_SOUND = 0.1  # seconds of sound that may be missing at a clip's end before the clip loses its sound


@dataclass(frozen=True)
class Prepared:
    """One clip, image or sound, encoded: ``files`` by ending, ``meta`` for its json, what is in it, and its ``size``:
    ``frames``, ``height`` and ``width`` of a clip, the latter two of an image, ``seconds`` of a sound."""

    files: dict[str, bytes]
    meta: dict[str, Any]
    modalities: tuple[str, ...]
    size: Mapping[str, float]


@dataclass
class Outcome:
    """What became of an item: its clips (none when skipped) and notes, each ``kind: detail``."""

    item: Item
    clips: list[Prepared] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Skipped(Exception):
    """Why an item gives no clip at all, as ``kind: detail``."""


def prepare_item(item: Item, options: PrepareOptions) -> Outcome:
    """Prepare one item. Never raises for bad media: an item without clips has its reason as the last note."""
    torch.set_num_threads(1)  # the processes are the parallelism
    notes = Notes(list(item.notes))
    outcome = Outcome(item)
    try:
        if item.problem:
            raise Skipped(item.problem)
        outcome.clips = list(_clips(item, options, notes))
    except Skipped as reason:
        notes.add(str(reason))
    except Unreachable:
        raise
    except (UserError, OSError, MemoryError) as error:
        why = str(error).replace(f"'{item.path}'", "it") or "it does not fit into memory"
        notes.add(f"unreadable: {why}")
    except Exception as error:  # one strange file must not stop thousands
        notes.add(f"failed: {type(error).__name__}: {error}")
    outcome.notes = notes.items
    return outcome


def _clips(item: Item, options: PrepareOptions, notes: Notes) -> Iterator[Prepared]:
    data = item.data()
    if is_still(data):
        if not options.wants("image"):
            raise Skipped("not wanted: it is an image")
        yield _image(data, item, options, notes)
        return
    with MediaFile(data, notes, threads=1) as file:
        picture, sound = file.has_video, file.has_audio
        if picture and options.wants("video"):
            waveform = file.sound() if sound and options.wants("audio") else None
            if not sound:
                notes.add("without sound: picture only")
            yield from _video(file, _sound_of(waveform, item, options), item, options, notes)
        elif sound and options.wants("audio"):
            waveform = file.sound()
            if waveform is None:
                raise Skipped("too short: the sound stream is empty")
            yield from _sounds(_sound_of(waveform, item, options), item, options, notes)
        else:
            kinds = [k for k, has in (("video", picture), ("audio", sound)) if has]
            raise Skipped(f"not wanted: it holds {' and '.join(kinds) or 'neither picture nor sound'}")


def _sound_of(audio: Audio | None, item: Item, options: PrepareOptions) -> Audio | None:
    """The item's stretch of a sound, with the wanted channels and rate."""
    if audio is None:
        return None
    first = round(item.start * audio.rate)
    last = None if item.end is None else round(item.end * audio.rate)
    stretch = audio.waveform[:, first:last]
    if not stretch.shape[1]:
        return None
    sound = Audio(stretch, audio.rate)
    if stretch.shape[0] > options.channels:  # fewer channels first: less to resample
        return resample(mix_channels(sound, options.channels), options.rate)
    return mix_channels(resample(sound, options.rate), options.channels)


def _video(
    file: MediaFile, audio: Audio | None, item: Item, options: PrepareOptions, notes: Notes
) -> Iterator[Prepared]:
    framings: list[PrepareOptions] = []

    def scale(height: float, width: float) -> tuple[int, int]:
        if not framings:  # the first frame's bucket is the whole film's
            framings.append(options.of_picture(height, width))
        return framings[0].scale(height, width)

    shifted = ((time - item.start, shown, frame) for time, shown, frame in file.frames(scale))
    frames = constant_rate(shifted, options.fps)
    if item.end is not None:
        frames = islice(frames, max(1, round((item.end - item.start) * options.fps)))
    first = list(islice(frames, options.lengths[-1]))
    length = max((n for n in options.lengths if n <= len(first)), default=options.lengths[0])
    seconds = length / options.fps
    frames = chain(first, frames)
    del first
    clips = silent = soundless = 0
    while True:
        window = list(islice(frames, length))
        if len(window) < length:
            break
        (framing,) = framings
        video = Video(torch.from_numpy(np.stack([fit(f, framing) for f in window])), options.fps)
        sound, missing = _window(audio, clips * seconds, seconds)
        if sound is not None and missing > LATE_SOUND:
            soundless, sound = soundless + 1, None
        elif sound is not None and float(sound.waveform.abs().max()) < SILENCE:
            silent, sound = silent + 1, None
        meta = _meta(item, clips, clips * seconds, seconds)
        kinds = ("video",) if sound is None else ("video", "audio")
        size = {"frames": length, "height": framing.height, "width": framing.width}
        yield Prepared({"mp4": encode_mp4(video, sound, crf=options.crf, fast=True)}, meta, kinds, size)
        clips += 1
    if file.variable:
        notes.add(f"variable frame rate: resampled to {options.fps:g} frames per second")
    left = len(window) / options.fps
    if not clips:
        raise Skipped(f"too short: {left:.2f} s of picture, a clip is {seconds:.2f} s")
    if left:
        notes.add(f"left over: {left:.2f} s at its end do not fill a clip")
    if silent:
        notes.add(f"silent: {silent} of {clips} clips, kept as picture only")
    if soundless:
        notes.add(f"sound too short: it ends before {soundless} of {clips} clips do, kept as picture only")


def _sounds(audio: Audio | None, item: Item, options: PrepareOptions, notes: Notes) -> Iterator[Prepared]:
    if audio is None or audio.seconds < SHORTEST_SOUND:
        raise Skipped(f"too short: {audio.seconds if audio else 0:.2f} s of sound, the shortest is {SHORTEST_SOUND} s")
    filled = [seconds for seconds in options.sound_lengths if round(seconds * audio.rate) <= audio.waveform.shape[1]]
    length = filled[-1] if filled else options.sound_lengths[0]
    total = kept = 0
    while True:
        sound, missing = _window(audio, total * length, length)
        if sound is None:
            break
        if total and missing > length / 2:
            notes.add(f"left over: {length - missing:.2f} s at its end fill less than half a clip")
            break
        total += 1
        if float(sound.waveform.abs().max()) < SILENCE:
            continue
        if missing > 0.5 / audio.rate:
            notes.add(f"padded: {missing:.2f} s of silence at its end")
        meta = _meta(item, total - 1, (total - 1) * length, length)
        yield Prepared({"wav": encode_wav(sound)}, meta, ("audio",), {"seconds": length})
        kept += 1
    if not kept:
        raise Skipped("silent: nothing to hear")
    if kept < total:
        notes.add(f"silent: {total - kept} of {total} clips, left out")


def _image(data: Any, item: Item, options: PrepareOptions, notes: Notes) -> Prepared:
    image, remarks = read_still(data)
    for remark in remarks:
        notes.add(remark)
    height, width, _ = image.pixels.shape
    framing = options.of_picture(height, width)
    new_height, new_width = framing.scale(height, width)
    if new_height > height:
        notes.add("enlarged: smaller than --size")
    picture = PillowImage.fromarray(image.pixels.numpy())
    if (new_height, new_width) != (height, width):
        picture = picture.resize((new_width, new_height), PillowImage.Resampling.BICUBIC)
    pixels = torch.from_numpy(fit(np.array(picture), framing))
    meta = {**item.meta, "captions": list(item.captions), "source": item.name}
    size = {"height": framing.height, "width": framing.width}
    return Prepared({"png": encode_png(Image(pixels))}, meta, ("image",), size)


def _window(audio: Audio | None, start: float, seconds: float) -> tuple[Audio | None, float]:
    """The stretch of a sound from ``start``, padded to ``seconds``, and how many seconds were missing."""
    if audio is None:
        return None, seconds
    first, samples = round(start * audio.rate), round(seconds * audio.rate)
    stretch = audio.waveform[:, first : first + samples]
    if not stretch.shape[1]:
        return None, seconds
    return match_length(Audio(stretch, audio.rate), seconds), (samples - stretch.shape[1]) / audio.rate


def _meta(item: Item, clip: int, start: float, seconds: float) -> dict[str, Any]:
    place = {"source": item.name, "clip": clip, "start": round(item.start + start, 6), "seconds": round(seconds, 6)}
    return {**item.meta, "captions": list(item.captions), **place}


def fit(pixels: np.ndarray, options: PrepareOptions) -> np.ndarray:
    """Cut out the centre, or lay on black, to exactly the wanted size; ``(H, W, 3)``."""
    for axis, want in enumerate((options.height, options.width)):
        have = pixels.shape[axis]
        if have > want:
            first = (have - want) // 2
            pixels = pixels[first : first + want] if axis == 0 else pixels[:, first : first + want]
        elif have < want:
            before = (want - have) // 2
            widths = [(0, 0), (0, 0), (0, 0)]
            widths[axis] = (before, want - have - before)
            pixels = np.pad(pixels, widths)
    return pixels
