"""Simulations in processes of their own, or in this one."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from .simulation import Job, Moment, Simulation

__all__ = ["Team"]

Message = Job | np.ndarray


class Team:
    """Simulations by number; each gets messages (a job to start, or actions to carry out) and answers with a moment.

    A context manager. What a simulation raises is raised by :meth:`receive`.

    Args:
        make: a new simulation; picklable.
        homes: of each simulation, the number of the process it lives in, counted from 0; None: all in this one.
    """

    def __init__(self, make: Callable[[], Simulation], homes: list[int] | None) -> None:
        self._make, self._homes = make, homes
        self._here: dict[int, Simulation] = {}
        self._waiting: dict[int, Message] = {}
        self._answers: dict[int, tuple[bool, Any]] = {}
        self._workers: list[tuple[Connection, Any]] = []

    def __enter__(self) -> Team:
        # Forking a process that has used PyTorch's threads can hang the child; a fork server has not used them.
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        for _ in range(max(self._homes or (), default=-1) + 1):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self._make), daemon=True)  # type: ignore[attr-defined]
            process.start()
            theirs.close()  # only the process holds it, so its death ends the connection
            self._workers.append((ours, process))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection, process in self._workers:
            connection.close()
            process.terminate()
            process.join()

    def send(self, number: int, message: Message) -> None:
        """Let simulation ``number`` work; it has answered everything before."""
        if self._homes is None:
            self._waiting[number] = message
            return
        try:
            self._workers[self._homes[number]][0].send((number, message))
        except OSError as error:
            raise _died() from error

    def receive(self, number: int) -> Moment:
        """Its answer to the last message, waited for.

        Raises:
            UserError: its process died.
        """
        if self._homes is None:
            return _work(self._here, self._make, number, self._waiting.pop(number))
        connection = self._workers[self._homes[number]][0]
        while number not in self._answers:
            try:
                answered, failed, answer = connection.recv()
            except (EOFError, OSError) as error:
                raise _died() from error
            self._answers[answered] = failed, answer
        failed, answer = self._answers.pop(number)
        if failed:
            raise answer
        return answer


def _work(simulations: dict[int, Simulation], make: Callable[[], Simulation], number: int, message: Message) -> Moment:
    if number not in simulations:
        simulations[number] = make()
    return simulations[number].start(message) if isinstance(message, Job) else simulations[number].carry_out(message)


def _serve(connection: Connection, make: Callable[[], Simulation]) -> None:
    """A process's life: work through messages until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    # Messages are read while an answer is being written: otherwise both sides could wait for the other to read.
    inbox: queue.SimpleQueue[tuple[int, Message] | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, inbox), daemon=True).start()
    simulations: dict[int, Simulation] = {}
    while (entry := inbox.get()) is not None:
        number, message = entry
        try:
            answer: tuple[int, bool, Any] = (number, False, _work(simulations, make, number, message))
        except Exception as error:
            answer = (number, True, error)
        try:
            connection.send(answer)
        except OSError:
            return


def _read(connection: Connection, inbox: queue.SimpleQueue[tuple[int, Message] | None]) -> None:
    while True:
        try:
            inbox.put(connection.recv())
        except (EOFError, OSError):
            inbox.put(None)
            return


def _died() -> UserError:
    return UserError(
        "a process that runs episodes died, perhaps for lack of memory; try a smaller batch or fewer workers"
    )
