"""LTX-2's sound autoencoder and vocoder: 16 kHz stereo in, 24 kHz out, 128 values 25 times a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._audio_backend import ensure_torchaudio
from ..errors import UserError
from .base import PretrainedCodec, library_class, load_module, located, stated_class
from .waves import exactly

#: Samples of the mel window (LTX-2's default; the config of diffusers does not carry it), and the smallest magnitude.
_WINDOW, _FLOOR = 1024, 1e-5
_VOCODERS = "diffusers.pipelines.ltx2.vocoder"


class LTX2AudioCodec(PretrainedCodec):
    """``diffusers.AutoencoderKLLTX2Audio`` and a vocoder as a :class:`~selfflow_tokenizers.codecs.SoundCodec`.

    The waveform becomes a log-mel spectrogram per channel (LTX-2's ``AudioProcessor``: Hann window of 1024, magnitudes,
    64 Slaney bands, log of at least 1e-5), which the autoencoder takes to 8 channels x 16 bands; a latent here is those
    128 values, channel by channel, as the pipeline packs them and as its statistics count them. Latents are the
    posterior's mean. The decoder gives a spectrogram back, and the vocoder a waveform at its own rate.

    **Where latents are.** Mel frame m is centred on sample 160 m, and the autoencoder is causal: latent 0 covers frame
    0 alone, latent j frames 4 j - 3 to 4 j. So the n latents of n x 640 samples (as many as LTX-2's pipeline counts)
    cover 4 n - 3 frames, and the last 30 ms are heard only as far as the last frame's window reaches into them.
    :meth:`times` gives the middle of what a latent covers by LTX-2's own rule. For exact lengths the last decoded
    frame is held for the missing three.

    Args:
        module: the autoencoder.
        vocoder: an ``LTX2Vocoder`` (24 kHz), or one with bandwidth extension (48 kHz, later releases).
    """

    name = "ltx2-audio"
    modality = "audio"
    library = "diffusers:AutoencoderKLLTX2Audio"
    source = "Lightricks/LTX-2"
    subfolder = "audio_vae"
    licence = "ltx-2-community-license-agreement"

    def __init__(self, module: nn.Module, vocoder: nn.Module) -> None:
        super().__init__(module)
        self.vocoder = vocoder.eval().requires_grad_(False)
        config: Any = module.config
        self.frames: int = module.temporal_compression_ratio  # type: ignore[assignment]
        self.bands: int = config.mel_bins // module.mel_compression_ratio
        self.latent_channels: int = config.latent_channels * self.bands
        self.channels: int = config.in_channels
        self.sample_rate: int = config.sample_rate
        self.decoded_rate: int = vocoder.config.output_sampling_rate  # type: ignore[union-attr, assignment]
        self.hop: int = config.mel_hop_length
        self.samples_per_latent = self.hop * self.frames
        self.causal: bool = config.is_causal
        if self.latent_channels != len(self.module.latents_mean):  # type: ignore[arg-type]
            raise UserError(
                f"ltx2-audio: the latents have {self.latent_channels} values and the weights the statistics of "
                f"{len(self.module.latents_mean)}; this autoencoder is none of LTX-2's"  # type: ignore[arg-type]
            )
        ensure_torchaudio()
        from torchaudio.transforms import MelSpectrogram

        self.mel = MelSpectrogram(
            sample_rate=self.sample_rate,
            n_fft=_WINDOW,
            hop_length=self.hop,
            f_max=self.sample_rate / 2,
            n_mels=config.mel_bins,
            power=1.0,
            norm="slaney",
            mel_scale="slaney",
        )

    @classmethod
    def from_pretrained(cls, source: str | Path | None = None, *, download: bool = False) -> Self:
        """Load the autoencoder and the vocoder from ``audio_vae`` and ``vocoder`` of a folder or hub id."""
        source = source or cls.source
        both = ("audio_vae", "vocoder")
        local = Path(source).expanduser()
        if local.is_dir() and not (local / "vocoder" / "config.json").is_file():
            raise UserError(
                f"the folder {source} has no vocoder/config.json; ltx2-audio needs folders {both[0]} and {both[1]}"
            )
        module = load_module(cls.library, source, both[0], download=download, name=cls.name, needed=both)
        kind = "LTX2Vocoder"
        where, options = located(source, both[1], download=download)
        try:
            kind = stated_class(library_class(f"{_VOCODERS}:{kind}"), where, options) or kind
        except OSError:
            pass  # load_module says what is missing
        vocoder = load_module(f"{_VOCODERS}:{kind}", source, both[1], download=download, name=cls.name, needed=both)
        return cls(module, vocoder)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the library's files of both into ``audio_vae`` and ``vocoder``."""
        for part, name in ((self.module, "audio_vae"), (self.vocoder, "vocoder")):
            whole: Any = part
            whole.save_pretrained(Path(folder) / name, safe_serialization=True)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation per packed channel, from the autoencoder's weights."""
        module: Any = self.module
        return module.latents_mean.float().cpu(), module.latents_std.float().cpu()

    def times(self, first: int, count: int) -> Tensor:
        """Seconds ``(count,)`` float32 of the latents from ``first`` on: the middle of the mel frames they cover.

        LTX-2's rule (``prepare_audio_coords`` of diffusers): latent j is from frame 4 j - 3 to 4 j + 1, not before 0.
        """
        edges = torch.arange(first, first + count + 1, dtype=torch.float64) * self.frames
        if self.causal:
            edges = (edges + 1 - self.frames).clamp_min(0)
        return ((edges[:-1] + edges[1:]) / 2 * self.hop / self.sample_rate).float()

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """Waveform ``(B, channels, samples)`` -> log-mel ``(B, channels, 1 + samples // hop, mel bands)``."""
        short = _WINDOW // 2 + 1 - waveform.shape[-1]  # the mel mirrors half a window at each end
        return self.mel(F.pad(waveform, (0, max(0, short)))).clamp_min(_FLOOR).log().transpose(2, 3)

    def encode(self, waveform: Tensor) -> Tensor:
        """Waveform ``(B, channels, n samples_per_latent)`` in [-1, 1] -> latents ``(B, n, C)``."""
        module: Any = self.module
        latents = module.encode(self.spectrogram(waveform)).latent_dist.mode()
        # 4 n + 1 frames make n + 1 latents; the last reaches past the end.
        latents = latents[:, :, : waveform.shape[-1] // self.samples_per_latent]
        return latents.transpose(1, 2).flatten(2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(B, n, C)`` -> waveform ``(B, channels, n samples_per_latent decoded_rate / sample_rate)``."""
        module: Any = self.module
        frames = latents.shape[1] * self.frames
        spectrogram = module.decode(latents.unflatten(2, (-1, self.bands)).transpose(1, 2)).sample
        # The decoder gives 4 n - 3 frames; the last one is held, because silence would end the sound with a click.
        held = spectrogram[:, :, -1:].expand(-1, -1, frames - spectrogram.shape[2], -1)
        waveform = self.vocoder(torch.cat([spectrogram, held], dim=2))
        return exactly(waveform, frames * self.hop * self.decoded_rate // self.sample_rate)
