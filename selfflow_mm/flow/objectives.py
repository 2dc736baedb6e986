"""Training objectives: Self-Flow as the paper states it, its baselines and its negative controls.

``Objective.loss`` is the method on one screen. Equation and section numbers are those of "Self-Supervised Flow
Matching for Scalable Multi-Modal Synthesis" (arXiv 2603.06507). Time: 0 is data, 1 is noise.

An objective is a row of ``METHODS``: a schedule that gives every token its level, and what the student's features
are compared with. A new one is a new row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..conditions import Conditions
from ..errors import UserError
from ..randomness import Randomness
from ..tokens import NoiseLevels, TokenStream
from .packed import Draw, alike, draw_packed
from .path import interpolate, velocity
from .schedules import (
    Chance,
    Schedule,
    diffusion_forcing,
    dual_timesteps,
    full_masking,
    one_timestep,
    trailing_teacher,
)
from .timesteps import Timesteps

if TYPE_CHECKING:  # flow knows nothing of models; any callable of this shape will do
    from ..models.joint import JointTransformer, Output

#: R of sec. 3.3; video has the least because neighbouring frames repeat each other.
PAPER_MASK_RATIO = {"image": 0.25, "video": 0.1, "audio": 0.5}


@dataclass(frozen=True)
class Method:
    """What tells one objective from another.

    Attributes:
        schedule: levels of the student, and the cleaner level of a teacher.
        target: whose features the student's are compared with: the EMA ``teacher``'s (no gradient), its ``own``
            deeper ones (no gradient), an ``encoder``'s of the clean data; None is no comparison.
        gamma: weight of the comparison by its authors.
        layers: l and k as fractions of the depth by its authors.
        projects: does the student's side pass through the projection head P?
    """

    schedule: Schedule
    target: Literal["teacher", "own", "encoder"] | None = None
    gamma: float = 0.0
    layers: tuple[float, float] = (0.3, 0.7)
    projects: bool = True


METHODS: dict[str, Method] = {
    "self-flow": Method(dual_timesteps, "teacher", gamma=0.8),
    "flow": Method(one_timestep),
    "dual": Method(dual_timesteps),
    "diffusion-forcing": Method(diffusion_forcing),
    "full-masking": Method(full_masking),
    # REPA (Yu et al. 2024): coefficient 0.5, block 8 of 28.
    "repa": Method(one_timestep, "encoder", gamma=0.5),
    # SRA (Jiang et al. 2025): blocks 8 and 20 of 28; 0.5 is its authors' weight of the cosine.
    "sra": Method(trailing_teacher, "teacher", gamma=0.5),
    # LayerSync (Haghighi et al. 2025): weight 0.2, blocks 8 and 16 of 28, no head.
    "layersync": Method(one_timestep, "own", gamma=0.2, layers=(0.3, 0.57), projects=False),
}


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised.

    Attributes:
        name: a row of ``METHODS``.
        gamma: weight of L_rep (sec. 3.4: 0.8, fixed); null takes the method's own.
        student_layer, teacher_layer: l and k as fractions of the depth (sec. 3.4: 0.3 and 0.7); null takes the
            method's own.
        similarity: of features: ``cosine``, or minus their ``l1`` distance (sec. 3.4: unstable late, as norms grow).
        stop_alignment_at: leave L_rep out from this step on (HASTE: early alignment helps, late alignment may hurt);
            0 never stops.
        mask_ratio: R per modality, at most 0.5; those not named take the paper's.
        mask_count: is a token masked with probability R (``bernoulli``, sec. 3.3), or round(R n) tokens (``exact``)?
        timesteps: p(t) per modality; those not named take the default of :class:`Timesteps`.
        pairing: are (t, s) of a clip's modalities drawn ``independent`` of each other (ours: one model then
            knows every mixture of levels, clean picture with noisy sound included, and samples them in any
            order) or ``shared``?
        encoders: for ``repa``: modality -> folder or hub id of an encoder of transformers.
        weights: factor of each modality's loss; those not named count 1.
        given_level: given tokens are noised to a level drawn from U(0, given_level) per sample (sec. 4: 0.2 for
            first frames; 0 keeps them clean).
        given_levels: the same for single modalities, in place of ``given_level``.
        caption_dropout: share of samples whose caption is dropped, for guidance. Student and teacher see the same.
        text_level: noise level told to text tokens: they are data, so ``zero``; or the sample's ``mean`` level. The
            paper does not publish it.
    """

    name: Literal["self-flow", "flow", "dual", "diffusion-forcing", "full-masking", "repa", "sra", "layersync"] = (
        "self-flow"
    )
    gamma: float | None = None
    student_layer: float | None = None
    teacher_layer: float | None = None
    similarity: Literal["cosine", "l1"] = "cosine"
    stop_alignment_at: int = 0
    mask_ratio: dict[str, float] = field(default_factory=dict)
    mask_count: Literal["bernoulli", "exact"] = "bernoulli"
    timesteps: dict[str, Timesteps] = field(default_factory=dict)
    pairing: Literal["independent", "shared"] = "independent"
    encoders: dict[str, str] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    given_level: float = 0.0
    given_levels: dict[str, float] = field(default_factory=dict)
    caption_dropout: float = 0.1
    text_level: Literal["zero", "mean"] = "zero"

    def __post_init__(self) -> None:
        for name, ratio in self.mask_ratio.items():
            if not 0 <= ratio <= 0.5:
                raise UserError(f"mask_ratio.{name} lies in [0, 0.5] (sec. 3.3), got {ratio}")
        student, teacher = self.fractions
        if not 0 < student < teacher <= 1:
            raise UserError(
                "student_layer and teacher_layer are fractions of the depth with 0 < student < teacher <= 1, "
                f"got {student} and {teacher}"
            )
        if self.gamma is not None and self.gamma < 0:
            raise UserError(f"gamma cannot be negative, got {self.gamma}")
        if self.stop_alignment_at < 0:
            raise UserError(f"stop_alignment_at is a step, or 0 for never; got {self.stop_alignment_at}")
        if bool(self.encoders) != (self.name == "repa"):
            raise UserError(
                "encoders are named for repa and for no other objective, e.g. encoders.image=facebook/dinov2-base"
            )
        if not 0 <= self.caption_dropout <= 1 or not 0 <= self.given_level < 1:
            raise UserError("caption_dropout lies in [0, 1] and given_level in [0, 1)")
        for name, level in self.given_levels.items():
            if not 0 <= level < 1:
                raise UserError(f"given_levels.{name} lies in [0, 1), got {level}")

    @property
    def method(self) -> Method:
        return METHODS[self.name]

    @property
    def fractions(self) -> tuple[float, float]:
        """(l, k) as fractions of the depth."""
        stated, own = (self.student_layer, self.teacher_layer), self.method.layers
        student, teacher = (o if s is None else s for s, o in zip(stated, own, strict=True))
        return student, teacher

    def layers(self, depth: int) -> tuple[int, int]:
        """(l, k): blocks counted from 1; at depth 28 they are 8 and 20, as published."""
        student, teacher = (max(1, round(fraction * depth)) for fraction in self.fractions)
        if student == teacher and self.method.target == "own":
            raise UserError(f"{self.name} compares block {student} with itself at depth {depth}; set the layers apart")
        return student, teacher


@dataclass(frozen=True)
class Batch:
    """A training batch: a sample per row, or rows that pack several.

    Attributes:
        streams: modality -> clean tokens.
        conditions: the task they are trained for.
        text: the captions' tokens with drops already applied; class labels ``(B,)`` for the ImageNet transformer.
        ids: ``(B,)`` global sample ids; ``(B, S)`` of packed rows, -1 where a row has fewer samples.
        lengths: of packed rows: stream (``text`` too) -> for each row the tokens of each of its samples, which lie end
            to end in the order of ``ids``; None: a sample per row.
        weights: of samples in the loss, as ``ids``; None: all count 1.
    """

    streams: Mapping[str, TokenStream]
    conditions: Conditions
    text: TokenStream | Tensor
    ids: Tensor
    lengths: Mapping[str, Sequence[Sequence[int]]] | None = None
    weights: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        streams = {m: s.to(device) for m, s in self.streams.items()}
        weights = None if self.weights is None else self.weights.to(device)
        return replace(self, streams=streams, text=self.text.to(device), ids=self.ids.to(device), weights=weights)

    def rows(self, start: int, stop: int) -> Batch:
        """Some of its rows, packed ones without the padding that only other rows needed."""
        given = {m: part.rows(start, stop) for m, part in self.conditions.given.items()}
        if self.lengths is None:
            streams = {m: s.rows(start, stop) for m, s in self.streams.items()}
            text = self.text.rows(start, stop) if isinstance(self.text, TokenStream) else self.text[start:stop]
            lengths = None
        else:
            lengths = {name: of_rows[start:stop] for name, of_rows in self.lengths.items()}
            longest = {name: max(map(sum, of_rows), default=0) for name, of_rows in lengths.items()}
            streams = {m: s.rows(start, stop).until(longest[m]) for m, s in self.streams.items()}
            assert isinstance(self.text, TokenStream)
            text = self.text.rows(start, stop).until(longest["text"])
            given = {m: part.until(longest[m]) for m, part in given.items()}
        conditions = replace(self.conditions, given=given)
        weights = None if self.weights is None else self.weights[start:stop]
        return Batch(streams, conditions, text, self.ids[start:stop], lengths, weights)


#: A batch -> features of its clean data per modality, one for each token: ``(B, N, E)``.
FeatureFunction = Callable[[Batch], Mapping[str, Tensor]]


class Objective:
    """A loss on batches.

    Args:
        config: see :class:`ObjectiveConfig`.
        train_shift: the tokenizers' timestep shifts, used where ``timesteps`` leaves the shift at 0.
        features: the encoder that ``repa`` aligns with.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        train_shift: Mapping[str, float] | None = None,
        features: FeatureFunction | None = None,
    ) -> None:
        if config.method.target == "encoder" and features is None:
            raise UserError(f"{config.name} needs an encoder; name one in objective.encoders")
        self.config, self.method = config, config.method
        self.train_shift = dict(train_shift or {})
        self.features = features
        self.gamma = self.method.gamma if config.gamma is None else config.gamma

    @property
    def needs_teacher(self) -> bool:
        return self.method.target == "teacher"

    def aligns(self, step: int) -> bool:
        """Does training step ``step``, counted from 0, have an L_rep?"""
        return self.method.target is not None and not 0 < self.config.stop_alignment_at <= step

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Generated modality -> weight of its tokens that the loss counts, summed: what it is a mean over."""
        return {m: _counted(m, batch).sum() for m in batch.conditions.generate}

    def loss(
        self,
        model: JointTransformer,
        teacher: JointTransformer | None,
        batch: Batch,
        random: Randomness,
        step: int,
        totals: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L = L_gen + gamma L_rep (eq. 7) and its parts, detached, by name.

        Args:
            totals: :meth:`counts` of the whole step, where this batch is a part of it: the parts' losses then sum to
                the step's. None: the batch is the step.
        """
        z: Mapping[str, Tensor]
        totals = self.counts(batch) if totals is None else totals
        draws = {m: self._drawn(m, stream, batch, random, step) for m, stream in batch.streams.items()}
        u = random.uniform("given_level", step, batch.ids.flatten())[:, 0].view(batch.ids.shape)
        given_level = {m: u * self.config.given_levels.get(m, self.config.given_level) for m in batch.conditions.given}
        at_l, at_k = self.config.layers(model.config.depth)
        target = self.method.target if self.aligns(step) else None

        # Student: every token at its own level tau_i (eq. 4, 5); given tokens near data.
        wanted = {None: (), "own": (at_l, at_k)}.get(target, (at_l,))
        student = self._pass(model, batch, draws, {m: d.tau for m, d in draws.items()}, given_level, wanted)
        loss, report = self._generation(student.velocity, batch, draws, totals)  # L_gen (eq. 2)
        if target is None:
            return loss, report

        # Target z_k: the EMA teacher sees every token at the cleaner level; same data, noise and captions. No gradient.
        with torch.no_grad():
            if target == "teacher":
                assert teacher is not None, f"{self.config.name} needs its teacher"
                clean = {m: NoiseLevels.uniform(d.cleaner, batch.streams[m].sample) for m, d in draws.items()}
                z = self._pass(teacher, batch, draws, clean, given_level, (at_k,), features_only=True).features[at_k]
            else:
                z = student.features[at_k] if target == "own" else self._encoded(batch)

        l_rep, similarity = self._representation(model, student.features[at_l], z, batch, totals)  # L_rep (eq. 6)
        if not similarity:  # no generated modality has an encoder
            return loss, report
        return loss + self.gamma * l_rep, {**report, **similarity, "l_rep": l_rep.detach()}

    def draw(self, name: str, stream: TokenStream, ids: Tensor, random: Randomness, step: int) -> Draw:
        """Levels by the method's schedule and x1 ~ N(0, I) for one stream of a sample per row."""
        chance = Chance(random, step, ids, name, shared=self.config.pairing == "shared")
        exact = self.config.mask_count == "exact"
        tau, cleaner = self.method.schedule(chance, stream, self.timesteps(name), self.mask_ratio(name), exact)
        return Draw(tau, cleaner, chance.noise(stream.values))

    def _drawn(self, name: str, stream: TokenStream, batch: Batch, random: Randomness, step: int) -> Draw:
        if batch.lengths is None:
            return self.draw(name, stream, batch.ids, random, step)
        alone = partial(self.draw, name, random=random, step=step)
        return draw_packed(alone, stream, batch.ids, batch.lengths[name])

    def timesteps(self, name: str) -> Timesteps:
        p = self.config.timesteps.get(name, Timesteps())
        return p if p.shift else replace(p, shift=self.train_shift.get(name, 1.0))

    def mask_ratio(self, name: str) -> float:
        if self.method.schedule not in (dual_timesteps, full_masking):
            return 0.0
        ratio = self.config.mask_ratio.get(name, PAPER_MASK_RATIO.get(name))
        if ratio is None:
            raise UserError(f"objective.mask_ratio names no ratio for {name} and the paper has none; add one")
        return ratio

    def _pass(
        self,
        model: JointTransformer,
        batch: Batch,
        draws: Mapping[str, Draw],
        levels: dict[str, NoiseLevels],
        given_level: Mapping[str, Tensor],
        blocks: tuple[int, ...],
        features_only: bool = False,
    ) -> Output:
        """The model on the batch noised to ``levels`` (eq. 5), given tokens to their own."""
        given = batch.conditions.masks(batch.streams)
        sample = {m: s.sample for m, s in batch.streams.items()}
        levels = {m: lv.given(given[m], given_level[m], sample[m]) if m in given else lv for m, lv in levels.items()}
        noisy = {
            m: s.with_values(interpolate(s.values, draws[m].noise, levels[m].per_token()))
            for m, s in batch.streams.items()
        }
        if isinstance(batch.text, TokenStream):
            levels = {**levels, "text": NoiseLevels.uniform(self._text_level(levels, batch), batch.text.sample)}
        kept = {"given": given} if given else {}
        return model(noisy, levels, batch.text, features_after=blocks, features_only=features_only, **kept)

    def _text_level(self, levels: Mapping[str, NoiseLevels], batch: Batch) -> Tensor:
        if self.config.text_level == "zero":
            return torch.zeros_like(batch.ids, dtype=torch.float32)
        if batch.lengths is None:
            return torch.cat([lv.per_token() for lv in levels.values()], dim=1).mean(dim=1)
        each = torch.cat([lv.per_token() for lv in levels.values()], dim=1)
        sample = torch.cat([batch.streams[m].sample for m in levels], dim=1)
        sums, counts = torch.zeros((2, *batch.ids.shape), device=each.device)
        sums.scatter_add_(1, sample.clamp(min=0), each * (sample >= 0))
        counts.scatter_add_(1, sample.clamp(min=0), (sample >= 0).float())
        return sums / counts.clamp(min=1)

    def _generation(
        self,
        predicted: Mapping[str, Tensor],
        batch: Batch,
        draws: Mapping[str, Draw],
        totals: Mapping[str, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum over generated modalities of weight times mean squared error of the velocity, given tokens left out."""
        losses = {}
        for m in batch.conditions.generate:
            stream = batch.streams[m]
            error = (predicted[m].float() - velocity(stream.values, draws[m].noise)).square().mean(dim=-1)
            losses[m] = _mean(error, _counted(m, batch), totals[m])
        total = torch.stack([self.config.weights.get(m, 1.0) * value for m, value in losses.items()]).sum()
        return total, {f"l_gen/{m}": value.detach() for m, value in losses.items()}

    def _representation(
        self,
        model: JointTransformer,
        student: Mapping[str, Tensor],
        target: Mapping[str, Tensor],
        batch: Batch,
        totals: Mapping[str, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over tokens, masked or not, of 1 - cos(P(h_l), z), the cosine over channels; given tokens left out."""
        total = torch.zeros((), device=batch.ids.device)
        report = {}
        for m in batch.conditions.generate:
            if m not in target:  # an encoder for pictures says nothing of sound
                continue
            h, z = model.projector(student[m]) if self.method.projects else student[m], target[m].detach().float()
            cosine = F.cosine_similarity(h.float(), z, dim=-1)
            distance = 1 - cosine if self.config.similarity == "cosine" else (h.float() - z).abs().mean(dim=-1)
            counted = _counted(m, batch)
            total = total + (distance * counted).sum()
            report[f"cosine/{m}"] = _mean(cosine, counted, totals[m]).detach()
        # Of the whole step: a part of it need not have all of its modalities.
        elsewhere = self.config.encoders if self.method.target == "encoder" else totals
        compared = [
            n for m, n in totals.items() if m in target or (m in elsewhere and m not in batch.conditions.generate)
        ]
        count = torch.stack([n.float() for n in compared]).sum() if compared else torch.zeros_like(total)
        return total / count.clamp(min=1), report

    def _encoded(self, batch: Batch) -> Mapping[str, Tensor]:
        assert self.features is not None
        if batch.lengths is not None:
            return self._encoded_packed(batch)
        features = self.features(batch)
        for m, z in features.items():
            tokens = batch.streams[m].values.shape[:2]
            if z.shape[:2] != tokens:
                raise UserError(
                    f"the encoder gave {tuple(z.shape[:2])} features of {m} for {tuple(tokens)} tokens; a feature "
                    "function gives one for each"
                )
        return features

    def _encoded_packed(self, batch: Batch) -> Mapping[str, Tensor]:
        """Sample by sample, as samples of one length need not be of one size."""
        assert batch.lengths is not None
        found: dict[str, Tensor] = {}
        for m, stream in batch.streams.items():
            for part in alike(stream, batch.lengths[m]):
                for i, tokens in enumerate(part.tokens):
                    of_one = part.stream.rows(i, i + 1)
                    alone = Batch({m: of_one}, Conditions((m,)), batch.ids.new_zeros(1), batch.ids.new_zeros(1))
                    z = self._encoded(alone).get(m)
                    if z is None:
                        break
                    if m not in found:
                        found[m] = z.new_zeros(*stream.values.shape[:2], z.shape[2])
                    found[m].flatten(0, 1)[tokens] = z[0]
        return found


def _counted(modality: str, batch: Batch) -> Tensor:
    """``(B, N)``: the weight of tokens in losses: 0 of padding and of given ones, else their sample's, or just bool."""
    stream, part = batch.streams[modality], batch.conditions.given.get(modality)
    counted = stream.valid if part is None else stream.valid & ~part.select(stream)
    if batch.weights is None:
        return counted
    weights = batch.weights.unsqueeze(1) if batch.weights.ndim == 1 else batch.weights
    return counted * weights.gather(1, stream.sample.clamp(min=0))


def _mean(values: Tensor, weight: Tensor, total: Tensor) -> Tensor:
    return (values * weight).sum() / total
