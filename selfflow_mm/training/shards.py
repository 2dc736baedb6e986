"""A process's pieces of a checkpoint, planned by torch.distributed.checkpoint and written as safetensors.

torch's own writer of this format makes each file in memory first, holding Python's lock meanwhile; a run that trains
beside it would stand still for that long, and need twice the room. safetensors writes from the tensors themselves and
holds no lock. What is written is the same, and torch's reader reads it.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageWriter, SavePlan, SavePlanner, save
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from selfflow_tokenizers.tensor_file import save_tensors

from ..weights.checkpoints import SHARDING

#: No file is larger, unless a single tensor is, so that what copies or stores checkpoints meets no giants.
LARGEST_FILE = 2 * 2**30


def write_shards(
    folder: Path, groups: list[str], tensors: Mapping[str, Tensor], process_group: Any = None, processes: int = 1
) -> None:
    """Write this process's pieces of ``tensors`` (on the CPU, no two in the same memory) into ``folder``, to disk.

    All processes of ``process_group`` call it; None is a single one.

    Raises:
        OSError, or what else went wrong in this process or another.
    """
    writer = _Writer(folder, file_numbers(groups, tensors, LARGEST_FILE * processes))
    expect_one_process()
    try:
        save(dict(tensors), storage_writer=writer, process_group=process_group, no_dist=process_group is None)
    except CheckpointException as error:
        failures = [failure for failure, _ in error.failures.values()]
        raise next((f for f in failures if isinstance(f, OSError)), failures[0]) from None


def file_numbers(groups: Iterable[str], tensors: Mapping[str, Tensor], largest: int) -> dict[str, int]:
    """Which file, from 1, each tensor goes to: every group has its own, several where it is over ``largest`` bytes."""
    numbers: dict[str, int] = {}
    number, size, before = 0, 0, None
    for key, tensor in tensors.items():
        group = max((g for g in groups if key.startswith(f"{g}.")), key=len)
        room = tensor.numel() * tensor.element_size()
        if group != before or size + room > largest:
            number, size, before = number + 1, 0, group
        numbers[key] = number
        size += room
    return numbers


def expect_one_process() -> None:
    """A run of one process needs no process group, which torch.distributed.checkpoint would remark upon."""
    # Once and for all threads: restoring the filters afterwards would race with the training's own.
    warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized", UserWarning)


class _Writer(HuggingFaceStorageWriter):
    """Its planning and names of files, with :func:`_save` for writing."""

    def __init__(self, folder: Path, numbers: dict[str, int]) -> None:
        super().__init__(str(folder), fqn_to_index_mapping=numbers, save_distributed=True)
        self._folder, self._numbers = folder, numbers

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        files: dict[int, dict[str, Any]] = {}
        for item in plan.items:
            assert item.index.fqn is not None and item.tensor_data is not None
            files.setdefault(self._numbers[item.index.fqn], {})[item.index.fqn] = item
        count = max(self._numbers.values(), default=0)
        results = []
        for number, items in sorted(files.items()):
            shard = plan.storage_data["shard_index"]
            file = self._folder / f"shard-{shard:05d}-model-{number:05d}-of-{count:05d}.safetensors"
            tensors = {fqn: _tensor(planner.resolve_data(item)) for fqn, item in items.items()}
            places = {fqn: {"saved_offsets": list(item.tensor_data.chunk.offsets)} for fqn, item in items.items()}
            _save(tensors, file, {"format": "pt", "DCP_VERSION": "1.0", SHARDING: json.dumps(places)})
            sizes = {fqn: tensor.numel() * tensor.element_size() for fqn, tensor in tensors.items()}
            results += [WriteResult(item.index, sizes[fqn], file.name) for fqn, item in items.items()]
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)  # the other kind are pickled objects, of which a checkpoint has none
    return value.detach().contiguous()


def _save(tensors: Mapping[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    """To disk, with an OSError where that fails, as anything else that writes would have."""
    try:
        save_tensors(tensors, file, metadata)
    except SafetensorError as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error
        raise
    with open(file, "rb") as written:
        os.fsync(written.fileno())
