"""A few samples of a data set to latents: what one process does at a time. What cannot be encoded is set aside."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfflow_tokenizers.media import Image
from selfflow_tokenizers.stream import TokenStream

from ..errors import UserError
from ..randomness import Randomness
from .latents import LeftOut
from .retrying import Unreachable
from .shards import Sample, ShardDataset

Loader = Callable[[str], Any]


@dataclass(frozen=True)
class Alike:
    """Latents of one modality whose tokens are at the same places, as arrays (tensors would be sent between processes
    by their file descriptors).

    Attributes:
        ids: the ``n`` samples they are of.
        values: ``(n, N, C)`` float16.
        positions: ``(N, 4)`` float32.
    """

    ids: list[int]
    values: np.ndarray
    positions: np.ndarray

    def without(self, lost: Container[int]) -> Alike:
        """Those that are not ``lost``."""
        keep = [row for row, i in enumerate(self.ids) if i not in lost]
        return Alike([self.ids[row] for row in keep], self.values[keep], self.positions)


@dataclass
class EncodedBatch:
    """Latents of some samples.

    Attributes:
        groups: modality -> its samples, those of one shape together, in the order of the first of each.
        captions: of every sample, none of one that was left out.
        caption_kinds: of what kind each of these is; none of a sample that does not say.
        left_out: the samples that could not be encoded.
    """

    groups: dict[str, list[Alike]] = field(default_factory=dict)
    captions: list[list[str]] = field(default_factory=list)
    caption_kinds: list[list[str]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


class BatchEncoder:
    """Sample ids -> :class:`EncodedBatch`. In another process it loads tokenizers of its own, once.

    Args:
        data: the data set.
        tokenizers: modality -> tokenizer. ``image`` of a video without stills is one frame of it, drawn by the
            sample's id.
        sources: modality -> what ``load`` makes the same tokenizer of; needed by other processes only.
        load: makes a tokenizer.
    """

    def __init__(
        self, data: ShardDataset, tokenizers: Mapping[str, Any], sources: Mapping[str, str], load: Loader | None
    ) -> None:
        self.data, self.sources, self.load = data, dict(sources), load
        self.tokenizers: dict[str, Any] = dict(tokenizers)
        #: Samples that are not touched, as a process died of them.
        self.deadly: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"tokenizers": {}}

    def __call__(self, ids: range) -> EncodedBatch:
        return self.encode([self.read(i) for i in ids])

    def read(self, index: int) -> Sample | LeftOut:
        """Decode one sample."""
        if index in self.deadly:
            return self.left_out(index, "the process that read it died (a decoder's fault, or too little memory)")
        try:
            return self.data[index]
        except Unreachable:
            raise
        except UserError as error:
            return self.left_out(index, str(error.__cause__ or error))

    def left_out(self, index: int, reason: str) -> LeftOut:
        """Put one sample on the list."""
        return LeftOut(index, self.data.members(index).shard.name, self.data.key(index), reason)

    def encode(self, read: list[Sample | LeftOut]) -> EncodedBatch:
        """Encode decoded samples of any sizes. A sample spoilt in one modality is left out of all."""
        if not self.tokenizers:
            self._load()
        found = EncodedBatch()
        lost = {item.id: item for item in read if isinstance(item, LeftOut)}
        samples = [item for item in read if isinstance(item, Sample)]
        for modality in self.tokenizers:
            self._encode(modality, samples, found, lost)
        for modality, groups in found.groups.items():
            found.groups[modality] = [left for group in groups if (left := group.without(lost)).ids]
        found.left_out = [lost[i] for i in sorted(lost)]
        kept = [item if isinstance(item, Sample) and item.id not in lost else None for item in read]
        found.captions = [list(s.captions) if s else [] for s in kept]
        found.caption_kinds = [list(s.caption_kinds) if s else [] for s in kept]
        return found

    def _encode(self, modality: str, samples: list[Sample], found: EncodedBatch, lost: dict[int, LeftOut]) -> None:
        media = {s.id: m for s in samples if s.id not in lost and (m := media_of(s, modality)) is not None}
        tokenizer = self.tokenizers[modality]
        try:
            stream = tokenizer.encode(list(media.values())) if media else None
        except UserError:  # which of them is it?
            for i, medium in media.items():
                try:
                    tokenizer.encode([medium])
                except UserError as error:
                    lost[i] = self.left_out(i, f"its {modality} cannot be encoded: {error}")
            media = {i: m for i, m in media.items() if i not in lost}
            stream = tokenizer.encode(list(media.values())) if media else None
        if stream is None:
            return
        numbers = list(media)
        found.groups[modality] = []
        for rows, positions in same_places(stream):
            # In float16, as they are kept: what is too large for it would be infinite only on the disk.
            half = stream.values[rows, : len(positions)].cpu().half()
            ids = [numbers[row] for row in rows]
            for i, finite in zip(ids, half.isfinite().flatten(1).all(1).tolist(), strict=True):
                if not finite:
                    lost[i] = self.left_out(i, f"its {modality} latents are not finite")
            found.groups[modality].append(Alike(ids, half.numpy(), positions.numpy()))

    def _load(self) -> None:
        assert self.load is not None, "other processes need to know how tokenizers are loaded"
        torch.set_num_threads(1)  # the processes are the parallelism
        loaded = {source: self.load(source) for source in dict.fromkeys(self.sources.values())}
        self.tokenizers = {m: loaded[source] for m, source in self.sources.items()}


#: Tokens whose places differ by no more than this (seconds, or shares of the picture) are at the same place.
CLOSE = 1e-4


def media_of(sample: Sample, modality: str) -> Any:
    """The sample's medium of a modality, or None. An ``image`` of a video is one of its frames, fixed by the sample's
    id.
    """
    if modality == "image" and sample.image is None and sample.video is not None:
        frames = sample.video.frames
        return Image(frames[Randomness(0).integer("frame of a video", sample.id, len(frames))])
    return getattr(sample, modality, None)


def same_places(stream: TokenStream) -> list[tuple[list[int], Tensor]]:
    """The rows of a stream whose tokens are at the same places ``(N, 4)``, and these; in the order of their first rows.

    As many tokens on another grid, or at other seconds, are another shape.
    """
    places, lengths = stream.positions.cpu(), stream.valid.sum(1).tolist()
    groups: list[tuple[list[int], Tensor]] = []
    for row, length in enumerate(lengths):
        own = places[row, :length]
        for rows, positions in groups:
            if at_same_places(positions, own):
                rows.append(row)
                break
        else:
            groups.append(([row], own.clone()))
    return groups


def at_same_places(a: Tensor, b: Tensor) -> bool:
    """Whether the tokens at ``a`` ``(N, 4)`` and those at ``b`` are of one shape."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=0.0, atol=CLOSE)
