"""Sampling the ImageNet transformer: class labels and image numbers to latents.

Every random number belongs to an image's number: its label, its first noise, the noise of each of its steps. So an
image does not depend on the batch or the process that makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor

from ..errors import UserError
from ..flow.guidance import guide
from ..flow.solvers import SOLVERS, schedule
from ..flow.stochastic import SDEConfig, euler_maruyama
from ..models.imagenet import SelfFlowPerTokenDiT
from ..randomness import Randomness
from ..tokens import NoiseLevels


@dataclass(frozen=True)
class ImageNetSampling:
    """How latents are drawn; the defaults are the paper's.

    Attributes:
        method: ``sde``, Euler-Maruyama (``flow/stochastic.py``), or ``ode``.
        steps: of the method. The SDE and Euler call the model once a step, Heun twice.
        solver: of the ODE.
        shift: timestep shift of the ODE's grid; 1 is even.
        guidance: classifier-free guidance of the velocity; 1 is none.
        interval: guidance acts where ``low <= t <= high``, t = 1 noise. The reference's bounds mean the same; its
            sampling script has 0 and 0.7.
        precision: of the matrices; the integration is in float32.
    """

    method: Literal["sde", "ode"] = "sde"
    steps: int = 250
    solver: Literal["euler", "heun"] = "euler"
    shift: float = 1.0
    guidance: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.method not in ("sde", "ode"):
            raise UserError(f"the method is sde or ode, got '{self.method}'")
        if self.method == "sde":
            SDEConfig(self.steps)  # says what is wrong with the steps
            if self.shift != 1 or self.solver != "euler":
                raise UserError("solver and shift are the ODE's; leave them out or take the method ode")
        elif self.steps < 1 or self.shift <= 0 or self.solver not in SOLVERS:
            raise UserError(
                f"the ODE needs steps >= 1, a positive shift and a solver of {', '.join(SOLVERS)}; got {self.steps}, "
                f"{self.shift} and {self.solver}"
            )
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise UserError(f"the guidance interval needs 0 <= low < high <= 1, got {low} and {high}")
        if not self.guidance >= 0:
            raise UserError(f"guidance is at least 0 (1 is none), got {self.guidance}")


class ImageNetSampler:
    """Draws latents.

    Args:
        net: the transformer; its last class is the one that stands for none (1000 in the released weights).
        sampling: the settings.
        seed: of all images.
        compile: compile the network for the batch sizes met.
    """

    def __init__(
        self, net: SelfFlowPerTokenDiT, sampling: ImageNetSampling, seed: int = 0, *, compile: bool = False
    ) -> None:
        self.net, self.sampling, self.random = net.eval(), sampling, Randomness(seed)
        self._call: Any = torch.compile(net, dynamic=False) if compile else net

    @property
    def device(self) -> torch.device:
        return self.net.pos_embed.device

    def labels(self, classes: str, images: Tensor) -> Tensor:
        """The class of each image, ``(B,)`` int64; see :func:`parse_classes`."""
        real = self.net.config.num_classes - 1
        chosen = parse_classes(classes, self.net.config.num_classes)
        if isinstance(chosen, list):
            return torch.tensor(chosen, device=images.device)[images % len(chosen)]
        if chosen == "random":
            return self.random.bits("imagenet/label", 0, images, 1)[:, 0] * real >> 32
        return images % real

    @torch.inference_mode()
    def __call__(self, labels: Tensor, images: Tensor, on_step: Callable[[], object] = lambda: None) -> Tensor:
        """Draw one latent per image number.

        Args:
            labels: ``(B,)`` int64 classes.
            images: ``(B,)`` int64 image numbers, on the network's device.
            on_step: called after each model call.

        Returns:
            ``(B, C, H, W)`` float32 latents.
        """
        config, settings = self.net.config, self.sampling
        shape = (len(images), config.tokens, config.token_channels)
        null = torch.full_like(labels, config.num_classes - 1)
        group = torch.zeros(shape[:2], dtype=torch.int64, device=images.device)

        def noise(name: str, step: int) -> Tensor:
            return self.random.normal(f"imagenet/{name}", step, images, shape[1] * shape[2]).view(shape)

        def network(x: Tensor, t: float, labels: Tensor, group: Tensor) -> Tensor:
            level = torch.full((len(x), 1), t, dtype=torch.float32, device=x.device)
            with torch.autocast(x.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                return self._call(x, NoiseLevels(level, group), labels)

        def velocity(x: Tensor, t: float) -> Tensor:
            low, high = settings.interval
            if settings.guidance != 1 and low <= t <= high:
                both = network(torch.cat([x, x]), t, torch.cat([labels, null]), torch.cat([group, group]))
                conditional, unconditional = both.chunk(2)
                v = guide(conditional, unconditional, settings.guidance)
            else:
                v = network(x, t, labels, group)
            on_step()
            return v

        start = noise("start", 0)
        if settings.method == "sde":
            tokens = euler_maruyama(velocity, start, lambda i: noise("step", i), SDEConfig(settings.steps))
        else:
            times = {"image": schedule(settings.steps, settings.shift)}
            solve = SOLVERS[settings.solver]
            moved = solve(lambda x, now: {"image": velocity(x["image"], now["image"])}, {"image": start}, times)
            tokens = moved["image"]
        if not bool(torch.isfinite(tokens).all()):
            raise UserError(
                "the network gives numbers that are not finite: its weights are broken, or the guidance too strong"
            )
        p = config.patch_size
        return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=config.grid, p=p, q=p)

    @property
    def calls(self) -> int:
        """Model calls, and reports of ``on_step``, per batch."""
        return self.sampling.steps * (2 if self.sampling.solver == "heun" else 1)


def parse_classes(text: str, num_classes: int) -> str | list[int]:
    """``balanced`` (image i has class i modulo their number), ``random``, or a list such as ``207,360-365``.

    Raises:
        UserError: something else, or a class that the label table does not have.
    """
    if text in ("balanced", "random"):
        if num_classes < 2:
            raise UserError(f"with {num_classes} class there is none besides the one that stands for no class; list it")
        return text
    classes: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"classes are balanced, random, or a list such as 207,360-365; got '{text}'")
        classes += range(int(first), int(last or first) + 1)
    if not classes or max(classes) >= num_classes:
        raise UserError(f"classes '{text}': this model's labels go from 0 to {num_classes - 1}, and ranges upwards")
    return classes
