"""Checkpoints of training runs as files: which there are, whether they are whole, and their tensors.

``checkpoints/step-000123/`` holds safetensors and a ``state.json`` that lists them (format, version, step, sizes,
SHA-256, the run's place in its data). Version 2 is what ``torch.distributed.checkpoint`` writes: every process its own
shards, with keys ``<group>.<name>`` (groups ``model``, ``ema``, ``optimizer``, ...) and each piece's offsets in the
metadata. Version 1 had a file for each group. Both are read here without torch.distributed, by one process, whichever
number of them wrote. Training writes them (``training/checkpoint_writing.py``).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError

FORMAT, VERSION = "selfflow-checkpoint", 2
READABLE = (1, 2)
STATE_FILE = "state.json"
#: Where torch.distributed.checkpoint says at which offsets of the whole tensor a shard's piece lies.
SHARDING = "DCP_SHARDING_INFO"
_STEP = re.compile(r"^step-(\d{6,})$")
_REPLACED = re.compile(r"^\.(step-\d{6,})\.old$")


def read_state(path: Path) -> dict[str, Any]:
    """A checkpoint's state.json (format, version, step, groups, files, state) without reading its tensors.

    Raises:
        UserError: the folder is no checkpoint, or one of a version that this release cannot read.
    """
    path = Path(path)
    if not (path / STATE_FILE).is_file():
        raise UserError(f"{path} is not a checkpoint: it has no {STATE_FILE}; give one like checkpoints/step-000123")
    try:
        record = json.loads((path / STATE_FILE).read_text())
    except ValueError as error:
        raise UserError(f"{path / STATE_FILE}: the checkpoint is broken: {error}; use an earlier one") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of ours: {STATE_FILE} does not say '{FORMAT}'")
    if record.get("version") not in READABLE:
        raise UserError(
            f"{path}: a checkpoint of version {record.get('version')} cannot be read; this release reads "
            f"{' and '.join(map(str, READABLE))}"
        )
    return record


def group_names(record: Mapping[str, Any]) -> list[str]:
    """The groups of tensors that a checkpoint holds."""
    if record["version"] == 1:
        return [name.removesuffix(".safetensors") for name in record["files"]]
    return list(record["groups"])


def complete_checkpoints(folder: Path, up_to: int | None = None) -> list[tuple[int, Path]]:
    """Steps and folders of the checkpoints that are complete, by rising step; others are passed over with a warning.

    Files are there and have their sizes; checksums, which take reading everything, are not looked at.
    """
    found: list[tuple[int, Path]] = []
    for path in Path(folder).iterdir():
        match = _STEP.match(path.name)
        if not match or (up_to is not None and int(match[1]) > up_to):
            continue
        try:
            problem = _missing(path, read_state(path))
        except UserError as error:
            problem = str(error)
        if problem:
            warnings.warn(f"{path} is passed over: {problem}", stacklevel=3)
        else:
            found.append((int(match[1]), path))
    return sorted(found)


def latest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the highest step, or None; an incomplete one is passed over with a warning."""
    folder = Path(folder)
    if not folder.is_dir():
        return None
    recover(folder)
    found = complete_checkpoints(folder)
    return found[-1][1] if found else None


def recover(folder: Path) -> None:
    """Put back a checkpoint that stepped aside for one that never arrived, as the writer was killed between."""
    for path in folder.iterdir():
        match = _REPLACED.match(path.name)
        if match and not (folder / match[1]).exists():
            os.rename(path, folder / match[1])


def altered_files(path: Path, record: Mapping[str, Any], files: Iterable[str] | None = None) -> list[str]:
    """Those of a checkpoint's files whose SHA-256 is not the recorded one; version 1 recorded none.

    Args:
        files: look at these only.
    """
    return [
        name
        for name in (record["files"] if files is None else files)
        if record["version"] > 1 and sha256(path / name) != record["files"][name]["sha256"]
    ]


def sha256(file: Path) -> str:
    """In hexadecimal."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_checkpoint(path: Path) -> tuple[int, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read a checkpoint folder: its step, its tensors (whole, on the CPU) by group and name, and its state.

    Raises:
        UserError: the folder is no checkpoint, is incomplete or altered, or has a version this release cannot read.
    """
    path = Path(path)
    record = read_state(path)
    refuse_broken(path, record)
    tensors = {group: load_group(path, group, verify=False) for group in group_names(record)}
    return int(record["step"]), tensors, record["state"]


def load_group(path: Path, group: str, *, verify: bool = True) -> dict[str, Tensor]:
    """The tensors of one group, whole and on the CPU; no more than these is in memory.

    Args:
        path: a checkpoint's folder.
        group: such as ``model`` or ``ema``.
        verify: look at the checksums of the files that hold them.

    Raises:
        UserError: as :func:`load_checkpoint`, or there is no such group.
    """
    tensors = GroupTensors(path, group, verify=verify)
    return {name: tensors.read(name) for name in tensors.names}


@dataclass(frozen=True)
class _Piece:
    """A part of a tensor in a file: where it begins in the whole one, and its size."""

    file: Path
    key: str
    offsets: tuple[int, ...]
    shape: tuple[int, ...]


class GroupTensors:
    """The tensors of one group of a checkpoint by name, read when asked for; nothing is kept.

    Args:
        path: a checkpoint's folder.
        group: such as ``ema``.
        verify: look at the checksums of the files that hold the group.

    Raises:
        UserError: no such group, or the checkpoint is broken.
    """

    def __init__(self, path: Path, group: str, *, verify: bool = True) -> None:
        self.path = path = Path(path)
        record = read_state(path)
        groups = group_names(record)
        if group not in groups:
            raise UserError(f"{path} holds no '{group}'; it holds {', '.join(groups)}")
        refuse_broken(path, record, ())
        self._files: dict[Path, Any] = {}
        self._pieces: dict[str, list[_Piece]] = {}
        names = [f"{group}.safetensors"] if record["version"] == 1 else list(record["files"])
        for name in names:
            self._index(path / name, None if record["version"] == 1 else groups, group)
        if verify:
            held = {piece.file.name for pieces in self._pieces.values() for piece in pieces}
            refuse_broken(path, record, sorted(held))

    def _index(self, file: Path, groups: Sequence[str] | None, wanted: str) -> None:
        try:
            opened = safe_open(file, framework="pt")
            about = opened.metadata() or {}
            places = json.loads(about.get(SHARDING, "{}"))
            for key in opened.keys():
                if groups is not None and _group_of(key, groups) != wanted:
                    continue
                shape = tuple(opened.get_slice(key).get_shape())
                offsets = tuple(places[key]["saved_offsets"]) if key in places else (0,) * len(shape)
                name = key if groups is None else key[len(wanted) + 1 :]
                self._pieces.setdefault(name, []).append(_Piece(file, key, offsets, shape))
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise UserError(f"{file}: the checkpoint is broken: {error}; {_earlier(self.path)}") from error
        self._files[file] = opened

    @property
    def names(self) -> list[str]:
        return list(self._pieces)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor."""
        pieces = self._pieces[name]
        return tuple(max(p.offsets[d] + p.shape[d] for p in pieces) for d in range(len(pieces[0].shape)))

    def dtype(self, name: str) -> torch.dtype:
        """Its type of numbers."""
        return _DTYPES[self.kind(name)]

    def kind(self, name: str) -> str:
        """Its type of numbers as safetensors calls it, such as ``F32``."""
        piece = self._pieces[name][0]
        return str(self._files[piece.file].get_slice(piece.key).get_dtype())

    def read(self, name: str) -> Tensor:
        """The whole tensor."""
        pieces, shape = self._pieces[name], self.shape(name)
        if len(pieces) == 1 and pieces[0].shape == shape:
            return self._files[pieces[0].file].get_tensor(pieces[0].key)
        if sum(math.prod(p.shape) for p in pieces) != math.prod(shape):
            raise UserError(f"{self.path}: the checkpoint is broken: the pieces of '{name}' do not make a whole")
        whole = torch.empty(shape, dtype=self.dtype(name))
        for p in pieces:
            room = tuple(slice(start, start + size) for start, size in zip(p.offsets, p.shape, strict=True))
            whole[room] = self._files[p.file].get_tensor(p.key)
        return whole


_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def refuse_broken(path: Path, record: Mapping[str, Any], files: Iterable[str] | None = None) -> None:
    """UserError where files are missing, cut or altered; of ``files`` alone (all: None) the checksums are looked at."""
    problem = _missing(path, record)
    if not problem and (altered := altered_files(path, record, files)):
        problem = f"{altered[0]} has another SHA-256 than it was written with"
    if problem:
        raise UserError(f"{path}: the checkpoint is broken: {problem}; {_earlier(path)}")


def _missing(path: Path, record: Mapping[str, Any]) -> str | None:
    """What is missing from a checkpoint that says it holds certain files, or None."""
    for name, stated in record["files"].items():
        file, size = path / name, stated["bytes"] if isinstance(stated, dict) else stated
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
    return None


def _earlier(path: Path) -> str:
    """Which checkpoint to take in place of a broken one."""
    match = _STEP.match(path.name)
    if match and path.parent.is_dir():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            others = complete_checkpoints(path.parent, up_to=int(match[1]) - 1)
        for _, other in reversed(others):
            if not altered_files(other, read_state(other)):
                return f"use {other.name} before it, which is whole"
    return "there is no earlier one that is whole"


def _group_of(key: str, groups: Iterable[str]) -> str | None:
    """The group that a key belongs to; names of groups may have dots."""
    return max((g for g in groups if key.startswith(f"{g}.")), key=len, default=None)
