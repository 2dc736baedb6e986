"""Peak memory of one job of one form, in a process that does nothing else.

A process's peak is that of all it has done, so on a CPU every variant gets one of its own:
``python -m selfflow_mm.bench.child`` reads a pickled :class:`Request` from its parent and writes one line of JSON.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from . import memory
from .model import Shape
from .plan import Plan


@dataclass(frozen=True)
class Request:
    """One job of one form; ``threads`` as in the parent."""

    plan: Plan
    shape: Shape
    what: str
    form: str
    threads: int


def peak_of(plan: Plan, shape: Shape, what: str, form: str) -> memory.Peak | None:
    """Measure in a child; None (with the child's last words on stderr) where it does not come back."""
    request = Request(plan, shape, what, form, torch.get_num_threads())
    done = subprocess.run(
        [sys.executable, "-m", "selfflow_mm.bench.child"], input=pickle.dumps(request), capture_output=True
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        print(f"memory of {what}, {form}: not measured ({last[0] if last else done.returncode})", file=sys.stderr)
        return None
    found = json.loads(done.stdout.splitlines()[-1])
    return None if found is None else memory.Peak(**found)


def main() -> None:
    from .run import prepare  # needs this module

    request: Request = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(request.threads)
    action: Callable[[], object] = prepare(request)
    if request.plan.compile:
        action()  # the compiler's own memory is not meant
    peak = memory.measure(action, torch.device("cpu"))
    print(json.dumps(None if peak is None else asdict(peak)))


if __name__ == "__main__":
    main()
