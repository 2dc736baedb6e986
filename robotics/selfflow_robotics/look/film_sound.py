"""The sound of a film of episodes: each one's own, as long as its pictures, silence where it has none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..robot_episode import RobotEpisode

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class FilmSound:
    """Sounds behind one another.

    Attributes:
        rate: samples per second that the film's file has.
        channels: 1 or 2; more are mixed down to one.
        speed: the sound plays so many times faster, its pitch rises along.
    """

    rate: int
    channels: int
    speed: float
    _given: int = field(default=0, init=False)

    @classmethod
    def of(cls, first: RobotEpisode, speed: float) -> FilmSound | None:
        """For a film that begins with this episode; None where it is silent."""
        from selfflow_mm.data.movie import AAC_RATES, FALLBACK_RATE

        if first.sound is None or not first.sound_rate:
            return None
        rate = first.sound_rate if first.sound_rate in AAC_RATES else FALLBACK_RATE
        return cls(rate, min(first.sound.shape[1], 2) if first.sound.shape[1] <= 2 else 1, speed)

    def next(self, episode: RobotEpisode, until: float) -> Tensor:
        """``(channels, samples)`` that carry the film to ``until`` seconds, for AAC as exact as samples are."""
        import torch

        samples = max(0, round(until * self.rate) - self._given)
        self._given += samples
        result = torch.zeros(self.channels, samples)
        if episode.sound is not None and episode.sound_rate:
            wave = self._fitted(episode.sound, episode.sound_rate)[:, :samples]
            result[:, : wave.shape[1]] = wave
        return result

    def _fitted(self, sound: np.ndarray, sound_rate: int) -> Tensor:
        """``(T, channels, samples per step)`` as one waveform with the film's channels, rate and speed."""
        import torch

        from selfflow_mm.data.resampling import resample
        from selfflow_tokenizers.media import Audio

        wave = torch.from_numpy(np.ascontiguousarray(np.concatenate(list(sound), axis=1), dtype=np.float32))
        if wave.shape[0] != self.channels:
            wave = wave.mean(dim=0, keepdim=True).expand(self.channels, -1)
        rate = round(sound_rate * self.speed)
        return wave if rate == self.rate else resample(Audio(wave.contiguous(), rate), self.rate).waveform
