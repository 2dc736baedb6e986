"""What is to be measured, and the shapes it is measured on."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from ..errors import UserError
from ..models.presets import PRESETS

#: The ImageNet transformer's only preset; all others are joint transformers.
IMAGENET = "xl/2"
JOBS = ("forward", "train", "sample")
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Plan:
    """Settings of ``bench model``.

    Attributes:
        preset: ``xl/2``, or a joint transformer's.
        device: ``auto`` (CUDA, else MPS, else CPU), or a torch device.
        tokens: media tokens per sample.
        text_tokens: text tokens per sample; the ImageNet transformer has none.
        batch: samples.
        precision: of matrix products; weights are float32.
        compile: ``torch.compile`` what is measured, in both forms.
        recompute: keep each block's input only and compute the rest again in the backward pass.
        steps: solver steps of a sampling run.
        rounds: every variant is timed so many times, in turns.
        what: which of :data:`JOBS`.
        reference: a checkout of black-forest-labs/Self-Flow; its network is timed beside ours (``xl/2`` only).
    """

    preset: str = IMAGENET
    device: str = "auto"
    tokens: int = 256
    text_tokens: int = 64
    batch: int = 2
    precision: Precision = "auto"
    compile: bool = False
    recompute: bool = False
    steps: int = 10
    rounds: int = 5
    what: tuple[str, ...] = JOBS
    reference: str = ""

    def __post_init__(self) -> None:
        presets = (IMAGENET, *PRESETS)
        if self.preset not in presets:
            raise UserError(f"there is no preset '{self.preset}'; {_nearest(self.preset.lower(), presets)}")
        for job in self.what:
            if job not in JOBS:
                raise UserError(f"bench model cannot measure '{job}'; {_nearest(job, JOBS)}")
        if not self.what:
            raise UserError(f"there is nothing to measure; name some of {', '.join(JOBS)}")
        if min(self.tokens, self.text_tokens, self.batch, self.steps, self.rounds) < 1:
            raise UserError("tokens, text-tokens, batch, steps and rounds are at least 1")
        if self.preset == IMAGENET and round(self.tokens**0.5) ** 2 != self.tokens:
            near = max(1, round(self.tokens**0.5)) ** 2
            raise UserError(f"{IMAGENET} has a square of tokens, {self.tokens} is none; the nearest is {near}")
        if self.reference and self.preset != IMAGENET:
            raise UserError(f"--reference is the authors' ImageNet network; it is measured with --preset {IMAGENET}")

    @property
    def imagenet(self) -> bool:
        return self.preset == IMAGENET


def _nearest(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    return f"the nearest is '{near[0]}'" if near else f"there are {', '.join(known)}"
