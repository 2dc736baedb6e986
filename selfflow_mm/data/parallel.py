"""Working on many items with several processes, in order, and in spite of a process that dies."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Crash:
    """Stands for the result of an item whose process died (a decoder's fault, or out of memory)."""


def available_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, preload: Sequence[str] = ()
) -> Iterator[Result | Crash]:
    """``map(function, items)`` on ``workers`` processes; results come in the order of the items.

    A process that dies costs the item it had: that yields :class:`Crash`, and a new process takes its place.
    (``concurrent.futures`` gives up all items then, and in Python 3.11 can wait for ever.)

    Args:
        function: picklable. Exceptions it raises are raised here.
        items: picklable; at most four per worker are ahead of the result that is yielded next.
        workers: 0 works in this process, where a crash is everybody's.
        preload: modules to import once, before the workers are made.
    """
    if workers == 0:
        yield from map(function, items)
        return
    # Forking a process that has used PyTorch's threads can hang the child; a fork server has not used them.
    server = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if server else "spawn")
    if server:
        context.set_forkserver_preload(list(preload))
    source = enumerate(items)
    done: dict[int, Result | Crash] = {}
    yielded, taken, exhausted = 0, 0, False
    team: list[_Worker] = []
    try:
        while True:
            while not exhausted and taken - yielded < 4 * workers:
                worker = next((w for w in team if w.index is None), None)
                if worker is None and len(team) == workers:
                    break
                entry = next(source, None)
                if entry is None:
                    exhausted = True
                    break
                if worker is None:
                    worker = _Worker(context, function)
                    team.append(worker)
                worker.start(*entry)
                taken += 1
            busy = {w.connection: w for w in team if w.index is not None}
            for connection in wait(list(busy)) if busy and yielded not in done else ():
                worker = busy[connection]  # type: ignore[index]
                index = worker.index
                assert index is not None
                done[index] = worker.finish()
                if isinstance(done[index], Crash):
                    team.remove(worker)
            while yielded in done:
                yield done.pop(yielded)
                yielded += 1
            if exhausted and yielded == taken:
                return
    finally:
        for worker in team:
            worker.stop()


class _Worker:
    """One process and the index of the item it works on, None while idle."""

    def __init__(self, context: BaseContext, function: Callable[[Any], Any]) -> None:
        self.index: int | None = None
        self.connection, theirs = context.Pipe()
        self.process = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, function), daemon=True
        )
        self.process.start()
        theirs.close()  # only the process holds it, so its death ends the connection

    def start(self, index: int, item: Any) -> None:
        self.index = index
        try:
            self.connection.send(item)
        except OSError:
            pass  # it died while idle; finish() finds out

    def finish(self) -> Any:
        """The result; the worker is idle afterwards, unless it died."""
        try:
            failed, result = self.connection.recv()
        except (EOFError, OSError):
            self.stop()
            return Crash()
        self.index = None
        if failed:
            raise result
        return result

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """A worker's life: receive an item, send (failed, result or exception), until the connection ends."""
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        try:
            connection.send((False, function(item)))
        except (KeyboardInterrupt, BrokenPipeError):  # the latter: whoever waited for it was killed
            return
        except Exception as error:
            connection.send((True, error))
