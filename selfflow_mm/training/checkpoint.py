"""Checkpoints in a run's memory: what they are restored into, and which one a run goes on from.

Reading them as files is ``weights/checkpoints.py``, writing them ``checkpoint_writing.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, load

from ..errors import UserError
from ..weights.checkpoints import (
    GroupTensors,
    altered_files,
    complete_checkpoints,
    latest_checkpoint,
    load_checkpoint,
    load_group,
    read_state,
    recover,
)
from .checkpoint_writing import save_checkpoint
from .ranks import Ranks
from .shards import expect_one_process

__all__ = [
    "checkpoint_to_resume",
    "latest_checkpoint",
    "load_checkpoint",
    "load_group",
    "load_optimizer_tensors",
    "optimizer_room",
    "optimizer_tensors",
    "read_state",
    "restore",
    "save_checkpoint",
]


def checkpoint_to_resume(folder: Path, ranks: Ranks | None = None) -> Path | None:
    """The newest checkpoint that is whole to the bit, or None where no checkpoint was ever written.

    Those that are not whole are passed over with a warning. All processes call it, and share the reading.

    Raises:
        UserError: there are checkpoints and none is whole; going on would begin the run anew.
    """
    folder, ranks = Path(folder), ranks or Ranks()
    if not folder.is_dir():
        return None
    if ranks.first:
        recover(folder)
    ranks.wait()
    for _, path in reversed(complete_checkpoints(folder)):
        record = read_state(path)
        share = sorted(record["files"])[ranks.rank :: ranks.world]
        altered = [
            name for found in ranks.gather({"files": altered_files(path, record, share)}) for name in found["files"]
        ]
        if not altered:
            return path
        warnings.warn(f"{path} is passed over: {altered[0]} has another SHA-256 than it was written with", stacklevel=2)
    if any(folder.glob("step-*")):
        raise UserError(f"no checkpoint in {folder} is whole, so the run cannot go on; remove them to begin it anew")
    return None


@torch.no_grad()
def restore(path: Path, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Fill tensors in place from a checkpoint, whichever number of processes wrote it.

    All processes call it with the same names. A tensor that is sharded over them (a DTensor) gets its shards, and only
    these are read. Checksums are not looked at: :func:`checkpoint_to_resume` has done so.

    Args:
        path: a checkpoint's folder.
        groups: group -> name -> tensor of the stored shape; the checkpoint may hold more groups.

    Raises:
        UserError: names or shapes are others than the checkpoint's.
    """
    version = read_state(path)["version"]
    for group, tensors in groups.items():
        held = GroupTensors(path, group, verify=False)
        if differing := set(held.names) ^ tensors.keys():
            name = min(differing)
            here = "only the model here has" if name in tensors else "the model here has not"
            raise UserError(f"{path} is of a model of another shape: {here} '{name}' in '{group}'")
        for name, tensor in tensors.items():
            if held.shape(name) != tuple(tensor.shape):
                shapes = f"{held.shape(name)} there, {tuple(tensor.shape)} here"
                raise UserError(f"{path} is of a model of another shape: '{name}' is {shapes}")
            if version == 1:
                _fill(tensor, held.read(name))
    if version == 1:
        return
    alone = not torch.distributed.is_initialized()
    flat = {f"{group}.{name}": tensor.detach() for group, tensors in groups.items() for name, tensor in tensors.items()}
    expect_one_process()
    load(flat, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=alone)


def _fill(tensor: Tensor, whole: Tensor) -> None:
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(tensor, DTensor):
        whole = whole.to(tensor.device)
        whole = distribute_tensor(whole, tensor.device_mesh, tensor.placements, src_data_rank=None)  # all have read it
    tensor.copy_(whole)


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
    stored = {key: (tuple(value.shape), value.dtype) for key, value in tensors.items()}
    for key, room in optimizer_room(optimizer, model, stored).items():
        room.copy_(tensors[key])


def optimizer_room(
    optimizer: torch.optim.Optimizer, model: nn.Module, stored: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
) -> dict[str, Tensor]:
    """Give the optimiser a state of zeros for every stored entry, sharded as its parameter; the caller fills it.

    Args:
        stored: ``<parameter>.<entry>`` -> shape and type.

    Returns:
        the state's own tensors by the same names.

    Raises:
        UserError: when an entry belongs to no parameter of this optimiser or has another shape.
    """
    parameters = _named_parameters(optimizer, model)
    # As torch.optim does: the step counter stays on the CPU unless a fused or capturable kernel reads it.
    on_device = {id(p): g.get("fused") or g.get("capturable") for g in optimizer.param_groups for p in g["params"]}
    room: dict[str, Tensor] = {}
    states: dict[str, dict[str, Tensor]] = {}
    for key, (shape, dtype) in stored.items():
        name, _, entry = key.rpartition(".")
        if name not in parameters:
            raise UserError(f"the optimiser state has '{key}', but the model trains no parameter '{name}'")
        parameter = parameters[name]
        if shape and shape != tuple(parameter.shape):
            shapes = f"{shape}, the parameter {tuple(parameter.shape)}"
            raise UserError(f"the optimiser state '{key}' has shape {shapes}")
        stays = entry == "step" and not on_device[id(parameter)]
        if shape:
            value = torch.zeros_like(parameter.detach(), dtype=dtype)
        else:
            value = torch.zeros((), dtype=dtype, device="cpu" if stays else parameter.device)
        room[key] = states.setdefault(name, {})[entry] = value
    optimizer.state.clear()
    for name, state in states.items():
        optimizer.state[parameters[name]] = state
    return room


def _named_parameters(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, nn.Parameter]:
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    named = {name: p for name, p in model.named_parameters() if id(p) in trained}
    if len(named) != len(trained):
        raise ValueError("the optimiser trains parameters that are not the model's")
    return named
