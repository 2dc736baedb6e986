"""How samples are drawn: solver, steps, guidance, and which modality runs ahead."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from ..errors import UserError


@dataclass(frozen=True)
class SamplingConfig:
    """Settings of the sampler.

    Attributes:
        steps: of the solver.
        solver: ``euler`` (one model call a step) or ``heun`` (two, second order).
        guidance: classifier-free guidance per modality; 1 is none. Those not named take ``default_guidance``.
        shift: timestep shift per modality; those not named take the tokenizer's ``sample_shift``.
        spans: part of the run during which a modality is denoised, (0, 1) unless named; lets one run ahead.
        piece: seconds of video that are made at a time, in a run of ``steps`` each, with all before them given; then
            the other modalities in one more run, with the whole video given. 0 makes everything in one run. For models
            that were trained to ``extend-v``.
    """

    steps: int = 50
    solver: Literal["euler", "heun"] = "euler"
    default_guidance: float = 1.0
    guidance: dict[str, float] = field(default_factory=dict)
    shift: dict[str, float] = field(default_factory=dict)
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    piece: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps is at least 1, got {self.steps}")
        for name, a in self.shift.items():
            if a <= 0:
                raise UserError(f"shift.{name} must be positive, got {a}")
        if not 0 <= self.piece < math.inf:
            raise UserError(f"piece counts seconds, 0 for no pieces; got {self.piece}")
        for name, (begin, end) in self.spans.items():
            if not 0 <= begin < end <= 1:
                raise UserError(f"spans.{name} needs 0 <= begin < end <= 1, got {begin} and {end}")

    def guidance_of(self, modality: str) -> float:
        return self.guidance.get(modality, self.default_guidance)
