"""Writing checkpoints: beside the run while it trains on, whole or not at all, and which old ones stay.

All processes write their shards (``torch.distributed.checkpoint``, safetensors) into one hidden folder beside the
final one. The first process then lists them with sizes and checksums in ``state.json``, flushes everything to disk and
renames the folder into place. A run that is killed half-way leaves only a hidden folder, which no reader looks at and
the next save removes.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..weights.checkpoints import (
    FORMAT,
    STATE_FILE,
    VERSION,
    complete_checkpoints,
    latest_checkpoint,
    recover,
    sha256,
)
from .ranks import Ranks
from .retries import retrying
from .shards import write_shards
from .stopping import Stopped

_LEFTOVER = re.compile(r"^\.step-\d{6,}\.(tmp|old)$")


class CheckpointWriter:
    """Saves the checkpoints of one run; a context that waits for the last of them.

    Args:
        folder: where the checkpoints of the run lie; made if missing.
        keep: how many checkpoints up to the saved step stay, that one included; 0 keeps all.
        keep_every: checkpoints at multiples of so many steps stay, too; 0: none for that reason.
        background: :meth:`save` copies the tensors to host memory and returns, and a thread writes them. Otherwise it
            returns when everything is on disk.
        retry_seconds: a file system that fails is tried again for so long.
        ranks: of this process. All processes must call the same methods in the same order.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int = 2,
        keep_every: int = 0,
        background: bool = False,
        retry_seconds: float = 0.0,
        ranks: Ranks | None = None,
    ) -> None:
        self.folder, self.keep, self.keep_every = Path(folder), keep, keep_every
        self.retry_seconds, self.ranks = retry_seconds, ranks or Ranks()
        self._pool = ThreadPoolExecutor(1, "checkpoint") if background else None
        self._job: Future[Path] | None = None
        self._group: Any = None
        self._distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if self._distributed:  # of its own: the thread must not mix with what the training says to each other
            self._group = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=1))

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Write ``step-000123`` and remove older checkpoints, after the save before this one has ended.

        Args:
            step: optimiser steps done.
            tensors: group -> name -> tensor, such as ``{"model": model.state_dict(), "ema": ...}``; DTensors are stored
                shard by shard. They may change as soon as this returns.
            state: anything else that resuming needs, as JSON values; the first process's counts.

        Raises:
            UserError: this one, or the one before, cannot be written.
        """
        self.wait()
        copies = {f"{group}.{name}": _copy(t) for group, named in tensors.items() for name, t in named.items()}
        work = (step, list(tensors), copies, dict(state))
        if self._pool is None:
            self._write(*work)
        else:
            self._job = self._pool.submit(self._write, *work)

    @property
    def failed(self) -> bool:
        """Has a save in the background been given up? :meth:`wait` and :meth:`save` say why."""
        job = self._job
        return job is not None and job.done() and job.exception() is not None

    def wait(self) -> None:
        """Until everything that was saved is on disk.

        Raises:
            UserError: it cannot be written.
        """
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def check_room(self, size: int) -> str | None:
        """Look, before the first step, whether checkpoints of about ``size`` bytes can be written.

        Returns:
            a note, where fewer fit than are to be kept.

        Raises:
            UserError: the folder cannot be written to, or not even two fit: an old one must stay until a new one is
                whole.
        """
        probe = self.folder / ".probe.tmp"
        try:
            _clean(self.folder)  # what a kill left behind takes room
            probe.touch()
            probe.unlink()
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written to ({_reason(error)}); give another --out") from None
        have = len(complete_checkpoints(self.folder))
        wanted = max(1, self.keep + 1 - have)
        says = f"a checkpoint takes about {size / 1e9:.3g} GB and {self.folder} has {free / 1e9:.3g} GB left"
        if free < size * max(1, 2 - have):
            raise UserError(f"{says}, too little to write one beside another; make room or give another --out")
        if free < size * wanted:
            return f"note: {says}, less than the {wanted} more that run.keep={self.keep} asks for"
        return None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except UserError as failure:
            if kind is None or issubclass(kind, Stopped):  # which says that everything was saved
                raise
            warnings.warn(str(failure), stacklevel=2)  # what ended the run is told by its own error
        finally:
            if self._pool is not None:
                self._pool.shutdown()
            if self._group is not None:
                torch.distributed.destroy_process_group(self._group)

    def _write(self, step: int, groups: list[str], tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
        final = self.folder / f"step-{step:06d}"
        try:
            retrying(
                lambda: self._attempt(final, step, groups, tensors, state),
                seconds=self.retry_seconds,
                what=f"writing {final}",
            )
        except OSError as error:
            last = None
            if self.ranks.first:
                shutil.rmtree(_draft_of(final), ignore_errors=True)
                try:
                    last = latest_checkpoint(self.folder)
                except OSError:  # the folder itself is gone
                    pass
            tried = f" and was tried for {self.retry_seconds:g} s" if self.retry_seconds else ""
            raise UserError(
                f"the checkpoint of step {step} cannot be written to {self.folder}: {_reason(error)}{tried}; the last "
                f"good checkpoint is {last}; see to the folder, then go on with --resume"
            ) from error
        return final

    def _attempt(
        self, final: Path, step: int, groups: list[str], tensors: dict[str, Tensor], state: dict[str, Any]
    ) -> None:
        draft = _draft_of(final)
        self._together(lambda: self._begin(draft) if self.ranks.first else None)
        write_shards(draft, groups, tensors, self._group, self.ranks.world if self._distributed else 1)
        # Everyone reads its own files again: they are in its cache, where storage is shared over a network, too.
        mine = f"shard-{self.ranks.rank + 1 if self._distributed else 1:05d}-*"
        found = self._together(lambda: {file.name: _stated(file) for file in sorted(draft.glob(mine))})
        record = {
            "format": FORMAT,
            "version": VERSION,
            "step": step,
            "processes": len(found),
            "groups": groups,
            "files": {name: stated for part in found for name, stated in part.items()},
            "state": state,
        }
        self._together(lambda: self._commit(draft, final, step, record) if self.ranks.first else None)

    def _begin(self, draft: Path) -> None:
        _clean(self.folder)
        draft.mkdir()

    def _commit(self, draft: Path, final: Path, step: int, record: Mapping[str, Any]) -> None:
        # The state is written last and lists the rest, so that a folder copied half-way is recognised, too.
        (draft / STATE_FILE).write_text(json.dumps(record, indent=1, allow_nan=False))
        _flush(draft / STATE_FILE)
        _flush(draft)
        _put_in_place(draft, final)
        try:
            for old in superseded(complete_checkpoints(self.folder, up_to=step), self.keep, self.keep_every):
                _remove(old)
        except OSError as error:  # the new one is there, which is what matters
            warnings.warn(f"an old checkpoint in {self.folder} cannot be removed: {error}", stacklevel=2)

    def _together(self, action: Callable[[], Any]) -> list[Any]:
        """What ``action`` returns in every process; a process whose disk fails fails them all, so that all retry."""
        if not self._distributed:
            return [action()]
        result, problem = None, None
        try:
            result = action()
        except OSError as error:
            problem = (error.errno or errno.EIO, _reason(error), str(error.filename or self.folder))
        found: list[Any] = [None] * self.ranks.world
        torch.distributed.all_gather_object(found, (result, problem), group=self._group)
        if problems := [theirs for _, theirs in found if theirs]:
            raise OSError(*problems[0])
        return [part for part, _ in found]


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int = 2
) -> Path:
    """Write ``folder/step-000123`` atomically, now and in one attempt, and remove older ones; its folder.

    Arguments are those of :class:`CheckpointWriter` and its ``save``.
    """
    with CheckpointWriter(folder, keep=keep) as writer:
        writer.save(step, tensors, state)
    return Path(folder) / f"step-{step:06d}"


def superseded(checkpoints: Iterable[tuple[int, Path]], keep: int, keep_every: int) -> list[Path]:
    """Which of the checkpoints (by rising step) are neither of the last ``keep`` nor at a multiple of ``keep_every``.

    With ``keep`` 0 none is.
    """
    older = list(checkpoints)[:-keep] if keep > 0 else []
    return [path for step, path in older if not (keep_every and step % keep_every == 0)]


def _copy(tensor: Tensor) -> Tensor:
    """A copy in host memory, contiguous; of a DTensor its local shard is copied."""
    tensor = tensor.detach()
    if tensor.device.type == "cpu":
        return tensor.clone(memory_format=torch.contiguous_format)
    return tensor.cpu().contiguous()


def _stated(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _draft_of(final: Path) -> Path:
    return final.with_name(f".{final.name}.tmp")


def _clean(folder: Path) -> None:
    """Make the folder, or remove what a killed writer left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    recover(folder)
    for path in folder.iterdir():
        if _LEFTOVER.match(path.name):
            shutil.rmtree(path)


def _put_in_place(draft: Path, final: Path) -> None:
    """Rename the finished draft; a checkpoint of the same step steps aside and is removed afterwards."""
    aside = final.parent / f".{final.name}.old"
    if final.exists():
        os.rename(final, aside)
    os.rename(draft, final)
    _flush(final.parent)
    if aside.exists():
        _remove(aside)


def _remove(path: Path) -> None:
    """Remove a checkpoint so that a kill in the middle leaves only a hidden leftover."""
    hidden = path if path.name.startswith(".") else path.parent / f".{path.name}.tmp"
    if hidden != path:
        os.rename(path, hidden)
    shutil.rmtree(hidden)


def _flush(path: Path) -> None:
    """Force a file, or the names in a folder, to disk; a platform that cannot open folders (Windows) does without."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
