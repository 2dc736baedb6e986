"""Conditions: which modalities are generated, which are given, and which parts of one are given.

One idea carries every task: a given token sits at level 0 (or a small augmentation level), is not
integrated while sampling and counts in no loss. Text to video with sound, sound to a video, a video
from its first frame, extension and inpainting differ in nothing else. This stands beside ``tokens``
because training (``flow``) and sampling (``generation``) both speak it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from .errors import UserError
from .tokens import TokenStream

PartKind = Literal["all", "first_frame", "prefix", "suffix", "mask"]


@dataclass(frozen=True)
class Part:
    """The given part of a stream.

    Attributes:
        kind: ``all``; ``first_frame`` (the tokens of the earliest time); ``prefix`` (before ``seconds``);
            ``suffix`` (from ``seconds`` on); ``mask`` (``tokens`` says).
        seconds: the border of a prefix or suffix, in the medium's own time.
        tokens: ``(B, N)`` or ``(N,)`` bool for ``mask``.
        level: noise the given tokens are kept at while sampling (an augmentation level); 0 is clean.
    """

    kind: PartKind
    seconds: float = 0.0
    tokens: Tensor | None = None
    level: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.level < 1:
            raise UserError(f"a given part's level lies in [0, 1), got {self.level}")
        if (self.kind == "mask") != (self.tokens is not None):
            raise UserError("tokens are named for a given part of kind 'mask' and for no other kind")

    def rows(self, start: int, stop: int) -> Part:
        """The same part of some rows of a batch."""
        if self.tokens is None or self.tokens.ndim == 1:
            return self
        return replace(self, tokens=self.tokens[start:stop])

    def until(self, length: int) -> Part:
        """The same part of the first tokens of each row."""
        return self if self.tokens is None else replace(self, tokens=self.tokens[..., :length])

    def select(self, stream: TokenStream) -> Tensor:
        """``(B, N)`` bool: the tokens of ``stream`` that are given."""
        seconds = stream.positions[..., 0]
        if self.kind == "all":
            return stream.valid
        if self.kind == "first_frame":
            first = seconds.masked_fill(~stream.valid, torch.inf).amin(dim=1, keepdim=True)
            return stream.valid & (seconds == first)
        if self.kind == "prefix":
            return stream.valid & (seconds < self.seconds)
        if self.kind == "suffix":
            return stream.valid & (seconds >= self.seconds)
        assert self.tokens is not None
        return stream.valid & self.tokens.to(stream.sample.device)


@dataclass(frozen=True)
class Conditions:
    """What a task generates and what it is given; a modality in neither is absent.

    Attributes:
        generate: modalities to make, e.g. ``("video", "audio")``.
        given: modality -> the part of it that is given. A modality in both is completed.
    """

    generate: tuple[str, ...]
    given: Mapping[str, Part] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.generate:
            raise UserError("conditions generate no modality; name at least one of video, audio, image")
        for name, part in self.given.items():
            if part.kind == "all" and name in self.generate:
                raise UserError(f"{name} is given whole and generated too; leave it out of one of the two")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Every modality present, generated ones first."""
        return self.generate + tuple(name for name in self.given if name not in self.generate)

    def masks(self, streams: Mapping[str, TokenStream]) -> dict[str, Tensor]:
        """Modality -> ``(B, N)`` bool of given tokens, for modalities with any."""
        return {name: part.select(streams[name]) for name, part in self.given.items()}

    @property
    def extends(self) -> bool:
        """Is it given a prefix?"""
        return any(part.kind == "prefix" for part in self.given.values())

    def until(self, seconds: float) -> Conditions:
        """The same with prefixes that end before ``seconds``."""
        ended = {m: replace(p, seconds=seconds) if p.kind == "prefix" else p for m, p in self.given.items()}
        return replace(self, given=ended)

    @classmethod
    def named(cls, task: str) -> Conditions:
        """A task by its usual name (``TASKS`` lists them): t2va, t2v, t2a, t2i, i2v, i2va, v2a, a2v, extend, extend-v.

        Where one is given a prefix, none of it is given yet; :meth:`until` says how much.
        """
        if task not in TASKS:
            raise UserError(f"unknown task '{task}'; one of {', '.join(TASKS)}")
        generate, given = TASKS[task]
        return cls(generate, {name: Part(kind) for name, kind in given.items()})


#: Task -> (generated modalities, given part of each given modality). Text is always at hand.
TASKS: dict[str, tuple[tuple[str, ...], dict[str, PartKind]]] = {
    "t2va": (("video", "audio"), {}),
    "t2v": (("video",), {}),
    "t2a": (("audio",), {}),
    "t2i": (("image",), {}),
    "i2v": (("video",), {"video": "first_frame"}),
    "i2va": (("video", "audio"), {"video": "first_frame"}),
    "v2a": (("audio",), {"video": "all"}),
    "a2v": (("video",), {"audio": "all"}),
    "extend": (("video", "audio"), {"video": "prefix", "audio": "prefix"}),
    "extend-v": (("video",), {"video": "prefix"}),
}
