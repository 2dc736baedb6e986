"""Writing clips that a program makes, number after number, to the shards that training reads."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from selfflow_mm.data.shards import ShardWriter
from selfflow_mm.errors import UserError

#: A shard sample: its key, its files by ending, and its JSON.
EncodedClip = tuple[str, dict[str, bytes], dict[str, Any]]


def write_clips(
    folder: str | Path,
    make: Callable[[int], EncodedClip],
    clips: int,
    *,
    seed: int,
    start: int = 0,
    workers: int = 1,
    info: dict[str, Any],
    progress: bool = True,
) -> None:
    """Write the clips ``make(start)`` to ``make(start + clips - 1)`` into a new data set folder.

    The bytes of the shards do not depend on ``workers``. The folder appears when it is complete; until then a hidden
    folder beside it holds the work, which an error or an interruption removes.

    Args:
        make: an encoded clip from its index; picklable, so that several processes can call it.
        seed: the world's; only checked here.
        info: what ``dataset.json`` says beside the counts.

    Raises:
        UserError: the folder exists and is not empty, or a number is out of range.
    """
    if clips < 1 or workers < 1 or start < 0 or not 0 <= seed < 2**64:
        raise UserError(
            f"a world needs clips >= 1, workers >= 1, start >= 0 and 0 <= seed < 2**64; "
            f"got clips={clips}, workers={workers}, start={start}, seed={seed}"
        )
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"'{folder}' exists and is not an empty folder; give another --out or remove it first")
    with _beside(folder) as unfinished, ShardWriter(unfinished, info=info) as writer:
        samples = _encoded(make, range(start, start + clips), min(workers, clips))
        for key, files, meta in tqdm(samples, total=clips, unit="clip", desc="make-world", disable=not progress):
            writer.add(key, files, meta)


def _encoded(make: Callable[[int], EncodedClip], indices: range, workers: int) -> Iterator[EncodedClip]:
    """Encoded clips in the order of their indices."""
    if workers == 1:
        yield from map(make, indices)
        return
    # "spawn": forking a process in which torch already runs threads can hang.
    with multiprocessing.get_context("spawn").Pool(workers, _start_worker) as pool:
        yield from pool.imap(make, indices, chunksize=8)


def _start_worker() -> None:
    torch.set_num_threads(1)  # the parallelism is over clips
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the workers


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A hidden folder next to ``folder`` that takes its place when the block succeeds and vanishes when it fails."""
    unfinished = folder.absolute().with_name(f".{folder.absolute().name}.{os.getpid()}.tmp")
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot make a folder at '{folder}' ({error.strerror}); give another --out") from error
    try:
        yield unfinished
        if folder.exists():
            folder.rmdir()  # it is empty
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
