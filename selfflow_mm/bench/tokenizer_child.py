"""Speed and peak memory of one tokenizer, in a process that does nothing else.

``python -m selfflow_mm.bench.tokenizer_child`` reads a pickled :class:`Request` from its parent and writes one line of
JSON. A process's peak is that of all it has done, so every tokenizer gets one of its own.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import asdict, dataclass

import torch

from selfflow_tokenizers.media import Media

from ..errors import UserError
from ..evaluation.contestants import load_contestant
from . import memory, timing

#: A call shorter than this is repeated within a round, or the clock would time itself.
_SHORTEST = 0.1


@dataclass(frozen=True)
class Request:
    """One tokenizer and the media it is timed on, in one batch."""

    name: str
    media: list[Media]
    device: str
    threads: int
    rounds: int
    seed: int
    download: bool


@dataclass(frozen=True)
class Speed:
    """What one process found.

    Attributes:
        encode, decode: seconds of one call on the whole batch, in each round; conversion to the tokenizer's rate and
            channels is not in them.
        encode_bytes, decode_bytes: most memory in use during the first call, above what the loaded tokenizer and the
            media took; None where it cannot be measured.
        total_bytes: most memory in use in all; on a CPU with the interpreter and its libraries.
        how: the way memory was measured.
    """

    encode: tuple[float, ...]
    decode: tuple[float, ...]
    encode_bytes: int | None
    decode_bytes: int | None
    total_bytes: int | None
    how: str


def measure_in_child(request: Request) -> Speed:
    """Measure in a child process.

    Raises:
        UserError: it did not come back; the sentence ends with its last words.
    """
    done = subprocess.run(
        [sys.executable, "-m", "selfflow_mm.bench.tokenizer_child"], input=pickle.dumps(request), capture_output=True
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise UserError(f"speed and memory of {request.name} could not be measured: {last[0]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Speed(**{**found, "encode": tuple(found["encode"]), "decode": tuple(found["decode"])})


def measure(request: Request) -> Speed:
    """Measure in this process: memory of the first calls, then ``rounds`` timed calls after one to warm up."""
    torch.set_num_threads(request.threads)
    device = torch.device(request.device)
    contestant = load_contestant(request.name, device, seed=request.seed, download=request.download)
    media = [contestant.prepare(m) for m in request.media]
    code: list[object] = []
    with torch.no_grad():
        encoding = memory.measure(lambda: code.append(contestant.encode(media)), device)
        decoding = memory.measure(lambda: contestant.decode(code[0]), device)
        actions = {"encode": lambda: contestant.encode(media), "decode": lambda: contestant.decode(code[0])}
        times = timing.in_turns(actions, device, request.rounds, shortest=_SHORTEST)
    return Speed(
        times["encode"].seconds,
        times["decode"].seconds,
        None if encoding is None else encoding.above,
        None if decoding is None else decoding.above,
        None if encoding is None or decoding is None else max(encoding.total, decoding.total),
        "" if encoding is None else encoding.how,
    )


def main() -> None:
    print(json.dumps(asdict(measure(pickle.load(sys.stdin.buffer)))))


if __name__ == "__main__":
    main()
