"""Training objectives: Self-Flow as the paper states it, plain flow matching, dual timesteps alone.

``Objective.loss`` is the method on one screen. Equation and section numbers are those of "Self-Supervised
Flow Matching for Scalable Multi-Modal Synthesis" (arXiv 2603.06507). Time: 0 is data, 1 is noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..conditions import Conditions
from ..errors import UserError
from ..randomness import Randomness
from ..tokens import NoiseLevels, TokenStream
from .path import interpolate, velocity
from .timesteps import Timesteps

if TYPE_CHECKING:  # flow knows nothing of models; any callable of this shape will do
    from ..models.joint import JointTransformer

#: R of sec. 3.3; video has the least because neighbouring frames repeat each other.
PAPER_MASK_RATIO = {"image": 0.25, "video": 0.1, "audio": 0.5}


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised.

    Attributes:
        name: ``self-flow``; ``dual`` (dual timesteps without the representation loss); ``flow`` (one timestep per
            modality and sample).
        gamma: weight of L_rep (sec. 3.4: 0.8, fixed).
        student_layer, teacher_layer: l and k as fractions of the depth (sec. 3.4: 0.3 and 0.7).
        mask_ratio: R per modality, at most 0.5; those not named take the paper's.
        timesteps: p(t) per modality; those not named take the default of :class:`Timesteps`.
        pairing: are (t, s) of a clip's modalities drawn ``independent`` of each other (ours: one model then
            knows every mixture of levels, clean picture with noisy sound included, and samples them in any
            order) or ``shared``?
        weights: factor of each modality's loss; those not named count 1.
        given_level: given tokens are noised to a level drawn from U(0, given_level) per sample (sec. 4: 0.2 for
            first frames; 0 keeps them clean).
        caption_dropout: share of samples whose caption is dropped, for guidance. Student and teacher see the same.
        text_level: noise level told to text tokens: they are data, so ``zero``; or the sample's ``mean`` level. The
            paper does not publish it.
    """

    name: Literal["self-flow", "dual", "flow"] = "self-flow"
    gamma: float = 0.8
    student_layer: float = 0.3
    teacher_layer: float = 0.7
    mask_ratio: dict[str, float] = field(default_factory=dict)
    timesteps: dict[str, Timesteps] = field(default_factory=dict)
    pairing: Literal["independent", "shared"] = "independent"
    weights: dict[str, float] = field(default_factory=dict)
    given_level: float = 0.0
    caption_dropout: float = 0.1
    text_level: Literal["zero", "mean"] = "zero"

    def __post_init__(self) -> None:
        for name, ratio in self.mask_ratio.items():
            if not 0 <= ratio <= 0.5:
                raise UserError(f"mask_ratio.{name} lies in [0, 0.5] (sec. 3.3), got {ratio}")
        if not 0 < self.student_layer < self.teacher_layer <= 1:
            raise UserError(
                "student_layer and teacher_layer are fractions of the depth with 0 < student < teacher <= 1, "
                f"got {self.student_layer} and {self.teacher_layer}"
            )
        if self.gamma < 0:
            raise UserError(f"gamma cannot be negative, got {self.gamma}")
        if not 0 <= self.caption_dropout <= 1 or not 0 <= self.given_level < 1:
            raise UserError("caption_dropout lies in [0, 1] and given_level in [0, 1)")

    def layers(self, depth: int) -> tuple[int, int]:
        """(l, k): blocks counted from 1; at depth 28 they are 8 and 20, as published."""
        return max(1, round(self.student_layer * depth)), max(1, round(self.teacher_layer * depth))


@dataclass(frozen=True)
class Batch:
    """A training batch: clean ``streams`` (modality -> tokens), the ``conditions`` they are trained under, the
    captions'
    tokens with drops already applied, and each row's global sample id ``(B,)``."""

    streams: Mapping[str, TokenStream]
    conditions: Conditions
    text: TokenStream
    ids: Tensor

    def to(self, device: torch.device | str) -> Batch:
        streams = {m: s.to(device) for m, s in self.streams.items()}
        return replace(self, streams=streams, text=self.text.to(device), ids=self.ids.to(device))


@dataclass(frozen=True)
class Draw:
    """One step's randomness for one modality: t, s ``(B,)``, the mask M ``(B, N)`` and the noise x1 ``(B, N, C)``."""

    t: Tensor
    s: Tensor
    mask: Tensor
    noise: Tensor


class Objective:
    """A loss on batches.

    Args:
        config: see :class:`ObjectiveConfig`.
        train_shift: the tokenizers' timestep shifts, used where ``timesteps`` leaves the shift at 0.
    """

    def __init__(self, config: ObjectiveConfig, train_shift: Mapping[str, float] | None = None) -> None:
        self.config = config
        self.train_shift = dict(train_shift or {})

    @property
    def needs_teacher(self) -> bool:
        return self.config.name == "self-flow"

    def loss(
        self, model: JointTransformer, teacher: JointTransformer | None, batch: Batch, random: Randomness, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L = L_gen + gamma L_rep (eq. 7) and its parts, detached, by name."""
        draws = {m: self.draw(m, stream, batch.ids, random, step) for m, stream in batch.streams.items()}
        given = batch.conditions.masks(batch.streams)
        given_level = self.config.given_level * random.uniform("given_level", step, batch.ids)[:, 0]
        depth_l, depth_k = self.config.layers(model.config.depth)

        # Student: every token at its own level, t or s (eq. 4, 5); given tokens near data.
        levels = {m: NoiseLevels.dual(d.t, d.s, d.mask, batch.streams[m].sample) for m, d in draws.items()}
        levels = {m: lv.given(given[m], given_level) if m in given else lv for m, lv in levels.items()}
        noisy = {m: _noised(batch.streams[m], draws[m].noise, levels[m]) for m in draws}
        student = model(noisy, self._with_text(levels, batch), batch.text, features_after=depth_l)

        loss, report = self._generation(student.velocity, batch, draws, given)  # L_gen (eq. 2)
        if not self.needs_teacher:
            return loss, report
        assert teacher is not None, "self-flow needs its teacher"

        # Teacher: every token at min(t, s), the cleaner of the two; same data, noise and captions. No gradient.
        with torch.no_grad():
            cleaner = {m: torch.minimum(d.t, d.s) for m, d in draws.items()}
            levels = {m: NoiseLevels.uniform(t, batch.streams[m].sample) for m, t in cleaner.items()}
            levels = {m: lv.given(given[m], given_level) if m in given else lv for m, lv in levels.items()}
            clean = {m: _noised(batch.streams[m], draws[m].noise, levels[m]) for m in draws}
            target = teacher(clean, self._with_text(levels, batch), batch.text, depth_k, features_only=True)

        l_rep, cosines = self._representation(model, student.features, target.features, batch, given)  # L_rep (eq. 6)
        return loss + self.config.gamma * l_rep, {**report, **cosines, "l_rep": l_rep.detach()}

    def draw(self, name: str, stream: TokenStream, ids: Tensor, random: Randomness, step: int) -> Draw:
        """t, s ~ p(t) i.i.d. and unsorted, M = {i : u_i < R}, x1 ~ N(0, I) (sec. 3.3).

        Without dual timesteps s is t. With ``pairing: shared`` all modalities use the same uniform numbers.
        """
        batch, tokens, channels = stream.values.shape
        who = "" if self.config.pairing == "shared" else f"/{name}"
        p = self.timesteps(name)
        t = p.quantile(random.uniform(f"t{who}", step, ids)[:, 0])
        if self.config.name == "flow":
            s, mask = t, torch.zeros_like(stream.valid)
        else:
            s = p.quantile(random.uniform(f"s{who}", step, ids)[:, 0])
            mask = random.uniform(f"mask/{name}", step, ids, tokens) < self.mask_ratio(name)
        noise = random.normal(f"noise/{name}", step, ids, tokens * channels).view(batch, tokens, channels)
        return Draw(t, s, mask, noise)

    def timesteps(self, name: str) -> Timesteps:
        p = self.config.timesteps.get(name, Timesteps())
        return p if p.shift else replace(p, shift=self.train_shift.get(name, 1.0))

    def mask_ratio(self, name: str) -> float:
        ratio = self.config.mask_ratio.get(name, PAPER_MASK_RATIO.get(name))
        if ratio is None:
            raise UserError(f"objective.mask_ratio names no ratio for {name} and the paper has none; add one")
        return ratio

    def _with_text(self, levels: dict[str, NoiseLevels], batch: Batch) -> dict[str, NoiseLevels]:
        if self.config.text_level == "zero":
            level = batch.ids.new_zeros(len(batch.ids), dtype=torch.float32)
        else:
            level = torch.cat([lv.per_token() for lv in levels.values()], dim=1).mean(dim=1)
        return {**levels, "text": NoiseLevels.uniform(level, batch.text.sample)}

    def _generation(
        self, predicted: Mapping[str, Tensor], batch: Batch, draws: Mapping[str, Draw], given: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum over generated modalities of weight times mean squared error of the velocity, given tokens left out."""
        losses = {}
        for m in batch.conditions.generate:
            stream = batch.streams[m]
            error = (predicted[m].float() - velocity(stream.values, draws[m].noise)).square().mean(dim=-1)
            losses[m] = _mean(error, _counted(stream, given.get(m)))
        total = torch.stack([self.config.weights.get(m, 1.0) * value for m, value in losses.items()]).sum()
        return total, {f"l_gen/{m}": value.detach() for m, value in losses.items()}

    def _representation(
        self,
        model: JointTransformer,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        batch: Batch,
        given: Mapping[str, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over tokens, masked or not, of 1 - cos(P(h_l), z_k), the cosine over channels; given tokens left out."""
        total, count = torch.zeros((2,), device=batch.ids.device)
        cosines = {}
        for m in batch.conditions.generate:
            stream = batch.streams[m]
            cosine = F.cosine_similarity(model.projector(student[m]).float(), teacher[m].float(), dim=-1)
            counted = _counted(stream, given.get(m))
            total, count = total + ((1 - cosine) * counted).sum(), count + counted.sum()
            cosines[f"cosine/{m}"] = _mean(cosine, counted).detach()
        return total / count, cosines


def _noised(stream: TokenStream, noise: Tensor, levels: NoiseLevels) -> TokenStream:
    return stream.with_values(interpolate(stream.values, noise, levels.per_token()))


def _counted(stream: TokenStream, given: Tensor | None) -> Tensor:
    return stream.valid if given is None else stream.valid & ~given


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum()
