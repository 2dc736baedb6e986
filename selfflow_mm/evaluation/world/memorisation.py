"""Memorisation: how near a clip is to the nearest one of the training data, beside how near new real clips are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from selfflow_mm.errors import UserError
from selfflow_mm.evaluation.pictures import mel_spectrogram_db
from selfflow_tokenizers.media import Audio, Video

_EVERY, _SIDE = 4, 8
_COLUMNS, _BANDS = 33, 16


@dataclass(frozen=True)
class Nearest:
    """Distance to the nearest training clip, by the picture and by the sound, each to its own nearest.

    ``picture`` is the root mean square difference of every fourth frame at 8 x 8 pixels, sRGB in [0, 1]; ``sound`` that
    of a log-mel spectrogram of 16 bands and 33 columns, as shares of its range of 80 dB.
    """

    picture: float
    sound: float


class TrainingClips:
    """What a set of clips looks and sounds like, small.

    Args:
        clips: videos of one size and length with their sounds.
    """

    def __init__(self, clips: Iterable[tuple[Video, Audio]]) -> None:
        pairs = [(_picture(video), _sound(audio)) for video, audio in clips]
        self._pictures, self._sounds = torch.stack([p for p, _ in pairs]), torch.stack([s for _, s in pairs])

    def nearest(self, video: Video, audio: Audio) -> Nearest:
        """How near the nearest of them are.

        Raises:
            UserError: the clip has another length or frame rate.
        """
        picture, sound = _picture(video), _sound(audio)
        if picture.shape != self._pictures.shape[1:] or sound.shape != self._sounds.shape[1:]:
            raise UserError(
                f"a clip of {len(video.frames)} frames and {audio.seconds:.2f} s is not as long as the training clips "
                "it is compared with; --train-clips 0 leaves the comparison out"
            )
        return Nearest(_least(self._pictures, picture), _least(self._sounds, sound))


def _least(bank: Tensor, one: Tensor) -> float:
    return float((bank - one).square().mean(1).min().sqrt())


def _picture(video: Video) -> Tensor:
    frames = video.frames[::_EVERY].movedim(-1, 1).float() / 255
    return F.adaptive_avg_pool2d(frames, _SIDE).flatten()


def _sound(audio: Audio) -> Tensor:
    return mel_spectrogram_db(audio, columns=_COLUMNS, bands=_BANDS).flatten() / 80
