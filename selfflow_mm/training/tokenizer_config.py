"""Settings of a tokenizer's training: one file trains either a video or an audio autoencoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from selfflow_tokenizers.audio_autoencoder import AudioAutoencoderConfig
from selfflow_tokenizers.video_autoencoder import VideoAutoencoderConfig

from ..errors import UserError
from .config import OptimizerConfig
from .tokenizer_losses import AudioLossConfig, VideoLossConfig


@dataclass(frozen=True)
class VideoPart:
    """A video tokenizer.

    Attributes:
        model: sizes of the autoencoder.
        loss: what a reconstruction is compared by.
        patch: latent cells per token along rows and columns.
        frames: frames of a training clip, 1 + 4k; cut at a random place. Shorter data give shorter clips; stills 1.
    """

    model: VideoAutoencoderConfig = field(default_factory=VideoAutoencoderConfig)
    loss: VideoLossConfig = field(default_factory=VideoLossConfig)
    patch: int = 2
    frames: int = 17

    def __post_init__(self) -> None:
        if self.frames < 1 or self.frames % 4 != 1:
            raise UserError(f"frames is 1 + 4k (1, 5, 9, ...), got {self.frames}")
        if self.patch < 1:
            raise UserError(f"patch must be at least 1, got {self.patch}")


@dataclass(frozen=True)
class AudioPart:
    """An audio tokenizer.

    Attributes:
        model: sizes of the autoencoder.
        loss: what a reconstruction is compared by.
        latents: length of a training sound in latents; shorter sounds are filled with zeros.
        places: random places drawn for a cut; the loudest is taken, as recordings of events hold much silence.
    """

    model: AudioAutoencoderConfig = field(default_factory=AudioAutoencoderConfig)
    loss: AudioLossConfig = field(default_factory=AudioLossConfig)
    latents: int = 16
    places: int = 1

    def __post_init__(self) -> None:
        if self.latents < 4:
            raise UserError(f"latents must be at least 4, got {self.latents}")
        if self.places < 1:
            raise UserError(f"places must be at least 1, got {self.places}")


@dataclass(frozen=True)
class DataPart:
    """Which samples are trained on.

    Attributes:
        max_clips: at most so many samples, evenly spread over the data set, are decoded once and kept in memory.
        held_out: samples, evenly spread over those, that only the evaluation sees.
    """

    max_clips: int = 3000
    held_out: int = 48

    def __post_init__(self) -> None:
        if self.max_clips < 2 or self.held_out < 1:
            raise UserError("max_clips is at least 2 and held_out at least 1")


@dataclass(frozen=True)
class TokenizerRun:
    """The run itself.

    Attributes:
        steps: optimizer steps in all.
        batch: clips per step.
        seed: keys all randomness.
        latent_noise: deviation of noise added to the latents (which lie in (-1, 1)) before decoding, so that the
            decoder forgives small errors of the model that will generate them.
        linear_start: begin at the best linear code (principal components of the data) instead of at random.
        ema_half_life: half-life of the average of the weights, as a fraction of the run.
        precision: of matrix products; ``auto`` takes bfloat16 where the device is fast at it.
        device: ``auto`` (CUDA, else MPS, else CPU), or a torch device.
        threads: CPU threads for torch; 0 leaves its choice. Exact resume needs the same number.
        log_every, save_every, evaluate_every: in steps; 0 turns evaluation during training off.
        keep: checkpoints kept.
    """

    steps: int = 2000
    batch: int = 4
    seed: int = 0
    latent_noise: float = 0.03
    linear_start: bool = True
    ema_half_life: float = 0.01
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    threads: int = 0
    log_every: int = 20
    save_every: int = 500
    evaluate_every: int = 500
    keep: int = 2

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.log_every, self.save_every, self.keep) < 1:
            raise UserError("steps, batch, log_every, save_every and keep are at least 1")
        if not 0 <= self.seed < 2**64:
            raise UserError(f"seed lies in [0, 2**64), got {self.seed}")
        if self.latent_noise < 0 or self.evaluate_every < 0 or self.threads < 0:
            raise UserError("latent_noise, evaluate_every and threads cannot be negative")
        if not 0 < self.ema_half_life <= 1:
            raise UserError(f"ema_half_life is a fraction of the run in (0, 1], got {self.ema_half_life}")


@dataclass(frozen=True)
class TokenizerTrainConfig:
    """A whole run. Exactly one of ``video`` and ``audio`` is given.

    Attributes:
        name: the tokenizer's name; a hash of the weights is appended.
        train_shift, sample_shift: timestep shifts recommended for models of these latents, see the spec.
        weights: how the exported weights are stored.
    """

    name: str = "tokenizer"
    video: VideoPart | None = None
    audio: AudioPart | None = None
    train_shift: float = 1.0
    sample_shift: float = 1.0
    weights: Literal["float32", "float16"] = "float16"
    data: DataPart = field(default_factory=DataPart)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: TokenizerRun = field(default_factory=TokenizerRun)

    def __post_init__(self) -> None:
        if (self.video is None) == (self.audio is None):
            raise UserError("a tokenizer's training has either a video or an audio section")
        if self.train_shift <= 0 or self.sample_shift <= 0:
            raise UserError("timestep shifts are positive")

    @property
    def kind(self) -> Literal["video", "audio"]:
        return "video" if self.video is not None else "audio"
