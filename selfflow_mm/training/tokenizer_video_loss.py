"""What reconstructed pictures are compared by. Terms are means, so sizes of clips do not matter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from .lpips import SMALLEST, Lpips, load_lpips, lpips_files, lpips_folder, where_to_put

PerceptualKind = Literal["lpips", "gradients", "none"]


@dataclass(frozen=True)
class VideoLossConfig:
    """Weights of the terms of :func:`video_loss`.

    Attributes:
        l1: mean absolute error.
        l2: mean squared error.
        gradient: absolute error of differences between neighbouring pixels, at full and at half size.
        motion: absolute error of differences between neighbouring frames: what jerks between latent frames.
        pyramid: absolute error of the picture at half, quarter, ... size (``scales`` sizes with the full one).
        moving: a pixel that moves counts ``1 + moving`` times; objects cover few pixels and carry the meaning.
        threshold: colour difference (of the range 2) from the pixel's median over time that counts as moving.
        perceptual: ``lpips``, see :mod:`.lpips`; ``gradients``, differences between neighbours at ``scales`` sizes;
            ``auto``, LPIPS where its weights are found and gradients elsewhere; or ``none``.
        perceptual_weight: of that term.
        perceptual_frames: frames of a clip, drawn anew each step, that it looks at; 0 takes all.
        lpips: folder of LPIPS's weights; empty: ``$SELFFLOW_WEIGHTS/lpips``, else ``~/.cache/selfflow/lpips``.
        scales: sizes that ``pyramid`` and ``gradients`` look at, each half the one before.
        kl: divergence of gaussian latents from the standard normal, nats per latent value.
    """

    l1: float = 1.0
    l2: float = 4.0
    gradient: float = 0.5
    motion: float = 0.0
    pyramid: float = 0.0
    moving: float = 6.0
    threshold: float = 0.2
    perceptual: Literal["auto", "lpips", "gradients", "none"] = "none"
    perceptual_weight: float = 1.0
    perceptual_frames: int = 4
    lpips: str = ""
    scales: int = 4
    kl: float = 1e-4

    def __post_init__(self) -> None:
        terms = (self.l1, self.l2, self.gradient, self.motion, self.pyramid, self.moving, self.perceptual_weight)
        if min(*terms, self.kl) < 0:
            raise UserError("weights of loss terms cannot be negative")
        if not 1 <= self.scales <= 8 or self.perceptual_frames < 0:
            raise UserError("scales lies in 1 to 8 and perceptual_frames is not negative")


def moving_pixels(frames: Tensor, threshold: float) -> Tensor:
    """``(B, T, H, W, 3)`` -> bool ``(B, T, H, W, 1)``: pixels that differ from their median over time."""
    return (frames - frames.median(dim=1, keepdim=True).values).abs().amax(-1, keepdim=True) > threshold


def video_loss(output: Tensor, target: Tensor, config: VideoLossConfig) -> dict[str, Tensor]:
    """Terms, already weighted, of two clips ``(B, T, H, W, 3)`` in [-1, 1]; the perceptual one is apart."""
    weight = 1 + config.moving * moving_pixels(target, config.threshold).float()
    weight = weight / weight.mean()
    error = output - target
    terms = {
        "l1": config.l1 * (error.abs() * weight).mean(),
        "l2": config.l2 * (error.square() * weight).mean(),
        "gradient": config.gradient * gradient_error(error, weight, 2),
    }
    if config.motion and error.shape[1] > 1:
        terms["motion"] = config.motion * (error.diff(dim=1).abs() * weight[:, 1:]).mean()
    if config.pyramid:
        terms["pyramid"] = config.pyramid * pyramid_error(error, weight, config.scales)
    return terms


def gradient_error(error: Tensor, weight: Tensor, scales: int) -> Tensor:
    """Mean absolute difference of neighbours of ``error (B, T, H, W, 3)``, down and right, over ``scales`` sizes.

    ``weight (B, T, H, W, 1)`` is the pixels'. Sizes of which less than two pixels are left in a side are left out.
    """
    planes, weights = (x.flatten(0, 1).permute(0, 3, 1, 2) for x in (error, weight))
    total, sizes = planes.new_zeros(()), 0
    while sizes < scales and min(planes.shape[2:]) >= 2:
        if sizes:
            planes, weights = F.avg_pool2d(planes, 2), F.avg_pool2d(weights, 2)
            if min(planes.shape[2:]) < 2:
                break
        down = planes[:, :, 1:] - planes[:, :, :-1]
        right = planes[..., 1:] - planes[..., :-1]
        total = total + (down.abs() * weights[:, :, 1:]).mean() + (right.abs() * weights[..., 1:]).mean()
        sizes += 1
    return total / (2 * max(1, sizes))


def pyramid_error(error: Tensor, weight: Tensor, scales: int) -> Tensor:
    """Mean absolute ``error (B, T, H, W, 3)`` after averaging 2 x 2, 4 x 4, ... pixels (``scales - 1`` sizes)."""
    planes, weights = (x.flatten(0, 1).permute(0, 3, 1, 2) for x in (error, weight))
    found: list[Tensor] = []
    while len(found) < scales - 1 and min(planes.shape[2:]) >= 2:
        planes, weights = F.avg_pool2d(planes, 2), F.avg_pool2d(weights, 2)
        found.append((planes.abs() * weights).mean())
    return torch.stack(found).mean() if found else planes.new_zeros(())


@dataclass(frozen=True)
class Choice:
    """Which perceptual term a run has, and why.

    Attributes:
        kind: the term.
        folder: where LPIPS's weights are, or were looked for.
        text: one line for the log and the report.
    """

    kind: PerceptualKind
    folder: Path
    text: str

    def __str__(self) -> str:
        return self.text


class Perceptual:
    """The perceptual term, with its network where it has one.

    Args:
        config: the settings.
        began_with: what the run that is being resumed uses; a run does not change its loss half-way.

    Raises:
        UserError: LPIPS is asked for, or was used so far, and its weights are not there.
    """

    def __init__(self, config: VideoLossConfig, began_with: str | None = None) -> None:
        self.config, self.choice = config, self.choose(config, began_with)
        self.kind = self.choice.kind
        self.network: Lpips | None = load_lpips(self.choice.folder) if self.kind == "lpips" else None

    @staticmethod
    def choose(config: VideoLossConfig, began_with: str | None = None) -> Choice:
        """Decide without reading weights."""
        folder = Path(config.lpips).expanduser() if config.lpips else lpips_folder()
        kind: PerceptualKind
        if config.perceptual != "auto":
            kind = config.perceptual
        elif began_with in ("lpips", "gradients"):
            kind = "lpips" if began_with == "lpips" else "gradients"
        else:
            kind = "lpips" if lpips_files(folder) else "gradients"
        if kind == "lpips":
            return Choice(kind, folder, f"LPIPS, weights of {folder}")
        if kind == "none":
            return Choice(kind, folder, "none")
        text = f"differences between neighbours at {config.scales} sizes"
        if config.perceptual == "auto":
            text += "; " + (where_to_put(folder) if lpips_files(folder) is None else "as the run began with it")
        return Choice(kind, folder, text)

    def check(self, smallest: int) -> None:
        """UserError where pictures have a side of fewer than ``smallest`` pixels."""
        if self.kind == "lpips" and smallest < SMALLEST:
            raise UserError(f"LPIPS needs pictures of {SMALLEST} pixels or more in each side, got {smallest}")

    def to(self, device: torch.device) -> Perceptual:
        if self.network is not None:
            self.network.to(device)
        return self

    def __call__(self, output: Tensor, target: Tensor, frames: Tensor) -> Tensor:
        """The weighted term of clips ``(B, T, H, W, 3)`` in [-1, 1]; LPIPS of ``frames (B, n)`` of them."""
        if self.network is None:
            even = torch.ones_like(target[..., :1])
            return self.config.perceptual_weight * gradient_error(output - target, even, self.config.scales)
        rows = torch.arange(len(output), device=output.device)[:, None]
        a, b = (x[rows, frames.to(x.device)].flatten(0, 1).permute(0, 3, 1, 2) for x in (output, target))
        return self.config.perceptual_weight * self.network(a, b).mean()
