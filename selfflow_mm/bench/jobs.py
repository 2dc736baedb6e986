"""The three things that are timed, each as a call without arguments, and what proves that two forms give the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..flow.path import interpolate
from ..flow.solvers import euler, schedule
from ..models.imagenet import ImageNetModel
from ..randomness import Randomness
from ..tokens import TokenStream
from ..training import ema
from ..training.recompute import recompute_blocks
from .model import MODALITY, Subject, objective

#: A network, or a form of it: called as a network, and with its ``config`` and ``projector`` where it is trained.
Form = Any


class Action(Protocol):
    """One job of one form."""

    def __call__(self) -> Tensor:
        """Do it once."""
        ...

    def result(self) -> Tensor:
        """Do it so that nothing is changed; what another form must agree with."""
        ...


class Forward:
    """A forward pass on tokens of two noise levels, without gradient."""

    def __init__(self, subject: Subject, form: Form, dtype: torch.dtype) -> None:
        self.subject, self.form, self.dtype = subject, form, dtype
        self.levels = subject.dual_levels()
        clean = subject.stream.values
        noise = Randomness(0).normal("bench/noise", 0, subject.batch.ids, clean[0].numel()).view_as(clean)
        self.values = interpolate(clean, noise, self.levels[MODALITY].per_token())

    @torch.no_grad()
    def __call__(self) -> Tensor:
        s = self.subject
        with _autocast(s.device, self.dtype):
            out = self.form({MODALITY: s.stream.with_values(self.values)}, self.levels, s.batch.text)
        return out.velocity[MODALITY]

    result = __call__


class Sample:
    """``steps`` Euler steps from noise to latents, one level for all tokens; no guidance, no decoding."""

    def __init__(self, subject: Subject, form: Form, dtype: torch.dtype, steps: int) -> None:
        self.subject, self.form, self.dtype, self.steps = subject, form, dtype, steps
        clean = subject.stream.values
        self.noise = Randomness(0).normal("bench/sample", 0, subject.batch.ids, clean[0].numel()).view_as(clean)

    @torch.inference_mode()
    def __call__(self) -> Tensor:
        s = self.subject

        def velocity(x: dict[str, Tensor], now: dict[str, float]) -> dict[str, Tensor]:
            streams: dict[str, TokenStream] = {MODALITY: s.stream.with_values(x[MODALITY])}
            out = self.form(streams, s.uniform_levels(now[MODALITY]), s.batch.text).velocity
            return {MODALITY: out[MODALITY].float()}

        with _autocast(s.device, self.dtype):
            return euler(velocity, {MODALITY: self.noise}, {MODALITY: schedule(self.steps)})[MODALITY]

    result = __call__


class Training:
    """A training step: student and teacher (stopped after block k), backward, clipping, AdamW, EMA.

    One set of weights, gradients and optimizer moments serves all forms: a form is only how levels are told.

    Args:
        subject: its model is trained on its batch, over and over.
        forms: name -> what is called in the model's place; gets a network, gives a form of it.
        dtype: of matrix products.
        network: what is wrapped in the model's and the teacher's place (``torch.compile``).
        recompute: keep each block's input only, see ``training.recompute``.
    """

    def __init__(
        self,
        subject: Subject,
        forms: dict[str, Callable[[Any], Form]],
        dtype: torch.dtype,
        network: Callable[[Any], Any] = lambda model: model,
        *,
        recompute: bool = False,
    ) -> None:
        self.subject, self.dtype = subject, dtype
        self.teacher = ema.copy_for_ema(subject.model)
        if recompute:
            recompute_blocks(subject.model.net if isinstance(subject.model, ImageNetModel) else subject.model)
        student, teacher = network(subject.model), network(self.teacher)
        self.forms = {name: (wrap(student), wrap(teacher)) for name, wrap in forms.items()}
        self.parameters = [p for p in subject.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=0.0, fused=_has_fused(subject.device))
        self.objective, self.random = objective(), Randomness(0)
        self.steps = 0
        self._make_moments()

    def gradient(self, form: str) -> tuple[Tensor, Tensor]:
        """Loss and gradient norm; the gradients stay in the parameters, clipped to norm 1."""
        student, teacher = self.forms[form]
        with _autocast(self.subject.device, self.dtype):
            loss, _ = self.objective.loss(student, teacher, self.subject.batch, self.random, self.steps)
        loss.backward()
        return loss.detach(), torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)

    def forget(self) -> None:
        """Drop the gradients, so that they take no memory while the next activations do."""
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, form: str) -> Tensor:
        """One whole step; returns its loss."""
        loss, _ = self.gradient(form)
        self.optimizer.step()
        self.forget()
        ema.update(self.teacher, self.subject.model, ema.PAPER_DECAY)
        self.steps += 1
        return loss

    def _make_moments(self) -> None:
        """AdamW's moments, which it would make in its first step: peak memory is that of any later one."""
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()  # no gradient, no decay: the weights stay
        self.forget()


@dataclass
class Step:
    """A training step of one form."""

    training: Training
    form: str

    def __call__(self) -> Tensor:
        return self.training.step(self.form)

    def result(self) -> Tensor:
        """``(2,)`` loss and gradient norm on the weights as they are, which stay."""
        found = torch.stack([value.double() for value in self.training.gradient(self.form)])
        self.training.forget()
        return found


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def _has_fused(device: torch.device) -> bool:
    """AdamW as one kernel per parameter: no temporaries as large as the model."""
    return device.type in ("cpu", "cuda", "mps")
