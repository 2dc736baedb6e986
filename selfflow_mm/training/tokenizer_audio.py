"""What is particular to training an audio tokenizer: its sounds, loss, evaluation and report cards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selfflow_tokenizers.audio_autoencoder import AudioAutoencoder
from selfflow_tokenizers.audio_tokenizer import AudioTokenizer
from selfflow_tokenizers.initialise import fit_linear_audio
from selfflow_tokenizers.media import Audio

from ..data.shards import ShardDataset
from ..data.writing import encode_wav
from ..evaluation.page import Card, spectrogram
from ..evaluation.reconstruction import level_db, match_onsets, onsets, si_sdr
from ..randomness import Randomness
from .tokenizer_audio_loss import audio_loss, loudness
from .tokenizer_config import AudioPart, TokenizerTrainConfig
from .tokenizer_data import Clips, cut_places, load_waveforms
from .tokenizer_latents import LatentStatistics, measure

#: Sounds the linear start is fitted to, and whose latents give the statistics.
_FIT, _MEASURE = 256, 1024
#: How many times louder or quieter than its level sounds may be without a remark.
_LEVELS = 6.0


@dataclass
class AudioTask:
    """The audio half of :mod:`tokenizer_loop`; ``VideoTask`` has the same methods."""

    config: TokenizerTrainConfig
    part: AudioPart
    clips: Clips

    @classmethod
    def load(cls, config: TokenizerTrainConfig, data: ShardDataset, began_with: str | None = None) -> AudioTask:
        assert config.audio is not None
        model = config.audio.model
        most, apart = config.data.max_clips, config.data.held_out
        return cls(config, config.audio, load_waveforms(data, most, apart, model.sample_rate, model.channels))

    @property
    def count(self) -> int:
        return len(self.clips.train)

    def to(self, device: torch.device) -> None:
        """Nothing of the loss has a device of its own."""

    def notes(self) -> list[str]:
        """A level far from the sounds' own, at which training starts badly."""
        squares = sum(float(w.double().square().sum()) for w in self.clips.train)
        measured = math.sqrt(squares / sum(w.numel() for w in self.clips.train))
        level = self.part.model.level
        if not measured or 1 / _LEVELS < level / measured < _LEVELS:
            return []
        advice = float(f"{min(measured, 1.0):.1g}")
        return [
            f"the sounds have a level (root mean square) of {measured:.2g} and the model is made for {level:g}; "
            f"a new run trains better with audio.model.level={advice:g}"
        ]

    @property
    def step_samples(self) -> int:
        return self.part.model.samples_per_latent

    def fit_linear(self, model: nn.Module) -> None:
        assert isinstance(model, AudioAutoencoder)
        chosen = self.clips.train[:: -(-self.count // _FIT)]
        longest = max(w.shape[1] for w in chosen)
        longest += -longest % self.step_samples
        fit_linear_audio(model, torch.stack([F.pad(w, (0, longest - w.shape[1])) for w in chosen]), self.part.balance)

    def batch(self, random: Randomness, step: int, ids: Tensor) -> Tensor:
        """float32 ``(B, channels, samples)``: each sound cut at the loudest of ``places`` random places."""
        length = self.part.latents * self.step_samples
        waves = [self.clips.train[i] for i in ids.tolist()]
        room = torch.tensor([max(0, w.shape[1] - length) for w in waves])
        purposes = ["cut", *(f"cut {i}" for i in range(1, self.part.places))]
        places = [cut_places(random, purpose, step, ids, room) for purpose in purposes]
        cuts = []
        for wave, *starts in zip(waves, *places, strict=True):
            cut = max((wave[:, s : s + length] for s in starts), key=lambda piece: float(piece.square().sum()))
            cuts.append(F.pad(cut, (0, length - cut.shape[1])))
        return torch.stack(cuts)

    def media(self, batch: Tensor) -> Tensor:
        """What the autoencoder takes: the waveforms as they are."""
        return batch

    def terms(
        self, output: Tensor, target: Tensor, random: Randomness, step: int, ids: Tensor, bfloat16: bool
    ) -> dict[str, Tensor]:
        return audio_loss(output, target, self.part.loss, self.part.model.sample_rate)

    def views(self, media: Tensor, target: Tensor, random: Randomness, step: int, ids: Tensor) -> Tensor:
        """What the discriminator hears: all of it, as loud as makes ``target`` 1 in root mean square."""
        return media / loudness(target)

    def last_layer(self, model: nn.Module) -> Tensor:
        """Weight of the decoder's last layer, at which gradients are balanced."""
        assert isinstance(model, AudioAutoencoder)
        return model.synthesis.weight

    def tokenizer(self, model: nn.Module, statistics: LatentStatistics | None) -> AudioTokenizer:
        assert isinstance(model, AudioAutoencoder)
        c = self.config
        return AudioTokenizer(
            model,
            name=c.name,
            mean=None if statistics is None else statistics.mean,
            deviation=None if statistics is None else statistics.deviation,
            train_shift=c.train_shift,
            sample_shift=c.sample_shift,
        )

    def finish(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The trained model as it is."""
        return model

    def measure(self, model: nn.Module, device: torch.device) -> LatentStatistics:
        """Of whole training sounds."""
        waves = self.clips.train[:: -(-self.count // _MEASURE)]
        whole = (F.pad(wave, (0, -wave.shape[1] % self.step_samples))[None] for wave in waves)
        return measure(model, whole, device)

    def evaluate(self, tokenizer: Any) -> dict[str, float]:
        """Over held-out sounds: mean and median ``si_sdr`` in dB, ``onset_recall``, false onsets per sound, and the
        level that silence decodes to.
        """
        ratios, hits, false, all_onsets = [], 0, 0, 0
        for wave in self.clips.held_out:
            output = _reconstruct(tokenizer, wave)
            ratios.append(si_sdr(output, wave))
            truth = onsets(wave, tokenizer.spec.sample_rate)
            found, wrong = match_onsets(onsets(output, tokenizer.spec.sample_rate), truth)
            hits, false, all_onsets = hits + found, false + wrong, all_onsets + len(truth)
        ratios = sorted(r for r in ratios if not math.isnan(r))
        silence = torch.zeros(self.part.model.channels, 32 * self.step_samples)
        scores = {"silence_db": level_db(_reconstruct(tokenizer, silence))}
        if ratios:
            scores |= {"si_sdr": sum(ratios) / len(ratios), "si_sdr_median": ratios[len(ratios) // 2]}
        if all_onsets:
            scores["onset_recall"] = hits / all_onsets
        return scores | {"false_onsets": false / len(self.clips.held_out)}

    def cards(self, tokenizer: Any, most: int = 8) -> list[list[Card]]:
        """For each held-out sound a row: original, reconstruction and their difference, each with its spectrogram."""
        rate = tokenizer.spec.sample_rate
        rows = []
        for wave, caption in list(zip(self.clips.held_out, self.clips.captions, strict=True))[:most]:
            output = _reconstruct(tokenizer, wave)
            error = output - wave
            below = f"{level_db(error) - level_db(wave):.1f} dB to the original"
            shown = (
                (wave, {"heard": "original"}),
                (output, {"heard": "reconstruction", "SI-SDR": f"{si_sdr(output, wave):.1f} dB"}),
                (error, {"heard": "difference", "level": below}),
            )
            sounds = [(Audio(sound, rate), facts) for sound, facts in shown]
            rows.append([Card(caption, encode_wav(a), "audio", (spectrogram(a),), facts) for a, facts in sounds])
        return rows


def _reconstruct(tokenizer: AudioTokenizer, wave: Tensor) -> Tensor:
    return tokenizer.decode_batch(tokenizer.encode_batch(wave[None]))[0, :, : wave.shape[1]].cpu()
