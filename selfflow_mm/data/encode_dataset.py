"""Encoding a data set into a folder of latents: in parallel, going on after a kill, to the same bytes.

The samples are encoded in batches of ``BATCH``, in this process or in several, and come back in order; every ``PART``
of them are written as one part. A part counts when both its tensors and its json beside them are there, so a job that
was stopped does again at most the samples of one part. What is written does not depend on the number of processes, nor
on when it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from selfflow_tokenizers.tensor_file import save_tensors

from ..errors import UserError
from .encode_batch import CLOSE, BatchEncoder, EncodedBatch, Loader, differ
from .latents import CAPTIONS, DRAFT, FORMAT, POSITIONS, QUARANTINE, STATE, VERSION, LatentDataset, LeftOut, read_about
from .parallel import Crash, available_cores, ordered_map
from .shards import ShardDataset
from .sizes import sizes_of

PART, BATCH = 256, 16
#: When not one of so many samples could be encoded, the fault is hardly theirs.
_HOPELESS = 64
#: Batches that are decoded ahead of the one that is encoded, where one process does both.
_AHEAD = 2


def encode_dataset(
    data: ShardDataset,
    tokenizers: Mapping[str, Any],
    hashes: Mapping[str, str],
    folder: Path,
    max_samples: int = 0,
    *,
    workers: int = 0,
    sources: Mapping[str, str] | None = None,
    load: Loader | None = None,
) -> LatentDataset:
    """Encode ``data`` into ``folder``, or open it when it holds the same thing already.

    Samples that cannot be decoded or encoded are left out and listed in ``quarantine.jsonl``.

    Args:
        tokenizers: modality -> tokenizer. ``image`` of a video without stills is one frame of it, drawn by the
            sample's id.
        hashes: modality -> :func:`~selfflow_mm.data.latents.fingerprint` of its tokenizer.
        max_samples: only the first so many; 0 for all.
        workers: processes that decode and encode, each on one thread; 0 encodes here and decodes in threads.
        sources, load: modality -> what ``load`` makes its tokenizer of, for those processes.

    Raises:
        UserError: the folder holds latents of other data or tokenizers; samples differ in shape; none can be encoded.
    """
    count = min(len(data), max_samples) if max_samples else len(data)
    wanted = {
        "format": FORMAT,
        "version": VERSION,
        "data": str(data.folder),
        "contents": _contents(data),
        "samples": count,
        "tokenizers": dict(hashes),
    }
    if (folder / STATE).exists():
        about = read_about(folder)
        differing = [k for k, v in wanted.items() if about.get(k, v) != v]
        if differing:
            raise UserError(
                f"{folder} holds latents of another {' and '.join(differing)}; remove the folder or name "
                f"another in data.latents"
            )
        _sweep(folder)
        return LatentDataset(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder / DRAFT, wanted)
    encoder = BatchEncoder(data, tokenizers, sources or {}, load)
    written = _Parts(folder, data, count)
    with tqdm(total=count, initial=written.done, desc=f"encoding {data.folder.name}", unit="sample") as progress:
        todo = [range(i, min(i + BATCH, written.end_of_part(i))) for i in written.starts()]
        for ids, batch in zip(todo, _encoded(encoder, todo, workers), strict=True):
            written.add(ids, batch)
            progress.update(len(ids))
    names = {m: t.spec.name for m, t in tokenizers.items()}
    written.close(wanted | {"names": names})
    return LatentDataset(folder)


class _Parts:
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

    def starts(self) -> Iterator[int]:
        """The first samples of the batches that are to be encoded. No batch is in two parts."""
        for part in range(self.done, self._count, PART):
            yield from range(part, self.end_of_part(part), BATCH)

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
        _replace(folder / CAPTIONS, "".join(json.dumps(c, ensure_ascii=False) + "\n" for c in texts))
        _save(self._positions, folder / POSITIONS)
        if self._left_out:
            lines = [json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in self._left_out]
            _replace(folder / QUARANTINE, "".join(lines))
        left_out = {item.id for item in self._left_out}
        rest = {
            "sizes": sizes_of(self._data, left_out),
            "having": dict(sorted(self._having.items())),
            "left_out": len(left_out),
            "parts": parts,
        }
        _replace(folder / STATE, json.dumps(about | rest, indent=1))
        _sweep(folder)

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
        _replace(self._side(number), json.dumps(side, ensure_ascii=False))

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


def _encoded(encoder: BatchEncoder, todo: list[range], workers: int) -> Iterator[EncodedBatch]:
    """The batches, encoded, in order."""
    if not workers:
        yield from _encoded_here(encoder, todo)
        return
    preload = [BatchEncoder.__module__, "selfflow_tokenizers"]
    for ids, result in zip(todo, ordered_map(encoder, todo, workers, preload), strict=True):
        yield _without_the_deadly(encoder, ids) if isinstance(result, Crash) else result


def _encoded_here(encoder: BatchEncoder, todo: list[range]) -> Iterator[EncodedBatch]:
    """Threads decode (decoders release the interpreter's lock) while this one encodes."""
    with ThreadPoolExecutor(available_cores()) as pool:
        waiting: deque[list[Future[Any]]] = deque()
        coming = iter(todo)
        try:
            while True:
                while len(waiting) <= _AHEAD and (ids := next(coming, None)) is not None:
                    waiting.append([pool.submit(encoder.read, i) for i in ids])
                if not waiting:
                    return
                yield encoder.encode([future.result() for future in waiting.popleft()])
        finally:
            pool.shutdown(cancel_futures=True)


def _without_the_deadly(encoder: BatchEncoder, ids: range) -> EncodedBatch:
    """A process died of a batch: find the samples that it dies of, one by one, and encode the others.

    Raises:
        UserError: it dies of none of them alone.
    """
    alone = ordered_map(encoder, [range(i, i + 1) for i in ids], 1)
    deadly = {i for i, result in zip(ids, alone, strict=True) if isinstance(result, Crash)}
    encoder.deadly |= deadly
    (found,) = ordered_map(encoder, [ids], 1)
    if not deadly or isinstance(found, Crash):
        raise UserError(
            f"the process that encoded samples {ids.start} to {ids.stop - 1} of {encoder.data.folder} died, with too "
            "little memory perhaps; take fewer --workers, and the job goes on where it was"
        )
    return found


def _claim(draft: Path, wanted: dict[str, Any]) -> None:
    """Write down what the folder will hold, or see that it is what was begun.

    Raises:
        UserError: something else was begun, or lies there.
    """
    if not draft.exists():
        if foreign := sorted(
            p.name for p in draft.parent.iterdir() if p.suffix != ".tmp" and not p.name.startswith(".")
        ):
            raise UserError(
                f"{draft.parent} is not empty and holds no latents, but {', '.join(foreign[:4])}; name another folder"
            )
        _replace(draft, json.dumps(wanted))
    elif json.loads(draft.read_text(encoding="utf-8")) != wanted:
        raise UserError(f"{draft.parent} holds half-encoded latents of other data or tokenizers; remove the folder")


def _sweep(folder: Path) -> None:
    """Remove what only an unfinished folder needs."""
    for leftover in [folder / DRAFT, *folder.glob("part-*.json"), *folder.glob("*.tmp")]:
        leftover.unlink(missing_ok=True)


def _contents(data: ShardDataset) -> str:
    """What tells a data set from another of the same name and number of samples: the start of SHA-256 over the keys of
    its samples and the places and sizes of their files.
    """
    digest = hashlib.sha256()
    for i in range(len(data)):
        digest.update(repr((data.key(i), sorted(data.members(i).places.items()))).encode())
    return digest.hexdigest()[:16]


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    beside = path.with_name(path.name + ".tmp")
    save_tensors(tensors, beside)
    _put(beside, path)


def _replace(path: Path, text: str) -> None:
    """Write a file beside its place and rename it."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    _put(beside, path)


def _put(beside: Path, path: Path) -> None:
    with open(beside, "rb") as file:
        os.fsync(file.fileno())  # or a power cut could leave the name without the contents
    os.replace(beside, path)
