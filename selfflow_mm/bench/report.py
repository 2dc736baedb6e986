"""What a benchmark found, as data that JSON can hold and tables can be made from."""

from __future__ import annotations

import datetime
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .plan import Plan
from .rate import Rate

FORMAT, VERSION = "selfflow-bench", 1


@dataclass(frozen=True)
class Row:
    """One form of one job.

    Attributes:
        form: its name.
        seconds: median over rounds of one call.
        spread: half the distance between the slowest and fastest round over the median.
        rounds: seconds of one call in each round.
        ratio: how many times longer than the first form it took (median of the rounds' ratios).
        flops_per_second: the model's operations over the seconds. Those of the grouped form count for every form: what
            a form computes beyond them is no work of the model.
        mfu: of them, the share of the matrix rate.
        peak_bytes, above_bytes: most memory in use, and the part of it that was not in use before the call; None where
            it was not measured.
        difference: largest absolute difference of its output from the first form's.
    """

    form: str
    seconds: float
    spread: float
    rounds: tuple[float, ...]
    ratio: float
    flops_per_second: float
    mfu: float
    peak_bytes: int | None
    above_bytes: int | None
    difference: float


@dataclass(frozen=True)
class Job:
    """One thing measured.

    Attributes:
        what: ``forward``, ``train`` or ``sample``.
        model_flops: operations of one call, the whole batch.
        compared: what ``difference`` is a difference of.
        magnitude: the largest absolute value of that.
        rows: ours first.
    """

    what: str
    model_flops: int
    compared: str
    magnitude: float
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Report:
    """A whole run of ``bench model``.

    Attributes:
        machine: see :func:`machine`.
        plan: what was asked for.
        parameters: of the network, the projector included.
        dtype: of matrix products.
        rate: matrix rate, the better of before and after.
        memory_method: how peaks were measured.
        jobs: what was found.
    """

    machine: dict[str, Any]
    plan: Plan
    parameters: int
    dtype: str
    rate: Rate
    memory_method: str
    jobs: tuple[Job, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values under a format name and version."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


def machine(device: torch.device, command: Sequence[str] | None = None) -> dict[str, Any]:
    """What was measured on, when and by which command."""
    words = list(sys.argv if command is None else command)
    words[:1] = [Path(words[0]).name] if words else []
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now().astimezone().date().isoformat(),
        "command": shlex.join(words),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"
