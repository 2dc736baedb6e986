"""Settings of a tokenizer's training: one file trains either a video or an audio autoencoder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from selfflow_tokenizers.audio_autoencoder import AudioAutoencoderConfig
from selfflow_tokenizers.presets import AUDIO_PRESETS, VIDEO_PRESETS
from selfflow_tokenizers.video_autoencoder import VideoAutoencoderConfig

from ..config import register_presets
from ..errors import UserError
from .config import OptimizerConfig
from .tokenizer_adversary import AdversarialConfig, PatchConfig, SpectrumConfig
from .tokenizer_audio_loss import AudioLossConfig
from .tokenizer_video_loss import VideoLossConfig


@dataclass(frozen=True)
class VideoModel(VideoAutoencoderConfig):
    """Sizes of the autoencoder.

    Attributes:
        preset: the name of the preset that the values started from; says nothing by itself.
    """

    preset: str = ""

    def sizes(self) -> VideoAutoencoderConfig:
        """Without the name."""
        return VideoAutoencoderConfig(**_values(self, VideoAutoencoderConfig))


@dataclass(frozen=True)
class AudioModel(AudioAutoencoderConfig):
    """Sizes of the autoencoder.

    Attributes:
        preset: the name of the preset that the values started from; says nothing by itself.
    """

    preset: str = ""

    def sizes(self) -> AudioAutoencoderConfig:
        """Without the name."""
        return AudioAutoencoderConfig(**_values(self, AudioAutoencoderConfig))


def _values(config: object, cls: type) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in fields(cls)}


register_presets(VideoModel, {name: asdict(sizes) for name, sizes in VIDEO_PRESETS.items()})
register_presets(AudioModel, {name: asdict(sizes) for name, sizes in AUDIO_PRESETS.items()})


@dataclass(frozen=True)
class VideoPart:
    """A tokenizer of videos, or of pictures alone (``model.time_compression`` 1).

    Attributes:
        model: sizes of the autoencoder; ``preset`` names a set of them.
        loss: what a reconstruction is compared by.
        adversarial: the discriminator, where it has a weight.
        patch: latent cells per token along rows and columns.
        frames: frames of a training clip, 1 + c k for a time compression c; cut at a random place. Shorter data give
            shorter clips; stills 1.
        crop: side in pixels of the squares that training cuts at random places, for pictures of any sizes; smaller
            ones are filled up by repeating their borders. 0 takes whole pictures, which are then all of one size.
    """

    model: VideoModel = field(default_factory=VideoModel)
    loss: VideoLossConfig = field(default_factory=VideoLossConfig)
    adversarial: PatchConfig = field(default_factory=PatchConfig)
    patch: int = 2
    frames: int = 17
    crop: int = 0

    def __post_init__(self) -> None:
        step = self.model.time_compression
        if self.frames < 1 or (self.frames - 1) % step:
            raise UserError(f"frames is 1 + {step}k (1, {1 + step}, {1 + 2 * step}, ...), got {self.frames}")
        if self.patch < 1:
            raise UserError(f"patch must be at least 1, got {self.patch}")
        if self.crop < 0 or self.crop % self.multiple:
            raise UserError(f"crop is a multiple of a token's {self.multiple} pixels, got {self.crop}")

    @property
    def multiple(self) -> int:
        """Pixels of a token along rows and columns."""
        return self.model.space_compression * self.patch


@dataclass(frozen=True)
class AudioPart:
    """An audio tokenizer.

    Attributes:
        model: sizes of the autoencoder; ``preset`` names a set of them.
        loss: what a reconstruction is compared by.
        adversarial: the discriminator, where it has a weight.
        latents: length of a training sound in latents; shorter sounds are filled with zeros.
        places: random places drawn for a cut; the loudest is taken, as recordings of events hold much silence.
        balance: from 0 to 1, how far the linear start evens out the loudness of bands before it keeps the strongest
            components; without it thin high sounds may be lost for good.
    """

    model: AudioModel = field(default_factory=AudioModel)
    loss: AudioLossConfig = field(default_factory=AudioLossConfig)
    adversarial: SpectrumConfig = field(default_factory=SpectrumConfig)
    latents: int = 16
    places: int = 1
    balance: float = 0.0

    def __post_init__(self) -> None:
        if self.latents < 4:
            raise UserError(f"latents must be at least 4, got {self.latents}")
        if self.places < 1:
            raise UserError(f"places must be at least 1, got {self.places}")
        if not 0 <= self.balance <= 1:
            raise UserError(f"balance lies in [0, 1], got {self.balance}")
        samples = self.latents * self.model.samples_per_latent
        longest = max(self.loss.windows + (self.adversarial.windows if self.adversarial.weight else ()))
        if longest // 2 >= samples:
            raise UserError(
                f"a window of {longest} samples needs sounds of more than half of it, and {self.latents} latents "
                f"are {samples}; raise latents or take shorter windows"
            )


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
        latent_noise: deviation of noise added to the latents (bounded ones lie in (-1, 1)) before decoding, so that
            the decoder forgives small errors of the model that will generate them.
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

    @property
    def adversarial(self) -> AdversarialConfig:
        """The discriminator's settings."""
        part = self.video or self.audio
        assert part is not None
        return part.adversarial
