"""Checkpoints: a folder of safetensors and a state.json per step, which is there whole or not at all.

Everything is written into a hidden folder beside the final one, flushed to disk and renamed into place. A run that
is killed half-way leaves only a hidden folder, which no reader looks at and the next save removes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from selfflow_tokenizers.tensor_file import save_tensors

from ..errors import UserError

FORMAT = "selfflow-checkpoint"
VERSION = 1
STATE_FILE = "state.json"
_STEP = re.compile(r"^step-(\d{6,})$")
_LEFTOVER = re.compile(r"^\.step-\d{6,}\.tmp$")
_REPLACED = re.compile(r"^\.(step-\d{6,})\.old$")


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int = 2
) -> Path:
    """Write ``folder/step-000123`` atomically and remove older checkpoints.

    Args:
        folder: where the checkpoints of one run lie; made if missing.
        step: optimiser steps done.
        tensors: one safetensors file per entry, such as ``{"model": model.state_dict(), "ema": ...}``.
        state: anything else that resuming needs, as JSON values.
        keep: how many checkpoints up to this step stay (this one included); 0 keeps all.

    Returns:
        the checkpoint's folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _recover(folder)
    _remove_leftovers(folder)
    final = folder / f"step-{step:06d}"
    draft = folder / f".{final.name}.tmp"
    draft.mkdir()
    sizes: dict[str, int] = {}
    for name, group in tensors.items():
        file = draft / f"{name}.safetensors"
        save_tensors(_storable(group), file, metadata={"format": "pt"})
        _flush(file)
        sizes[file.name] = file.stat().st_size
    # The state is written last and lists the rest, so that a folder copied half-way is recognised, too.
    record = {"format": FORMAT, "version": VERSION, "step": step, "files": sizes, "state": dict(state)}
    (draft / STATE_FILE).write_text(json.dumps(record, indent=1, allow_nan=False))
    _flush(draft / STATE_FILE)
    _flush(draft)
    _put_in_place(draft, final)
    if keep > 0:
        for _, old in _complete(folder, up_to=step)[:-keep]:
            _remove(old)
    return final


def latest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the highest step, or None; an incomplete one is passed over with a warning."""
    folder = Path(folder)
    if not folder.is_dir():
        return None
    _recover(folder)
    found = _complete(folder)
    return found[-1][1] if found else None


def load_checkpoint(path: Path) -> tuple[int, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read a checkpoint folder: its step, its tensors (on the CPU) by file and name, and its state.

    Raises:
        UserError: when the folder is no checkpoint, is incomplete, or has a version this release cannot read.
    """
    path = Path(path)
    record = read_state(path)
    problem = _problem(path, record)
    if problem:
        raise UserError(f"{path}: the checkpoint is broken: {problem}; use an earlier one")
    tensors: dict[str, dict[str, Tensor]] = {}
    for name in record["files"]:
        try:
            tensors[name.removesuffix(".safetensors")] = load_file(path / name)
        except SafetensorError as error:
            raise UserError(f"{path / name}: the checkpoint is broken: {error}; use an earlier one") from error
    return int(record["step"]), tensors, record["state"]


def read_state(path: Path) -> dict[str, Any]:
    """A checkpoint's state.json (format, version, step, files, state) without reading its tensors."""
    path = Path(path)
    if not (path / STATE_FILE).is_file():
        raise UserError(f"{path} is not a checkpoint: it has no {STATE_FILE}; give one like checkpoints/step-000123")
    try:
        record = json.loads((path / STATE_FILE).read_text())
    except ValueError as error:
        raise UserError(f"{path / STATE_FILE}: the checkpoint is broken: {error}; use an earlier one") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of ours: {STATE_FILE} does not say '{FORMAT}'")
    if record.get("version") != VERSION:
        version = record.get("version")
        raise UserError(f"{path}: a checkpoint of version {version} cannot be read; this release reads {VERSION}")
    return record


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's per-parameter state as ``{"<parameter>.<entry>": tensor}``, such as ``blocks.0.weight.exp_avg``.

    Hyper-parameters (learning rate and the like) are not in it: they come from the configuration and the step.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in _named_parameters(optimizer, model).items():
        for entry, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}.{entry}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return tensors


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` gave, bit for bit; a parameter without entries starts afresh.

    Raises:
        UserError: when an entry belongs to no parameter of this optimiser or has another shape.
    """
    parameters = _named_parameters(optimizer, model)
    # As torch.optim does: the step counter stays on the CPU unless a fused or capturable kernel reads it.
    on_device = {id(p): g.get("fused") or g.get("capturable") for g in optimizer.param_groups for p in g["params"]}
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, entry = key.rpartition(".")
        if name not in parameters:
            raise UserError(f"the optimiser state has '{key}', but the model trains no parameter '{name}'")
        parameter = parameters[name]
        if value.ndim and value.shape != parameter.shape:
            shapes = f"{tuple(value.shape)}, the parameter {tuple(parameter.shape)}"
            raise UserError(f"the optimiser state '{key}' has shape {shapes}")
        stays = entry == "step" and not on_device[id(parameter)]
        # A copy, because the optimiser updates its state in place.
        states.setdefault(name, {})[entry] = value.detach().to("cpu" if stays else parameter.device, copy=True)
    optimizer.state.clear()
    for name, state in states.items():
        optimizer.state[parameters[name]] = state


def _named_parameters(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, nn.Parameter]:
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    named = {name: p for name, p in model.named_parameters() if id(p) in trained}
    if len(named) != len(trained):
        raise ValueError("the optimiser trains parameters that are not the model's")
    return named


def _storable(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached contiguous CPU tensors with memory of their own, as safetensors wants them."""
    seen: set[int] = set()
    result: dict[str, Tensor] = {}
    for name, tensor in group.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        result[name] = tensor
    return result


def _complete(folder: Path, up_to: int | None = None) -> list[tuple[int, Path]]:
    """Complete checkpoints by rising step."""
    found: list[tuple[int, Path]] = []
    for path in folder.iterdir():
        match = _STEP.match(path.name)
        if not match or (up_to is not None and int(match[1]) > up_to):
            continue
        try:
            problem = _problem(path, read_state(path))
        except UserError as error:
            problem = str(error)
        if problem:
            warnings.warn(f"{path} is passed over: {problem}", stacklevel=3)
        else:
            found.append((int(match[1]), path))
    return sorted(found)


def _problem(path: Path, record: Mapping[str, Any]) -> str | None:
    """What is missing from a checkpoint that says it holds certain files, or None."""
    for name, size in record["files"].items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
    return None


def _put_in_place(draft: Path, final: Path) -> None:
    """Rename the finished draft; a checkpoint of the same step steps aside and is removed afterwards."""
    aside = final.parent / f".{final.name}.old"
    if final.exists():
        os.rename(final, aside)
    os.rename(draft, final)
    _flush(final.parent)
    if aside.exists():
        _remove(aside)


def _recover(folder: Path) -> None:
    """Put back a checkpoint that stepped aside for one that never arrived."""
    for path in folder.iterdir():
        match = _REPLACED.match(path.name)
        if match and not (folder / match[1]).exists():
            os.rename(path, folder / match[1])


def _remove_leftovers(folder: Path) -> None:
    for path in folder.iterdir():
        if _LEFTOVER.match(path.name) or _REPLACED.match(path.name):
            shutil.rmtree(path)


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
