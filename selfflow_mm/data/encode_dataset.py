"""Encoding a data set into a folder of latents: in parallel, going on after a kill, to the same bytes.

The samples are encoded in batches, in this process or in several, and come back in order; ``latent_parts`` keeps them.
What is written does not depend on the number of processes, nor on when the job was stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import UserError
from .encode_batch import BatchEncoder, EncodedBatch, Loader
from .latent_parts import LatentParts, replace_text, sweep
from .latents import DRAFT, FORMAT, STATE, VERSION, LatentDataset, read_about
from .parallel import Crash, available_cores, ordered_map
from .shards import ShardDataset

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
        UserError: the folder holds latents of other data or tokenizers; none can be encoded.
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
        differing = [k for k, v in wanted.items() if k != "version" and about.get(k, v) != v]
        if differing:
            raise UserError(
                f"{folder} holds latents of another {' and '.join(differing)}; remove the folder or name "
                f"another in data.latents"
            )
        sweep(folder)
        return LatentDataset(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder / DRAFT, wanted)
    encoder = BatchEncoder(data, tokenizers, sources or {}, load)
    written = LatentParts(folder, data, count)
    with tqdm(total=count, initial=written.done, desc=f"encoding {data.folder.name}", unit="sample") as progress:
        todo = list(written.todo())
        for ids, batch in zip(todo, _encoded(encoder, todo, workers), strict=True):
            written.add(ids, batch)
            progress.update(len(ids))
    names = {m: t.spec.name for m, t in tokenizers.items()}
    written.close(wanted | {"names": names})
    return LatentDataset(folder)


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
        replace_text(draft, json.dumps(wanted))
    elif json.loads(draft.read_text(encoding="utf-8")) != wanted:
        raise UserError(f"{draft.parent} holds half-encoded latents of other data or tokenizers; remove the folder")


def _contents(data: ShardDataset) -> str:
    """What tells a data set from another of the same name and number of samples: the start of SHA-256 over the keys of
    its samples and the places and sizes of their files.
    """
    digest = hashlib.sha256()
    for i in range(len(data)):
        digest.update(repr((data.key(i), sorted(data.members(i).places.items()))).encode())
    return digest.hexdigest()[:16]
