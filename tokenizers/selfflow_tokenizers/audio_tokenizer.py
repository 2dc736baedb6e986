"""Sounds to token streams and back, through any sound codec: one latent is one token.

Values are standardised by the mean and deviation of each latent channel (both in the spec).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import folder as on_disk
from .codecs import SoundCodec
from .errors import UserError
from .grids import autocast, check_stream, same_shape, standardise, unstandardise
from .grids import samples as stream_samples
from .media import Audio
from .spec import TokenizerSpec
from .stream import Extent, TokenStream

#: Sounds of equal length encoded or decoded at once, and seconds of them; longer sounds go piece by piece where the
#: codec can, so that memory does not grow with their length.
_BATCH, _SECONDS = 16, 60.0


class AudioTokenizer:
    """A sound codec with the spec of its latents.

    A mono sound is heard equally from all the tokenizer's channels; any other number of channels
    than the tokenizer's, and any other sample rate, is refused rather than guessed at.

    Args:
        model: a :class:`SoundCodec`, ours or an adapter; put into evaluation mode.
        name: short id in the spec; a hash of the weights is appended.
        mean, deviation: per latent channel, measured on training latents; None leaves latents as they are.
        train_shift, sample_shift, licence: see :class:`TokenizerSpec`.
    """

    def __init__(
        self,
        model: SoundCodec,
        *,
        name: str = "audio",
        mean: Tensor | None = None,
        deviation: Tensor | None = None,
        train_shift: float = 1.0,
        sample_shift: float = 1.0,
        licence: str = "Apache-2.0",
    ) -> None:
        assert isinstance(model, nn.Module)
        self.model: Any = model.eval()
        self.stored = torch.float32
        self.spec = TokenizerSpec(
            name=f"{name}-{on_disk.weights_hash(model)}",
            modality="audio",
            channels=model.latent_channels,
            latents_per_second=model.sample_rate / model.samples_per_latent,
            sample_rate=model.sample_rate,
            decoded_rate=model.decoded_rate if model.decoded_rate != model.sample_rate else 0,
            audio_channels=model.channels,
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
        waves = [self.fitted(sound) for sound in media]
        shapes = [(len(self.positions(w.shape[1])),) for w in waves]
        rows: list[TokenStream | None] = [None] * len(waves)
        for group in same_shape(shapes, self._at_once(shapes)):
            length = shapes[group[0]][0] * self.model.samples_per_latent
            values = self.encode_batch(torch.stack([F.pad(waves[i], (0, length - waves[i].shape[1])) for i in group]))
            if not bool(torch.isfinite(values).all()):
                raise UserError(f"'{self.spec.name}' gives NaN or infinite latents for these sounds")
            for i, value in zip(group, values, strict=True):
                samples = waves[i].shape[1]
                rows[i] = TokenStream.dense(value[None], self.positions(samples), (Extent(samples=samples),))
        return TokenStream.pad([row for row in rows if row is not None])

    @torch.no_grad()
    def encode_batch(self, waveforms: Tensor, *, bfloat16: bool = False) -> Tensor:
        """Waveforms float ``(B, channels, samples)`` -> token values float32 ``(B, N, C)``, no checks, no positions.

        A length that is no multiple of the latent's is filled up with zeros. ``bfloat16`` computes in bfloat16.
        """
        step = self.model.samples_per_latent
        waveforms = F.pad(waveforms, (0, -waveforms.shape[-1] % step))
        values = []
        for start, end, before, after in self._pieces(waveforms.shape[-1] // step):
            piece = waveforms[..., (start - before) * step : (end + after) * step].to(self.device).float()
            with autocast(self.device, bfloat16):
                latents = self.model.encode(piece)
            values.append(standardise(latents.float()[:, before : before + end - start], self.spec))
        return torch.cat(values, dim=1)

    @torch.no_grad()
    def decode_batch(self, values: Tensor, *, bfloat16: bool = False) -> Tensor:
        """Token values ``(B, N, C)`` -> waveforms float32 ``(B, channels, samples)`` in [-1, 1] at the decoded rate."""
        step = self.decoded(self.model.samples_per_latent)
        waveforms = []
        for start, end, before, after in self._pieces(values.shape[1]):
            piece = unstandardise(values[:, start - before : end + after].to(self.device).float(), self.spec)
            with autocast(self.device, bfloat16):
                wave = self.model.decode(piece)
            waveforms.append(wave.float()[..., before * step : (before + end - start) * step].clamp(-1, 1))
        return torch.cat(waveforms, dim=-1)

    def decode(self, stream: TokenStream, samples: int | None = None) -> list[Audio]:
        """One sound per sample of the stream, on the CPU, at the decoded rate, and of the length that was encoded.

        ``samples`` crops each to so many samples per channel, counted at the rate that the tokenizer reads.

        Raises:
            UserError: NaN or infinite values, or ``samples`` is more than the tokens hold.
        """
        check_stream(stream, self.spec)
        parts = [values for values, _ in stream_samples(stream)]
        if stream.extents and len(stream.extents) != len(parts):
            raise UserError(f"the stream has {len(parts)} samples and the extents of {len(stream.extents)}")
        extents = stream.extents or (Extent(),) * len(parts)
        sounds: list[Audio | None] = [None] * len(parts)
        shapes = [(len(p),) for p in parts]
        for group in same_shape(shapes, self._at_once(shapes)):
            waves = self.decode_batch(torch.stack([parts[i] for i in group])).cpu()
            for i, wave in zip(group, waves, strict=True):
                wanted = samples if samples is not None else (extents[i].samples or None)
                length = wave.shape[-1] if wanted is None else self.decoded(wanted)
                if not 0 < length <= wave.shape[-1]:
                    held = len(parts[i]) * self.model.samples_per_latent
                    raise UserError(f"{wanted} samples were asked for, the tokens hold {held}")
                sounds[i] = Audio(wave[:, :length].clone(), self.spec.decoded_rate or self.spec.sample_rate)
        return [sound for sound in sounds if sound is not None]

    def decoded(self, samples: int) -> int:
        """Samples written for so many samples read."""
        if not self.spec.decoded_rate:
            return samples
        return round(samples * self.spec.decoded_rate / self.spec.sample_rate)

    def positions(self, samples: int) -> Tensor:
        """Where the tokens of ``samples`` samples are: float32 ``(N, 4)`` of (seconds, 0, 0, 0).

        Seconds are the centre of the samples a latent covers. A last, partly filled latent counts.
        """
        if samples < 1:
            raise UserError(f"a sound has at least one sample, got {samples}")
        where = torch.zeros(-(-samples // self.model.samples_per_latent), 4)
        where[:, 0] = self.times(0, len(where))
        return where

    def times(self, first: int, count: int) -> Tensor:
        """Seconds ``(count,)`` float32 of the latents from ``first`` on."""
        if hasattr(self.model, "times"):  # a codec whose latents are not centred on the samples they stand for
            return self.model.times(first, count)
        j = torch.arange(first, first + count, dtype=torch.float64)
        return ((j + 0.5) * self.model.samples_per_latent / self.spec.sample_rate).float()

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write config.json and the weights.

        ``dtype`` float16 halves the file; without it weights are stored as they were loaded (float32 when new). An
        adapter's are written by its library, in its own form.
        """
        on_disk.save_tokenizer(folder, self, self.model, dtype or self.stored)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, download: bool = False) -> AudioTokenizer:
        """A saved tokenizer, from a folder or a hub id (weights as float32, on the CPU); see :func:`load_tokenizer`."""
        found = on_disk.load_tokenizer(source, download=download)
        if not isinstance(found, cls):
            raise UserError(f"{source} holds a {type(found).__name__}, not an {cls.__name__}; use load_tokenizer")
        return found

    @property
    def reach(self) -> int | None:
        """Latents before and after a piece that its result depends on; None where that is not finite or not known."""
        return getattr(self.model, "reach", None)

    def fitted(self, sound: Audio) -> Tensor:
        """The waveform, checked, with the tokenizer's channels."""
        if not isinstance(sound, Audio):
            raise UserError(f"a tokenizer of sound takes sounds, got {type(sound).__name__}")
        channels, rate = self.spec.audio_channels, self.spec.sample_rate
        if sound.rate != rate:
            raise UserError(f"the tokenizer takes sound at {rate} samples per second, got {sound.rate}; resample it")
        wave = sound.waveform
        if wave.shape[0] != channels:
            if wave.shape[0] != 1:
                raise UserError(
                    f"the tokenizer takes {channels} channels{' (or 1, copied to all)' if channels > 1 else ''}, got "
                    f"{wave.shape[0]}; mix it with selfflow_mm.data.resampling.mix_channels or `selfflow-mm prepare`"
                )
            wave = wave.expand(channels, -1)
        if not bool(torch.isfinite(wave).all()):
            raise UserError("a sound holds NaN or infinite samples; repair or drop it")
        return wave

    def _pieces(self, latents: int) -> list[tuple[int, int, int, int]]:
        """Starts and ends of pieces, and how many latents before and after each must be seen with it."""
        most = max(1, round(_SECONDS * self.spec.latents_per_second))
        if self.reach is None or latents <= most + 2 * self.reach:
            return [(0, latents, 0, 0)]
        starts = range(0, latents, most)
        return [
            (start, end, min(self.reach, start), min(self.reach, latents - end))
            for start in starts
            for end in (min(start + most, latents),)
        ]

    def _at_once(self, shapes: Sequence[tuple[int, ...]]) -> int:
        longest = max((shape[0] for shape in shapes), default=1) / self.spec.latents_per_second
        return max(1, min(_BATCH, int(_SECONDS / longest)))
