"""The velocity field that a solver integrates: the model with its caption, its guidance and its given tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..flow.guidance import guide
from ..models.joint import JointTransformer, Past
from ..tokens import NoiseLevels, TokenStream


class Field:
    """``field(x, now)``: values and level of each modality -> velocities.

    With guidance the batch is doubled: each sample with its caption and with the empty one.

    Args:
        model: the transformer.
        streams: modality -> tokens; their values are only a place to lay x in.
        text: the captions' tokens, followed by those of as many empty captions where guidance asks for them.
        scales: modality -> guidance scale; 1 is none.
        pinned: modality -> (mask ``(B, N)`` of given tokens, their values ``(B, N, C)``, the level they are kept at).
        text_level: what training told text tokens: ``zero`` or ``mean``.
    """

    def __init__(
        self,
        model: JointTransformer,
        streams: Mapping[str, TokenStream],
        text: TokenStream,
        scales: Mapping[str, float],
        pinned: Mapping[str, tuple[Tensor, Tensor, float]],
        text_level: str,
    ) -> None:
        self.model, self.text, self.scales, self.text_level = model, text, scales, text_level
        self.times = 2 if any(scale != 1 for scale in scales.values()) else 1
        self.streams = {m: _repeat(s, self.times) for m, s in streams.items()}
        self.pinned = pinned
        self.given = {m: mask.repeat(self.times, 1) for m, (mask, _, _) in pinned.items()}
        self._past = self._conditions_once()

    def __call__(self, x: dict[str, Tensor], now: dict[str, float]) -> dict[str, Tensor]:
        x = {m: self.pin(m, v) for m, v in x.items()}
        out = self._whole(x, now) if self._past is None else self._generated(x, now, self._past)
        if self.times == 1:
            return out
        halves = {m: v.chunk(2) for m, v in out.items()}
        return {m: guide(c, u, self.scales.get(m, 1.0)) for m, (c, u) in halves.items()}

    def pin(self, modality: str, values: Tensor) -> Tensor:
        """Values with the given tokens laid over them."""
        if modality not in self.pinned:
            return values
        mask, clean, _ = self.pinned[modality]
        return torch.where(mask.unsqueeze(-1), clean, values)

    def _whole(self, x: dict[str, Tensor], now: dict[str, float]) -> dict[str, Tensor]:
        """A pass over everything."""
        inputs = {m: s.with_values(x[m].repeat(self.times, 1, 1)) for m, s in self.streams.items()}
        levels = {m: self._level(s, now[m]) for m, s in inputs.items()}
        for m, mask in self.given.items():
            levels[m] = levels[m].given(mask, self.pinned[m][2])
        level = torch.zeros(len(self.text.sample), device=self.text.sample.device)
        if self.text_level == "mean":
            level = torch.cat([lv.per_token() for lv in levels.values()], dim=1).mean(dim=1)
        levels["text"] = NoiseLevels.uniform(level, self.text.sample)
        return self.model(inputs, levels, self.text, given=self.given).velocity

    def _conditions_once(self) -> Past | None:
        """Keys and values of text and given tokens, where the model isolates them and all rows are given the same
        places; their level must stay as it is.
        """
        same = all(bool((mask == mask[:1]).all()) for mask in self.given.values())
        full = all(s.full for s in self.streams.values())
        if not self.model.config.isolate_conditions or self.text_level != "zero" or not same or not full:
            return None
        known = {}
        for m, mask in self.given.items():
            values = self.pinned[m][1].repeat(self.times, 1, 1)
            if bool(mask[0].any()):
                known[m] = _select(self.streams[m].with_values(values), mask[0])
        levels = {m: self._level(s, self.pinned[m][2]) for m, s in known.items()}
        return self.model.condition(known, {**levels, "text": self._level(self.text, 0.0)}, self.text)

    def _generated(self, x: dict[str, Tensor], now: dict[str, float], past: Past) -> dict[str, Tensor]:
        """A pass over the generated tokens alone; given ones are said to stand still."""
        rest = {m: ~self.given[m][0] if m in self.given else slice(None) for m in x}
        inputs = {}
        for m, s in self.streams.items():
            chosen = _select(s.with_values(x[m].repeat(self.times, 1, 1)), rest[m])
            if chosen.values.shape[1]:
                inputs[m] = chosen
        moved = self.model.conditioned(inputs, {m: self._level(s, now[m]) for m, s in inputs.items()}, past)
        out = {m: torch.zeros_like(s.values) for m, s in self.streams.items()}
        for m, v in moved.items():
            out[m][:, rest[m]] = v.to(out[m].dtype)
        return out

    def _level(self, stream: TokenStream, level: float) -> NoiseLevels:
        return NoiseLevels.uniform(torch.full((len(stream.sample),), level, device=stream.sample.device), stream.sample)


def _select(stream: TokenStream, places: Tensor | slice) -> TokenStream:
    return replace(
        stream,
        values=stream.values[:, places],
        positions=stream.positions[:, places],
        sample=stream.sample[:, places],
    )


def _repeat(stream: TokenStream, times: int) -> TokenStream:
    return replace(
        stream,
        values=stream.values.repeat(times, 1, 1),
        positions=stream.positions.repeat(times, 1, 1),
        sample=stream.sample.repeat(times, 1),
    )
