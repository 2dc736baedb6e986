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
from .tokenizer_config import AudioPart, TokenizerTrainConfig
from .tokenizer_data import Clips, cut_places, load_waveforms
from .tokenizer_losses import audio_loss

#: Sounds the linear start is fitted to, and whose latents give the statistics.
_FIT, _MEASURE = 256, 1024
#: Seconds of silence between original and reconstruction in a report's player.
_PAUSE = 0.5


@dataclass
class AudioTask:
    """The audio half of :mod:`tokenizer_loop`; ``VideoTask`` has the same methods."""

    config: TokenizerTrainConfig
    part: AudioPart
    clips: Clips

    @classmethod
    def load(cls, config: TokenizerTrainConfig, data: ShardDataset) -> AudioTask:
        assert config.audio is not None
        model = config.audio.model
        most, apart = config.data.max_clips, config.data.held_out
        return cls(config, config.audio, load_waveforms(data, most, apart, model.sample_rate, model.channels))

    @property
    def count(self) -> int:
        return len(self.clips.train)

    @property
    def step_samples(self) -> int:
        return self.part.model.samples_per_latent

    def fit_linear(self, model: nn.Module) -> None:
        assert isinstance(model, AudioAutoencoder)
        chosen = self.clips.train[:: -(-self.count // _FIT)]
        longest = max(w.shape[1] for w in chosen)
        longest += -longest % self.step_samples
        fit_linear_audio(model, torch.stack([F.pad(w, (0, longest - w.shape[1])) for w in chosen]))

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

    def loss(self, model: nn.Module, batch: Tensor, noise: Tensor, bfloat16: bool) -> dict[str, Tensor]:
        assert isinstance(model, AudioAutoencoder)
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=bfloat16):
            latents = model.encode(batch)
            output = model.decode(latents + noise.view_as(latents))
        return audio_loss(output.float(), batch, self.part.loss)

    def latent_values(self, batch: Tensor) -> int:
        """Latent values per sound of a batch."""
        return batch.shape[-1] // self.step_samples * self.part.model.latent_channels

    def tokenizer(self, model: nn.Module, statistics: tuple[Tensor, Tensor] | None) -> AudioTokenizer:
        assert isinstance(model, AudioAutoencoder)
        mean, deviation = statistics or (None, None)
        c = self.config
        return AudioTokenizer(
            model,
            name=c.name,
            mean=mean,
            deviation=deviation,
            train_shift=c.train_shift,
            sample_shift=c.sample_shift,
        )

    def measure(self, model: nn.Module, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each latent channel over whole training sounds."""
        assert isinstance(model, AudioAutoencoder)
        total = []
        with torch.no_grad():
            for wave in self.clips.train[:: -(-self.count // _MEASURE)]:
                whole = F.pad(wave, (0, -wave.shape[1] % self.step_samples))
                total.append(model.encode(whole[None].to(device))[0].cpu())
        latents = torch.cat(total).double()
        return latents.mean(0).float(), latents.std(0).clamp_min(1e-3).float()

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

    def cards(self, tokenizer: Any, most: int = 8) -> list[Card]:
        """The original, a pause, the reconstruction; and both spectrograms."""
        rate = tokenizer.spec.sample_rate
        cards = []
        for wave, caption in list(zip(self.clips.held_out, self.clips.captions, strict=True))[:most]:
            output = _reconstruct(tokenizer, wave)
            pause = torch.zeros(len(wave), round(_PAUSE * rate))
            both = encode_wav(Audio(torch.cat([wave, pause, output], dim=1), rate))
            pictures = tuple(spectrogram(Audio(w, rate)) for w in (wave, output))
            details = {"SI-SDR": f"{si_sdr(output, wave):.1f} dB", "first": "original", "then": "reconstruction"}
            cards.append(Card(caption, both, "audio", pictures, details))
        return cards


def _reconstruct(tokenizer: AudioTokenizer, wave: Tensor) -> Tensor:
    return tokenizer.decode_batch(tokenizer.encode_batch(wave[None]))[0, :, : wave.shape[1]].cpu()
