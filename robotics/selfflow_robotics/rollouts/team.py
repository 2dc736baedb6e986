"""Simulations in processes of their own, or in this one."""

from __future__ import annotations

import math
import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from .simulation import Job, Moment, Simulation

__all__ = ["Team"]

Message = Job | np.ndarray
_ROOM = 1 << 20
_NOTHING = np.zeros((1, 1, 3), np.uint8)


class Team:
    """Simulations by number; each gets messages (a job to start, or actions to carry out) and answers with a moment.

    A context manager. What a simulation raises is raised by :meth:`receive`. Pictures of up to 1 MiB come through
    shared memory, a place for each simulation; all else comes through pipes.

    Args:
        make: a new simulation; picklable.
        homes: of each simulation, the number of the process it lives in, counted from 0; None: all in this one.
    """

    def __init__(self, make: Callable[[], Simulation], homes: list[int] | None) -> None:
        self._make, self._homes = make, homes
        self._here: dict[int, Simulation] = {}
        self._waiting: dict[int, Message] = {}
        self._answers: dict[int, list[Any]] = {}  # number -> (moment or exception, shape of the picture in its place)
        self._places: dict[int, Any] = {}
        self._workers: list[tuple[Connection, Any]] = []

    def __enter__(self) -> Team:
        # Forking a process that has used PyTorch's threads can hang the child; a fork server has not used them.
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        homes = self._homes or []
        for number in range(len(homes)):
            self._places[number] = context.RawArray("B", _ROOM)
        for worker in range(max(homes, default=-1) + 1):
            ours, theirs = context.Pipe()
            places = {number: place for number, place in self._places.items() if homes[number] == worker}
            process = context.Process(  # type: ignore[attr-defined]
                target=_serve, args=(theirs, self._make, places), daemon=True
            )
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
                answered, *answer = connection.recv()
            except (EOFError, OSError) as error:
                raise _died() from error
            self._answers[answered] = answer
        moment, shape = self._answers.pop(number)
        if isinstance(moment, Exception):
            raise moment
        if shape is None:
            return moment
        picture = np.frombuffer(self._places[number], np.uint8, math.prod(shape)).reshape(shape).copy()
        return replace(moment, observation=replace(moment.observation, image=picture))


def _work(simulations: dict[int, Simulation], make: Callable[[], Simulation], number: int, message: Message) -> Moment:
    if number not in simulations:
        simulations[number] = make()
    return simulations[number].start(message) if isinstance(message, Job) else simulations[number].carry_out(message)


def _serve(connection: Connection, make: Callable[[], Simulation], places: dict[int, Any]) -> None:
    """A process's life: work through messages until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    # Messages are read while an answer is being written: otherwise both sides could wait for the other to read.
    inbox: queue.SimpleQueue[tuple[int, Message] | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, inbox), daemon=True).start()
    simulations: dict[int, Simulation] = {}
    while (entry := inbox.get()) is not None:
        number, message = entry
        try:
            answer: Any = (number, *_without_picture(_work(simulations, make, number, message), places[number]))
        except Exception as error:
            answer = (number, error, None)
        try:
            connection.send(answer)
        except OSError:
            return


def _without_picture(moment: Moment, place: Any) -> tuple[Moment, tuple[int, ...] | None]:
    """The picture put into its place, and its shape; where there is none, or no room, the moment as it is and None."""
    seen = moment.observation
    if seen is None or seen.image.nbytes > _ROOM:
        return moment, None
    np.frombuffer(place, np.uint8, seen.image.size).reshape(seen.image.shape)[:] = seen.image
    return replace(moment, observation=replace(seen, image=_NOTHING)), seen.image.shape


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
