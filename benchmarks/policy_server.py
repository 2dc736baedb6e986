"""What a policy server adds to the network: round trips of observations, against a bare echo of websockets.

    python benchmarks/policy_server.py --out docs/results/policy-server.md

Both servers run in a process of their own and take turns. The policy costs nothing (``zero``), so what is measured is
reading a message, checking it, handing it to the policy's thread and back, and packing the answer. The echo is an
asyncio server of the same library that sends as many bytes as our answers have. Clients are tasks of one loop in this
process, the same for both; they send an observation that was packed before and wait for the answer, again and again.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from selfflow_mm.bench.report import machine
from selfflow_mm.bench.table import write_text
from selfflow_robotics.policies import load_policy
from selfflow_robotics.serving import PolicyClient, PolicyServer, ServerOptions
from selfflow_robotics.serving.msgpack_numpy import pack


def serve_policy(pipe: Connection) -> None:
    with PolicyServer(load_policy("zero"), ServerOptions(port=0)).background() as url:
        pipe.send(url)
        pipe.recv()


def serve_echo(pipe: Connection, answer: bytes) -> None:
    async def handle(connection: ServerConnection) -> None:
        await connection.send(b"metadata")
        async for _ in connection:
            await connection.send(answer)

    async def main() -> None:
        async with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
            pipe.send(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            await asyncio.to_thread(pipe.recv)

    asyncio.run(main())


async def measure(url: str, message: bytes, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Answers per second, and the seconds that each took."""
    latencies: list[float] = []
    together = asyncio.Barrier(clients)

    async def ask() -> None:
        async with connect(url, compression=None, max_size=None, proxy=None) as connection:
            await connection.recv()
            await together.wait()
            end = time.perf_counter() + seconds
            while (begun := time.perf_counter()) < end:
                await connection.send(message)
                await connection.recv()
                latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(clients)))
    return len(latencies) / (time.perf_counter() - begun), latencies


def row(ours: str, echo: str, message: bytes, clients: int, rounds: int, seconds: float) -> str:
    rates: dict[str, list[float]] = {ours: [], echo: []}
    times: dict[str, list[float]] = {ours: [], echo: []}
    for turn in range(rounds):
        for url in (ours, echo) if turn % 2 else (echo, ours):
            rate, latencies = asyncio.run(measure(url, message, clients, seconds))
            rates[url].append(rate)
            times[url] += latencies
    ratio = statistics.median(a / b for a, b in zip(rates[ours], rates[echo], strict=True))
    cells = [f"{statistics.median(rates[url]):,.0f}" for url in (ours, echo)] + [f"{ratio:.2f}"]
    for part in (50, 95):
        cells += [f"{1000 * float(np.percentile(times[url], part)):.2f}" for url in (ours, echo)]
    return f"| {clients} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--size", type=int, nargs=2, default=[256, 320], metavar=("H", "W"), help="of the pictures")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each round and server")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    observation = {"image": np.zeros((*args.size, 3), np.uint8), "prompt": "pick coke can", "state": np.zeros(8)}
    message = pack(observation)
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    policy = context.Process(target=serve_policy, args=(theirs,), daemon=True)
    policy.start()
    ours = pipe.recv()
    with PolicyClient(ours) as client:
        answer = pack(client.infer(observation))
    echo_pipe, theirs = context.Pipe()
    echo_process = context.Process(target=serve_echo, args=(theirs, answer), daemon=True)
    echo_process.start()
    echo = echo_pipe.recv()
    about = machine(torch.device("cpu"))
    lines = [
        f"    python {about['command']}",
        "",
        f"{about['cpu']}, Python {about['python']}, websockets {version('websockets')}, msgpack {version('msgpack')}, "
        f"{about['date']}.",
        "",
        f"Observations of {len(message):,} bytes, answers of {len(answer):,}; medians of {args.rounds} alternating "
        "rounds; ours, then the bare echo.",
        "",
        "| clients | answers/s | echo | ratio | median ms | echo | 95 % ms | echo |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines))
    for clients in args.clients:
        lines.append(row(ours, echo, message, clients, args.rounds, args.seconds))
        print(lines[-1], flush=True)
    for end, process in ((pipe, policy), (echo_pipe, echo_process)):
        end.send("stop")
        process.join(10)
    if args.out:
        write_text(args.out, "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
