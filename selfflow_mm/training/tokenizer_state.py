"""What a tokenizer's training holds (autoencoder, average, optimizer, discriminator): built, saved, loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from selfflow_tokenizers.audio_autoencoder import AudioAutoencoder
from selfflow_tokenizers.video_autoencoder import VideoAutoencoder

from ..errors import UserError
from .checkpoint import load_checkpoint, load_optimizer_tensors, optimizer_tensors, save_checkpoint
from .discriminators import PatchDiscriminator, SpectrumDiscriminator
from .tokenizer_adversary import Adversary
from .tokenizer_config import TokenizerTrainConfig


@dataclass
class State:
    """What a checkpoint holds.

    Attributes:
        perceptual: the perceptual term the run began with, as ``auto`` may find other weights later.
    """

    model: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    adversary: Adversary | None = None
    perceptual: str = "none"
    step: int = 0

    def save(self, folder: Path, keep: int) -> None:
        tensors = {
            "model": self.model.state_dict(),
            "ema": self.average.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.model),
        }
        if self.adversary is not None:
            tensors |= self.adversary.tensors()
        save_checkpoint(folder, self.step, tensors, {"perceptual": self.perceptual}, keep)

    def load(self, path: Path) -> None:
        self.step, tensors, _ = load_checkpoint(path)
        try:
            self.model.load_state_dict(tensors["model"])
            self.average.load_state_dict(tensors["ema"])
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(f"{path} is of a tokenizer of another shape: {reason}") from None
        load_optimizer_tensors(self.optimizer, self.model, tensors["optimizer"])
        if self.adversary is not None:
            self.adversary.load(tensors)


def build_autoencoder(config: TokenizerTrainConfig) -> VideoAutoencoder | AudioAutoencoder:
    """A freshly initialised autoencoder; the initialisation depends on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        if config.video is not None:
            # Latents are made isometric to what the trained decoder makes of them, at the end.
            return VideoAutoencoder(replace(config.video.model.sizes(), isometric=False))
        assert config.audio is not None
        return AudioAutoencoder(config.audio.model.sizes())


def build_discriminator(config: TokenizerTrainConfig) -> nn.Module:
    """A new discriminator of the medium, whether or not it has a weight."""
    if config.video is not None:
        a = config.video.adversarial
        return PatchDiscriminator(3 * a.span, a.width, a.layers)
    assert config.audio is not None
    b = config.audio.adversarial
    return SpectrumDiscriminator(config.audio.model.channels, b.windows, b.width)


def build_adversary(config: TokenizerTrainConfig, device: torch.device, bfloat16: bool) -> Adversary | None:
    """The discriminator, where one is asked for; its initialisation depends on the seed only."""
    if not config.adversarial.weight:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        network = build_discriminator(config)
    return Adversary(config.adversarial, network.to(device), config.run.steps, bfloat16)


def build_optimizer(model: nn.Module, config: TokenizerTrainConfig) -> torch.optim.AdamW:
    """AdamW; gains and offsets are not decayed."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
    o = config.optimizer
    return torch.optim.AdamW(groups, o.lr, o.betas, weight_decay=o.weight_decay)


def count_parts(model: nn.Module) -> dict[str, int]:
    """Exact numbers of parameters by top-level part."""
    return {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
