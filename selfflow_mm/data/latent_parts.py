"""The parts of a folder of latents under construction, written so that a job can stop at any moment and go on.

Encoded batches of ``BATCH`` samples are collected, and every ``PART`` samples are written as one part. A part counts
when both its tensors and its json beside them are there, so a job that was stopped does again at most the samples of
one part. Every file is written beside its place and renamed; ``latents.json`` comes last.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from selfflow_tokenizers.tensor_file import save_tensors

from ..errors import UserError
from .encode_batch import Alike, EncodedBatch, at_same_places
from .latents import (
    CAPTION_KINDS,
    CAPTIONS,
    DRAFT,
    POSITIONS,
    QUARANTINE,
    STATE,
    VERSION_SEVERAL,
    LeftOut,
    grid_of,
    shape_name,
    shape_of_name,
)
from .shards import ShardDataset
from .sizes import sizes_of

PART, BATCH = 256, 16
#: When not one of so many samples could be encoded, the fault is hardly theirs.
_HOPELESS = 64


class LatentParts:
    """The parts of a folder: those that an earlier job has written, and those that follow."""

    def __init__(self, folder: Path, data: ShardDataset, count: int) -> None:
        self._folder, self._data, self._count = folder, data, count
        self._batches: list[EncodedBatch] = []
        self._shapes: dict[str, list[Tensor]] = {}
        self._ids: dict[tuple[str, int], list[int]] = {}
        self._left_out: list[LeftOut] = []
        self.done = 0
        while self.done < count and self._take_in(self.done // PART):
            self.done = self.end_of_part(self.done)

    def end_of_part(self, index: int) -> int:
        """The first sample behind the part that ``index`` is in."""
        return min((index // PART + 1) * PART, self._count)

    def todo(self) -> Iterator[range]:
        """The batches that are to be encoded, as their samples. None is in two parts."""
        for part in range(self.done, self._count, PART):
            end = self.end_of_part(part)
            for start in range(part, end, BATCH):
                yield range(start, min(start + BATCH, end))

    def add(self, ids: range, batch: EncodedBatch) -> None:
        """The next samples; a full part is written.

        Raises:
            UserError: nothing could be encoded so far.
        """
        self._batches.append(batch)
        self._left_out += batch.left_out
        if len(self._left_out) == ids.stop and ids.stop >= min(_HOPELESS, self._count):
            raise UserError(
                f"none of the first {ids.stop} samples of {self._data.folder} can be encoded; of the first: "
                f"{self._left_out[0].reason}"
            )
        if ids.stop == self.end_of_part(ids.start):
            self._write(ids.start // PART)
            self.done = ids.stop

    def close(self, about: dict[str, Any]) -> None:
        """Write what is beside the parts, ``latents.json`` last."""
        folder, parts = self._folder, -(-self._count // PART)
        sides = [json.loads(self._side(n).read_text(encoding="utf-8")) for n in range(parts)]
        replace_text(folder / CAPTIONS, _as_lines(c for side in sides for c in side["captions"]))
        # A part that an earlier release wrote has none.
        kinds = [k for side in sides for k in side.get("caption_kinds", [[]] * len(side["captions"]))]
        counts = Counter(kind for of_sample in kinds for kind in of_sample)
        if counts:
            replace_text(folder / CAPTION_KINDS, _as_lines(kinds))
        places = {shape_name(m, k): place for m, shapes in self._shapes.items() for k, place in enumerate(shapes)}
        _save(places, folder / POSITIONS)
        if self._left_out:
            replace_text(folder / QUARANTINE, _as_lines(asdict(item) for item in self._left_out))
        left_out = {item.id for item in self._left_out}
        rest = {
            "sizes": sizes_of(self._data, left_out, self._by_frequency() if self._several else None),
            "having": {m: sum(len(self._ids[m, k]) for k in range(len(self._shapes[m]))) for m in sorted(self._shapes)},
            "left_out": len(left_out),
            "parts": parts,
        }
        if counts:
            rest["caption_kinds"] = dict(counts)
        if self._several:
            rest |= {"version": VERSION_SEVERAL, "shapes": self._counts()}
        replace_text(folder / STATE, json.dumps(about | rest, indent=1))
        sweep(folder)

    @property
    def _several(self) -> bool:
        """Whether samples of any modality differ in shape."""
        return any(len(shapes) > 1 for shapes in self._shapes.values())

    def _counts(self) -> dict[str, list[dict[str, Any]]]:
        """Modality -> of each of its shapes the tokens, the grid they fill and how many samples have it."""
        return {
            m: [
                {"tokens": len(place), "grid": grid_of(place), "samples": len(self._ids[m, k])}
                for k, place in enumerate(self._shapes[m])
            ]
            for m in sorted(self._shapes)
        }

    def _by_frequency(self) -> list[int]:
        """A sample, the first, of every combination of shapes, that of the most common first."""
        shapes: dict[int, tuple[tuple[str, int], ...]] = {}
        for shape in sorted(self._ids):
            for i in self._ids[shape]:
                shapes[i] = (*shapes.get(i, ()), shape)
        first: dict[tuple[tuple[str, int], ...], int] = {}
        for i in sorted(shapes):
            first.setdefault(shapes[i], i)
        counts = Counter(shapes.values())
        return sorted(first.values(), key=lambda i: (-counts[shapes[i]], i))

    def _write(self, number: int) -> None:
        batches, self._batches = self._batches, []
        tensors: dict[str, Tensor] = {}
        for m in dict.fromkeys(m for b in batches for m in b.groups):
            alike: dict[int, list[Alike]] = {}
            for group in (g for b in batches for g in b.groups.get(m, ())):
                alike.setdefault(self._shape(m, torch.from_numpy(group.positions)), []).append(group)
            for k in sorted(alike):
                name, ids = shape_name(m, k), [i for group in alike[k] for i in group.ids]
                tensors[f"{name}.values"] = torch.from_numpy(np.concatenate([group.values for group in alike[k]]))
                tensors[f"{name}.ids"] = torch.tensor(ids)
                tensors[f"{name}.positions"] = self._shapes[m][k]
                self._ids.setdefault((m, k), []).extend(ids)
        side = {
            "captions": [c for b in batches for c in b.captions],
            "caption_kinds": [k for b in batches for k in b.caption_kinds],
            "left_out": [asdict(item) for b in batches for item in b.left_out],
        }
        _save(tensors, self._path(number))
        replace_text(self._side(number), json.dumps(side))

    def _take_in(self, number: int) -> bool:
        """What is known of a part that is written already; False where it is not."""
        if not (self._path(number).is_file() and self._side(number).is_file()):
            return False
        try:
            tensors = load_file(self._path(number))
        except SafetensorError:  # cut short by something else than a kill of ours
            return False
        for modality, k in sorted(shape_of_name(name.rpartition(".")[0]) for name in tensors if name.endswith(".ids")):
            name, shapes = shape_name(modality, k), self._shapes.setdefault(modality, [])
            if k == len(shapes):  # shapes are numbered as they come, so none is missing before it
                shapes.append(tensors[f"{name}.positions"].clone())
            self._ids.setdefault((modality, k), []).extend(tensors[f"{name}.ids"].tolist())
        side = json.loads(self._side(number).read_text(encoding="utf-8"))
        self._left_out += [LeftOut(**item) for item in side["left_out"]]
        return True

    def _shape(self, modality: str, place: Tensor) -> int:
        """The number of a shape; one that was not met before gets the next."""
        shapes = self._shapes.setdefault(modality, [])
        for k, known in enumerate(shapes):
            if at_same_places(known, place):
                return k
        shapes.append(place)
        return len(shapes) - 1

    def _path(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.safetensors"

    def _side(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.json"


def sweep(folder: Path) -> None:
    """Remove what only an unfinished folder needs."""
    for leftover in [folder / DRAFT, *folder.glob("part-*.json"), *folder.glob("*.tmp")]:
        leftover.unlink(missing_ok=True)


def _as_lines(items: Iterable[Any]) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    beside = path.with_name(path.name + ".tmp")
    save_tensors(tensors, beside)
    _put(beside, path)


def replace_text(path: Path, text: str) -> None:
    """Write a file beside its place and rename it."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    _put(beside, path)


def _put(beside: Path, path: Path) -> None:
    with open(beside, "rb") as file:
        os.fsync(file.fileno())  # or a power cut could leave the name without the contents
    os.replace(beside, path)
