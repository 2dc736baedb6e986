"""The scores of one reconstruction, and what each is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from selfflow_tokenizers.media import Audio, Image, Media, Video

from .flicker import flicker
from .reconstruction import psnr, si_sdr
from .spectral import log_spectral_distance, mel_distance, stft_distance
from .ssim import ssim


@dataclass(frozen=True)
class Score:
    """How a score is shown: its title, unit, which way is better, digits after the point, and its definition."""

    title: str
    unit: str
    better: Literal["higher", "lower"]
    digits: int
    meaning: str


SCORES = {
    "psnr": Score("PSNR", "dB", "higher", 2, "peak signal-to-noise ratio of R, G and B, the mean over samples"),
    "ssim": Score("SSIM", "", "higher", 4, "structural similarity of the luma (Wang et al. 2004), 11 x 11 Gaussian"),
    "flicker": Score("flicker", "levels", "lower", 3, "mean absolute change of the error from frame to frame, of 255"),
    "si_sdr": Score("SI-SDR", "dB", "higher", 2, "scale-invariant signal-to-distortion ratio, all channels at once"),
    "stft": Score("STFT", "", "lower", 3, "spectral convergence and log magnitude at three resolutions, as auraloss"),
    "mel": Score("mel", "", "lower", 4, "mean absolute difference of log10 magnitudes in 80 mel bands (0.05 is 1 dB)"),
    "lsd": Score("LSD", "dB", "lower", 2, "log-spectral distance, windows of 42.7 ms"),
}


def scores_of(output: Media, target: Media) -> dict[str, float]:
    """Every score that applies to a medium; NaN where one is not defined (flicker of a still, SI-SDR of silence)."""
    if isinstance(target, Audio):
        assert isinstance(output, Audio)
        x, y = output.waveform, target.waveform
        return {
            "si_sdr": si_sdr(x, y),
            "stft": stft_distance(x, y),
            "mel": mel_distance(x, y, target.rate),
            "lsd": log_spectral_distance(x, y, target.rate),
        }
    frames, truth = frames_of(output), frames_of(target)
    return {"psnr": psnr(frames, truth), "ssim": ssim(frames, truth), "flicker": flicker(frames, truth)}


def frames_of(medium: Media) -> Tensor:
    """uint8 ``(T, H, W, 3)`` of a video, ``(1, H, W, 3)`` of an image."""
    assert isinstance(medium, Image | Video)
    return medium.frames if isinstance(medium, Video) else medium.pixels[None]
