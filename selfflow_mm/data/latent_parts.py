"""The parts of a folder of latents under construction, written so that a job can stop at any moment and go on.

Encoded batches of ``BATCH`` samples are collected, and every ``PART`` samples are written as one part. A part counts
when both its tensors and its json beside them are there, so a job that was stopped does again at most the samples of
one part. Every file is written beside its place and renamed; ``latents.json`` comes last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
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
from .encode_batch import CLOSE, EncodedBatch, differ
from .latents import CAPTIONS, DRAFT, POSITIONS, QUARANTINE, STATE, LeftOut
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
        self._positions: dict[str, Tensor] = {}
        self._having: dict[str, int] = {}
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
            UserError: they differ in shape from those before; nothing could be encoded so far.
        """
        for modality, place in batch.positions.items():
            self._check(modality, torch.from_numpy(place))
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
        texts = [c for n in range(parts) for c in json.loads(self._side(n).read_text(encoding="utf-8"))["captions"]]
        replace_text(folder / CAPTIONS, "".join(json.dumps(c) + "\n" for c in texts))
        _save(self._positions, folder / POSITIONS)
        if self._left_out:
            lines = [json.dumps(asdict(item)) + "\n" for item in self._left_out]
            replace_text(folder / QUARANTINE, "".join(lines))
        left_out = {item.id for item in self._left_out}
        rest = {
            "sizes": sizes_of(self._data, left_out),
            "having": dict(sorted(self._having.items())),
            "left_out": len(left_out),
            "parts": parts,
        }
        replace_text(folder / STATE, json.dumps(about | rest, indent=1))
        sweep(folder)

    def _write(self, number: int) -> None:
        batches, self._batches = self._batches, []
        tensors: dict[str, Tensor] = {}
        for m in dict.fromkeys(m for b in batches for m in b.values):
            with_it = [b for b in batches if m in b.values]
            tensors[f"{m}.values"] = torch.from_numpy(np.concatenate([b.values[m] for b in with_it]))
            tensors[f"{m}.ids"] = torch.tensor([i for b in with_it for i in b.ids[m]])
            tensors[f"{m}.positions"] = self._positions[m]
            self._having[m] = self._having.get(m, 0) + len(tensors[f"{m}.ids"])
        side = {
            "captions": [c for b in batches for c in b.captions],
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
        for name, tensor in tensors.items():
            modality, _, what = name.rpartition(".")
            if what == "positions":
                self._positions.setdefault(modality, tensor.clone())
            if what == "ids":
                self._having[modality] = self._having.get(modality, 0) + len(tensor)
        side = json.loads(self._side(number).read_text(encoding="utf-8"))
        self._left_out += [LeftOut(**item) for item in side["left_out"]]
        return True

    def _check(self, modality: str, place: Tensor) -> None:
        known = self._positions.setdefault(modality, place)
        if known.shape != place.shape or not torch.allclose(known, place, atol=CLOSE):
            raise UserError(differ(self._data, modality, len(known), len(place)))

    def _path(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.safetensors"

    def _side(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.json"


def sweep(folder: Path) -> None:
    """Remove what only an unfinished folder needs."""
    for leftover in [folder / DRAFT, *folder.glob("part-*.json"), *folder.glob("*.tmp")]:
        leftover.unlink(missing_ok=True)


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
