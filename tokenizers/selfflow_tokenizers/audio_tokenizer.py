"""Sounds to token streams and back: one latent of an :class:`AudioAutoencoder` is one token.

Values are standardised by the mean and deviation of each latent channel measured on training data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from . import folder as on_disk
from .audio_autoencoder import AudioAutoencoder, AudioAutoencoderConfig
from .errors import UserError
from .grids import autocast, check_stream, same_shape, standardise, unstandardise
from .grids import samples as stream_samples
from .media import Audio
from .spec import TokenizerSpec
from .stream import TokenStream

#: Sounds of equal length encoded or decoded at once.
_BATCH = 16


class AudioTokenizer:
    """An audio autoencoder with the spec of its latents.

    A mono sound is heard equally from all the tokenizer's channels; any other number of channels
    than the tokenizer's, and any other sample rate, is refused rather than guessed at.

    Args:
        model: the autoencoder; put into evaluation mode.
        name: short id in the spec; a hash of the weights is appended.
        mean, deviation: per latent channel, measured on training latents; None leaves latents as they are.
        train_shift, sample_shift, licence: see :class:`TokenizerSpec`.
    """

    def __init__(
        self,
        model: AudioAutoencoder,
        *,
        name: str = "audio",
        mean: Tensor | None = None,
        deviation: Tensor | None = None,
        train_shift: float = 1.0,
        sample_shift: float = 1.0,
        licence: str = "Apache-2.0",
    ) -> None:
        self.model = model.eval()
        self.stored = torch.float32
        self.spec = TokenizerSpec(
            name=f"{name}-{on_disk.weights_hash(model)}",
            modality="audio",
            channels=model.config.latent_channels,
            latents_per_second=model.config.sample_rate / model.config.samples_per_latent,
            sample_rate=model.config.sample_rate,
            audio_channels=model.config.channels,
            shift=() if mean is None else tuple(mean.tolist()),
            scale=() if deviation is None else tuple((1 / deviation).tolist()),
            train_shift=train_shift,
            sample_shift=sample_shift,
            licence=licence,
        )

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> AudioTokenizer:
        self.model.to(device)
        return self

    def encode(self, media: Sequence[Audio]) -> TokenStream:
        """Sounds of any lengths -> one stream; the last latent of a sound may reach into zeros after its end.

        Raises:
            UserError: another sample rate or number of channels, NaN or infinity.
        """
        if isinstance(media, Audio):
            raise UserError("encode takes a list of sounds; put the one into a list")
        waves = [self._fit(sound) for sound in media]
        rows: list[TokenStream | None] = [None] * len(waves)
        for group in same_shape([tuple(w.shape) for w in waves], _BATCH):
            values = self.encode_batch(torch.stack([waves[i] for i in group]))
            for i, value in zip(group, values, strict=True):
                rows[i] = TokenStream.dense(value[None], self.positions(waves[i].shape[1]))
        return TokenStream.pad([row for row in rows if row is not None])

    @torch.no_grad()
    def encode_batch(self, waveforms: Tensor, *, bfloat16: bool = False) -> Tensor:
        """Waveforms float ``(B, channels, samples)`` -> token values float32 ``(B, N, C)``, no checks, no positions.

        A length that is no multiple of the latent's is filled up with zeros. ``bfloat16`` computes in bfloat16.
        """
        step = self.model.config.samples_per_latent
        waveforms = F.pad(waveforms.to(self.device).float(), (0, -waveforms.shape[-1] % step))
        with autocast(self.device, bfloat16):
            latents = self.model.encode(waveforms)
        return standardise(latents.float(), self.spec)

    @torch.no_grad()
    def decode_batch(self, values: Tensor, *, bfloat16: bool = False) -> Tensor:
        """Token values ``(B, N, C)`` -> waveforms float32 ``(B, channels, samples)`` in [-1, 1]."""
        with autocast(self.device, bfloat16):
            waveforms = self.model.decode(unstandardise(values.to(self.device).float(), self.spec))
        return waveforms.float().clamp(-1, 1)

    def decode(self, stream: TokenStream, samples: int | None = None) -> list[Audio]:
        """One sound per sample of the stream, on the CPU; ``samples`` crops each to so many samples per channel.

        Raises:
            UserError: ``samples`` is more than the tokens hold.
        """
        check_stream(stream, self.spec)
        parts = [values for values, _ in stream_samples(stream)]
        sounds: list[Audio | None] = [None] * len(parts)
        for group in same_shape([tuple(p.shape) for p in parts], _BATCH):
            waves = self.decode_batch(torch.stack([parts[i] for i in group])).cpu()
            if samples is not None and not 0 < samples <= waves.shape[-1]:
                raise UserError(f"{samples} samples were asked for, the tokens hold {waves.shape[-1]}")
            for i, wave in zip(group, waves, strict=True):
                sounds[i] = Audio(wave[:, :samples].clone(), self.spec.sample_rate)
        return [sound for sound in sounds if sound is not None]

    def positions(self, samples: int) -> Tensor:
        """Where the tokens of ``samples`` samples are: float32 ``(N, 4)`` of (seconds, 0, 0, 0).

        Seconds are the centre of the samples a latent covers. A last, partly filled latent counts.
        """
        if samples < 1:
            raise UserError(f"a sound has at least one sample, got {samples}")
        step = self.model.config.samples_per_latent
        where = torch.zeros(-(-samples // step), 4)
        where[:, 0] = (torch.arange(len(where), dtype=torch.float64) + 0.5) * step / self.spec.sample_rate
        return where

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors.

        ``dtype`` float16 halves the file; without it weights are stored as they were loaded (float32 when new).
        """
        config = {"model": asdict(self.model.config), "spec": self.spec.to_dict()}
        on_disk.save(folder, type(self).__name__, self.model, config, dtype or self.stored)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> AudioTokenizer:
        """Load a saved tokenizer (weights as float32, on the CPU)."""
        data = on_disk.read_config(folder)
        if data["class"] != cls.__name__:
            raise UserError(f"{folder} holds a {data['class']}, not an {cls.__name__}; use load_tokenizer")
        model = AudioAutoencoder(on_disk.sizes_from(AudioAutoencoderConfig, data["model"], folder))
        stored = on_disk.load_weights(model, folder)
        tokenizer = cls(model)
        tokenizer.spec, tokenizer.stored = TokenizerSpec.from_dict(data["spec"]), stored
        return tokenizer

    def _fit(self, sound: Audio) -> Tensor:
        """The waveform, checked, with the tokenizer's channels, filled up to whole latents."""
        channels, rate = self.spec.audio_channels, self.spec.sample_rate
        if sound.rate != rate:
            raise UserError(f"the tokenizer takes sound at {rate} samples per second, got {sound.rate}; resample it")
        wave = sound.waveform
        if wave.shape[0] != channels:
            if wave.shape[0] != 1:
                raise UserError(
                    f"the tokenizer takes {channels} channels (or 1, copied to all), got {wave.shape[0]}; mix it down"
                )
            wave = wave.expand(channels, -1)
        if not bool(torch.isfinite(wave).all()):
            raise UserError("a sound holds NaN or infinite samples; repair or drop it")
        return F.pad(wave, (0, -wave.shape[1] % self.model.config.samples_per_latent))
