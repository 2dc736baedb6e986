"""Several processes that talk over gloo on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

_ALONE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}


def torchrun(processes: int, *arguments: str) -> str:
    """``python -m`` the arguments in so many processes, as users start them; what they print.

    AssertionError with the end of what they complain of, where they fail.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*command, "-m", *arguments],
        env=os.environ | _ALONE, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def side_by_side(processes: int, program: str, *arguments: str) -> None:
    """The same program text in so many processes; ``{rank}`` in its arguments becomes the process's number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **_ALONE}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, *(a.replace("{rank}", str(rank)) for a in arguments)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(processes)
    ]  # fmt: skip
    for process in started:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors[-3000:]
