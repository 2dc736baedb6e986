"""Memory: what a measurement will need, what there is, and what one call took at its peak."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import UserError
from .timing import synchronize

FLOAT32 = 4
#: What allocators, libraries and the interpreter take beside the tensors, in bytes.
OVERHEAD = 2**29


@dataclass(frozen=True)
class Peak:
    """The most memory in use during a call.

    Attributes:
        total: bytes, everything included (weights, optimizer; on a CPU the interpreter and its libraries too).
        above: of them, bytes that were not in use before the call: activations, temporaries, new gradients.
        how: the way it was measured.
    """

    total: int
    above: int
    how: str


def available(device: torch.device) -> int | None:
    """Bytes a process can still take on ``device``; None where there is no way to know."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    found = [b for b in (_meminfo(), _cgroup()) if b is not None]
    if found:
        return min(found)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def needed(parameters: int, *, train: bool, copies: int, activations: int) -> int:
    """Estimate in bytes.

    Args:
        parameters: of one model; all are float32.
        train: gradients, two AdamW moments and the EMA come on top.
        copies: further sets of weights (the reference's, say).
        activations: bytes, see :func:`activation_bytes`.
    """
    return FLOAT32 * parameters * (1 + copies + (4 if train else 0)) + activations + OVERHEAD


def activation_bytes(
    width: int, hidden: int, depth: int, tokens: int, *, each: float, bytes_per_value: int, train: bool, recompute: bool
) -> int:
    """Rough bytes of activations.

    Args:
        width, hidden, depth: of the model; ``hidden`` is the feed-forward's.
        tokens: of the whole batch.
        each: widths a modulation per token keeps for each token and block of the expanded form.
        bytes_per_value: of matrix products' inputs; the residual stream is float32.
        train: whether a backward pass keeps them for all blocks, or only one block's are alive.
        recompute: whether a block keeps its input only.
    """
    block = round(tokens * ((5 * width + 3 * hidden) * bytes_per_value + (6 + each) * width * FLOAT32))
    if not train:
        return 2 * block
    return depth * tokens * width * FLOAT32 + 2 * block if recompute else (depth + 1) * block


def refuse_what_does_not_fit(what: str, need: int, device: torch.device, hint: str = "") -> None:
    """Say so before anything is allocated; ``hint`` is one more way out.

    Raises:
        UserError: ``what`` needs more memory than ``device`` has left.
    """
    there = available(device)
    if there is not None and need > there:
        raise UserError(
            f"{what} needs about {gigabytes(need)} of memory and {device} has {gigabytes(there)} left; take a smaller "
            f"--preset, --batch or --tokens{hint}"
        )


def measure(action: Callable[[], object], device: torch.device) -> Peak | None:
    """Peak memory of one call; None where there is no way to measure it.

    CUDA: of the allocator, ``max_memory_allocated``. CPU: resident memory of this process as the kernel counts it,
    which is clean in a process that has done nothing else (see ``child``).
    """
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        synchronize(device)
        total = torch.cuda.max_memory_allocated(device)
        return Peak(total, total - before, "CUDA allocator")
    if device.type != "cpu":
        return None
    _trim()
    fresh = _forget_peak()
    before = _status("VmRSS")
    action()
    total = _status("VmHWM") if fresh else _maximum_resident()
    return Peak(total, max(0, total - before), "peak resident memory of a process of its own")


def resident() -> int:
    """Bytes of this process that are in memory (Linux); freed memory is given back to the system before."""
    _trim()
    return _status("VmRSS")


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _trim() -> None:
    """Hand freed memory that the allocator keeps back to the system, or a call that uses it again would look free."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # another libc
        pass


def _forget_peak() -> bool:
    """Let the kernel count this process's peak anew (Linux); building the model may have needed more than running."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    """A line of /proc/self/status in bytes; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name + ":")), 0)


def _maximum_resident() -> int:
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup() -> int | None:
    """What a container may still take (cgroup v2)."""
    root = Path("/sys/fs/cgroup")
    try:
        limit, used = (root / "memory.max").read_text().strip(), int((root / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)
