"""The adversarial term of a tokenizer's training: hinge losses, feature matching, the adaptive weight, a late start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UserError
from .checkpoint import load_optimizer_tensors, optimizer_tensors

Features = list[list[Tensor]]
#: Bounds and guards of eq. 7, as the authors' code has them.
_MOST, _TINY = 1e4, 1e-4


@dataclass(frozen=True)
class AdversarialConfig:
    """What pictures and sounds share.

    Attributes:
        weight: of the term; 0 trains without a discriminator. With ``adaptive`` it is the size of the term's gradient
            relative to that of all other terms, else a plain factor.
        adaptive: balance the two gradients at the decoder's last layer (Esser et al. 2021, eq. 7).
        start: fraction of the run after which the discriminator begins: reconstructions should be good by then.
        ramp: fraction of the run over which ``weight`` then grows from 0, while the discriminator learns its task.
        feature_matching: weight of the distance between the discriminator's features, relative to the hinge loss.
        freeze_encoder: train the decoder alone from ``start`` on, so that latents stay as they are.
        lr, betas: of the discriminator's AdamW; the rate follows the schedule of ``optimizer``.
    """

    weight: float = 0.0
    adaptive: bool = True
    start: float = 0.5
    ramp: float = 0.02
    feature_matching: float = 0.0
    freeze_encoder: bool = False
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.9)

    def __post_init__(self) -> None:
        if self.weight < 0 or self.feature_matching < 0:
            raise UserError("weight and feature_matching cannot be negative")
        if not 0 <= self.start < 1 or not 0 <= self.ramp <= 1:
            raise UserError(f"start lies in [0, 1) and ramp in [0, 1], got {self.start} and {self.ramp}")
        if self.lr <= 0:
            raise UserError(f"lr must be positive, got {self.lr}")
        if self.freeze_encoder and not self.weight:
            raise UserError("freeze_encoder acts when the adversarial term starts; give it a weight")


@dataclass(frozen=True)
class PatchConfig(AdversarialConfig):
    """The discriminator of pictures, see :class:`~.discriminators.PatchDiscriminator`.

    Attributes:
        width, layers: its size.
        frames: frames of a clip, drawn anew each step, that it judges; 0 takes all.
        span: frames seen at once: each with those before it, as further channels. 1 judges stills; more hear flicker.
    """

    width: int = 64
    layers: int = 3
    frames: int = 4
    span: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1 or self.layers < 1 or self.frames < 0 or self.span < 1:
            raise UserError("width, layers and span are at least 1 and frames is not negative")


@dataclass(frozen=True)
class SpectrumConfig(AdversarialConfig):
    """The discriminator of sounds, see :class:`~.discriminators.SpectrumDiscriminator`.

    Attributes:
        width: its channels.
        windows: lengths of its short-time Fourier transforms in samples.
    """

    feature_matching: float = 2.0
    width: int = 32
    windows: tuple[int, ...] = (2048, 1024, 512, 256, 128)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1 or not self.windows or any(w < 32 or w % 4 for w in self.windows):
            raise UserError(f"width is at least 1 and windows are multiples of 4 from 32 up, got {list(self.windows)}")


def hinge_discriminator(real: Features, fake: Features) -> Tensor:
    """Mean over scales of ``relu(1 - D(x)) + relu(1 + D(x'))`` (Lim and Ye 2017)."""
    pairs = zip(real, fake, strict=True)
    return torch.stack([(1 - r[-1]).relu().mean() + (1 + f[-1]).relu().mean() for r, f in pairs]).mean()


def hinge_generator(fake: Features) -> Tensor:
    """Mean over scales of ``-D(x')``."""
    return torch.stack([-f[-1].mean() for f in fake]).mean()


def match_features(real: Features, fake: Features) -> Tensor:
    """Mean over scales and layers of ``|D_l(x) - D_l(x')|``, relative to the mean of ``|D_l(x)|`` (EnCodec)."""
    ratios = [
        (f - r).abs().mean() / r.abs().mean().clamp_min(1e-6)
        for seen_real, seen_fake in zip(real, fake, strict=True)
        for r, f in zip(seen_real[:-1], seen_fake[:-1], strict=True)
    ]
    return torch.stack(ratios).mean()


def adaptive_weight(output: Tensor, last: Tensor, rest: Tensor, adversarial: Tensor) -> Tensor:
    """``|grad_last L_rest| / (|grad_last L_adversarial| + tiny)``, at most 1e4 (Esser et al. 2021, eq. 7).

    Args:
        output: the reconstruction, with its graph.
        last: weight of the decoder's last layer.
        rest, adversarial: gradients of the two losses by ``output``.
    """
    size, against = (
        torch.linalg.vector_norm(torch.autograd.grad(output, last, gradient, retain_graph=True)[0])
        for gradient in (rest, adversarial)
    )
    return (size / (against + _TINY)).clamp_max(_MOST).detach()


class Adversary:
    """A discriminator with its optimizer and its part in the run.

    Args:
        config: its settings.
        network: gives :data:`Features` of media.
        steps: of the whole run.
        bfloat16: compute in it.
    """

    def __init__(self, config: AdversarialConfig, network: nn.Module, steps: int, bfloat16: bool = False) -> None:
        self.config, self.network, self.bfloat16 = config, network, bfloat16
        self.first = round(config.start * steps)
        self.ramp = max(1, round(config.ramp * steps))
        self.optimizer = torch.optim.AdamW(network.parameters(), config.lr, config.betas, weight_decay=0.0)

    def weight_at(self, step: int) -> float:
        """The term's weight in step ``step`` (from 0); 0 before it begins."""
        return self.config.weight * min(1.0, max(0, step + 1 - self.first) / self.ramp)

    def judge(self, output: Tensor, target: Tensor) -> Tensor:
        """What the decoder is told: hinge loss and feature matching; no gradient reaches the discriminator."""
        self.network.requires_grad_(False)
        fake = self._see(output)
        loss = hinge_generator(fake)
        if self.config.feature_matching:
            with torch.no_grad():
                real = self._see(target)
            loss = loss + self.config.feature_matching * match_features(real, fake)
        self.network.requires_grad_(True)
        return loss

    def backward(
        self,
        terms: Mapping[str, Tensor],
        apart: Tensor | None,
        adversarial: Tensor,
        weight: float,
        output: Tensor,
        last: Tensor,
    ) -> tuple[Tensor, dict[str, float]]:
        """Gradients of the autoencoder by all its terms; the adversarial one as weighted, and its factor.

        Every loss is gone through once, down to ``output``, where the two gradients are weighed and added up.

        Args:
            terms: those that ``output`` is compared by.
            apart: one more term that does not depend on ``output``.
            adversarial: of :meth:`judge`.
            weight: of :meth:`weight_at`.
            output, last: see :func:`adaptive_weight`.
        """
        rest = torch.autograd.grad(torch.stack(list(terms.values())).sum(), output)[0]
        against = torch.autograd.grad(adversarial, output)[0]
        balance = adaptive_weight(output, last, rest, against) if self.config.adaptive else torch.ones_like(adversarial)
        factor = weight * balance
        roots, gradients = [output], [rest + factor * against]
        if apart is not None:
            roots, gradients = [*roots, apart], [*gradients, torch.ones_like(apart)]
        torch.autograd.backward(roots, gradients)
        return (factor * adversarial).detach(), {"adversarial_factor": float(factor)}

    def learn(self, output: Tensor, target: Tensor, clip: float) -> dict[str, float]:
        """Gradients of the discriminator's own loss; :meth:`step` takes the step."""
        real, fake = self._see(target), self._see(output.detach())
        loss = hinge_discriminator(real, fake)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        logits = {"real": _mean_logit(real), "fake": _mean_logit(fake)}
        return {"discriminator": float(loss.detach()), "discriminator_grad_norm": float(norm), **logits}

    def step(self, scale: float) -> None:
        """One step of its optimizer, at ``scale`` times its rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * scale
        self.optimizer.step()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """For the checkpoint."""
        return {
            "discriminator": self.network.state_dict(),
            "discriminator_optimizer": optimizer_tensors(self.optimizer, self.network),
        }

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put back what :meth:`tensors` gave; a checkpoint of a run without a discriminator leaves a new one."""
        if "discriminator" not in tensors:
            return
        try:
            self.network.load_state_dict(tensors["discriminator"])
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(f"the checkpoint's discriminator has another shape: {reason}") from None
        load_optimizer_tensors(self.optimizer, self.network, tensors["discriminator_optimizer"])

    def _see(self, media: Tensor) -> Features:
        with torch.autocast(media.device.type, torch.bfloat16, enabled=self.bfloat16):
            return [[x.float() for x in scale] for scale in self.network(media)]


def _mean_logit(features: Features) -> float:
    return float(torch.stack([scale[-1].detach().mean() for scale in features]).mean())
