"""Reading media: any video, sound or still image into memory, upright and in step.

PyAV (FFmpeg) reads videos and sounds, Pillow still images. What is changed on the way is said in ``Clip.notes``.

* **Upright.** Rotations and mirrorings of a display matrix, a ``rotate`` tag or EXIF are applied.
* **Constant frame rate.** Frame ``k`` of the result is the stored frame whose time stamp is nearest to ``k / fps``.
* **In step.** Frame 0 and sample 0 are at the same instant: codec delay is removed, a sound that starts later
  than the picture gets silence in front, one that starts earlier is cut, gaps in a sound become silence.
* **Damage.** A file that breaks off in its last tenth is kept up to the break, with a note; one that breaks off
  earlier, or has no decodable frame at all, is a ``UserError``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from selfflow_mm.data.decoders import Frame, chosen, decoder_for
from selfflow_mm.data.mediafile import MediaFile, Notes, Source
from selfflow_mm.data.resampling import constant_rate
from selfflow_mm.data.stills import is_still, read_still
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Image, Video

VIDEO_ENDINGS = frozenset("mp4 m4v mkv mov webm avi mpg mpeg gif ts".split())
AUDIO_ENDINGS = frozenset("wav flac mp3 ogg opus m4a aac".split())
IMAGE_ENDINGS = frozenset("jpg jpeg png webp bmp tif tiff avif".split())
_LACKING = 0.2  # seconds by which another decoder's frames may end apart from the stated end


@dataclass(frozen=True)
class Clip:
    """What a file holds. A still image gives ``image``, anything else ``video``, ``audio`` or both; ``notes`` say
    what was changed or is unusual, each as ``kind: detail``."""

    video: Video | None = None
    audio: Audio | None = None
    image: Image | None = None
    notes: tuple[str, ...] = ()


def _frames(file: MediaFile) -> Iterable[Frame]:
    """The pictures, by the decoder that was chosen where it can read them as PyAV would, else by PyAV."""
    if chosen() != "pyav" and (other := decoder_for(file.codec, plain=file.plain)) is not None:
        try:
            frames = list(other.frames(file.source, 1))
        except Exception as error:  # whatever a library raises; PyAV then says what is wrong with the file
            file.notes.add(f"read by PyAV: {other.package} cannot ({type(error).__name__})")
        else:
            stated = file.stated("video")
            if frames and (stated is None or abs(frames[-1][0] + frames[-1][1] - stated) < _LACKING):
                file.times = [seconds for seconds, _, _ in frames]
                return frames
            file.notes.add(f"read by PyAV: {other.package} gives other times than the file states")
    return file.frames(sound_next=file.has_audio)


def read_media(path_or_bytes: Source) -> Clip:
    """Read a whole file into memory; mono stays mono and the stored sample rate is kept.

    Raises:
        UserError: no such file, not a media file, or too damaged.
    """
    if is_still(path_or_bytes):
        image, remarks = read_still(path_or_bytes)
        return Clip(image=image, notes=tuple(remarks))
    notes = Notes()
    with MediaFile(path_or_bytes, notes) as file:
        video = audio = None
        if file.has_video:
            fps = file.fps
            frames = list(constant_rate(_frames(file), fps))
            if file.variable:
                notes.add(f"variable frame rate: resampled to {fps:.4g} frames per second")
            video = Video(torch.from_numpy(np.stack(frames)), fps)
        if file.has_audio:
            audio = file.sound()
        if video is None and audio is None:
            raise UserError(f"{file.name} holds neither a picture nor a sound")
    return Clip(video, audio, None, tuple(notes.items))
