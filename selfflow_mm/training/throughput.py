"""How fast a run is: samples per second, and the model's arithmetic per second (TFLOP/s)."""

from __future__ import annotations

import time

from ..flow.objectives import Batch, Objective
from ..flow.schedules import diffusion_forcing, dual_timesteps, full_masking
from ..models.flops import joint_forward_flops, training_step_flops
from ..models.joint import JointConfig
from ..tokens import TokenStream


class Throughput:
    """Counts work and the time it took, from one log line to the next.

    FLOPs are the model's by formula (``models.flops``): a training step of the student, the teacher's pass, no
    recomputation, no tokenizer, no encoder, no optimizer. Divided by the device's matrix rate they are its MFU.

    Args:
        config: of the model.
        objective: what a step does with it.
        lora: its blocks are frozen (:mod:`..models.lora`).
        recompute: count the blocks' second forward pass too: what the device does, for plans; a log leaves it out.
    """

    def __init__(
        self, config: JointConfig, objective: Objective, *, lora: bool = False, recompute: bool = False
    ) -> None:
        self.config, self.objective, self.lora, self.recompute = config, objective, lora, recompute
        self._flops: dict[tuple, int] = {}
        self._samples, self._work, self._seconds = 0, 0, 0.0
        self._started = time.perf_counter()

    def start(self) -> None:
        """A step begins; what came before it (samples drawn, checkpoints written) does not count."""
        self._started = time.perf_counter()

    def stop(self, batch: Batch, step: int) -> None:
        """The step is done, on the device too."""
        self._seconds += time.perf_counter() - self._started
        self._samples += len(batch.ids)
        self._work += len(batch.ids) * self.flops(batch, step)

    def take(self) -> dict[str, float]:
        """``samples_per_second`` and ``tflops`` since the last call."""
        seconds = max(self._seconds, 1e-9)
        rates = {"samples_per_second": self._samples / seconds, "tflops": self._work / seconds / 1e12}
        self._samples, self._work, self._seconds = 0, 0, 0.0
        return rates

    def flops(self, batch: Batch, step: int) -> int:
        """Of one sample of this batch in training step ``step``."""
        tokens = {m: s.values.shape[1] for m, s in batch.streams.items()}
        text = batch.text.values.shape[1] if isinstance(batch.text, TokenStream) else 0
        given = len(batch.conditions.given) > 0
        aligns = self.objective.aligns(step)
        key = (*tokens.items(), text, given, aligns)
        if key not in self._flops:
            self._flops[key] = self._count(tokens, text, given, aligns)
        return self._flops[key]

    def _count(self, tokens: dict[str, int], text: int, given: bool, aligns: bool) -> int:
        method, config = self.objective.method, self.config
        levels = 2 if method.schedule in (dual_timesteps, full_masking) else 1
        student = joint_forward_flops(
            config,
            tokens,
            text,
            levels + given,
            per_token=method.schedule is diffusion_forcing,
            projector=aligns and method.projects,
        )
        teacher = None
        if aligns and method.target == "teacher":
            k = self.objective.config.layers(config.depth)[1]
            teacher = joint_forward_flops(config, tokens, text, 1 + given, blocks=k)
        return training_step_flops(student, teacher, lora=self.lora, recompute=self.recompute).total
