"""Workers: processes that act episodes, started, watched and replaced. What they are told is another's business.

A worker is lost when its process ends, when it reports an error, or when it says nothing for too long. Then it is
killed, whoever asked hears of it, and another one takes its place.
"""

from __future__ import annotations

import hmac
import os
import queue
import secrets
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from selfflow_mm.errors import UserError

from .worker import World, pack, unpack

try:
    import msgpack as _msgpack  # noqa: F401
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response
    from websockets.sync.server import Server, ServerConnection, serve
except ModuleNotFoundError as error:
    raise UserError(
        f"evaluation with workers needs '{str(error.name).partition('.')[0]}', which is not installed; run: "
        "pip install 'selfflow-mm[serve]'"
    ) from error

__all__ = ["Answered", "Crew", "HereCrew", "Lost", "Patience", "ProcessCrew"]

_WATCH = 0.2  # seconds between looks at processes
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds before a worker is started again


@dataclass(frozen=True)
class Answered:
    """A worker's message: its ``hello``, or where an episode is."""

    worker: int
    message: dict[str, Any]


@dataclass(frozen=True)
class Lost:
    """A worker that is gone, with what it was doing; another one comes under the same number."""

    worker: int
    reason: str


@dataclass(frozen=True)
class Patience:
    """Seconds without a word after which a worker is taken to hang.

    Attributes:
        start: for coming up, and for building an environment.
        step: for each action it was sent.
    """

    start: float = 600.0
    step: float = 120.0


class Crew(Protocol):
    """Workers by number; a context manager. The first word of each is ``hello``, again after every loss."""

    def __enter__(self) -> Crew: ...

    def __exit__(self, *error: object) -> None: ...

    def send(self, worker: int, message: Mapping[str, Any]) -> None:
        """Tell a worker that has answered everything before."""
        ...

    def renew(self, worker: int) -> None:
        """Replace a worker that has nothing to do by a new process."""
        ...

    def wait(self) -> list[Answered | Lost]:
        """What has happened since, at least one thing."""
        ...


class HereCrew:
    """One worker in this process: for worlds that need what is here, such as a world model.

    Args:
        world: that acts.
        facts: about it, for its ``hello``.
    """

    def __init__(self, world: World, facts: Mapping[str, Any]) -> None:
        self._world = world
        self._happened: list[Answered | Lost] = [Answered(0, {"hello": {"versions": {}, "facts": dict(facts)}})]

    def __enter__(self) -> HereCrew:
        return self

    def __exit__(self, *error: object) -> None:
        self._world.close()

    def send(self, worker: int, message: Mapping[str, Any]) -> None:
        if "start" in message:
            answer = self._world.start(dict(message["start"]))
        else:
            answer = self._world.carry_out(message["actions"], message.get("terminate"))
        self._happened.append(Answered(worker, answer))

    def renew(self, worker: int) -> None:
        raise UserError("a world in this process cannot be replaced by a new one")

    def wait(self) -> list[Answered | Lost]:
        happened, self._happened = self._happened, []
        return happened


@dataclass(eq=False)
class _Member:
    """A worker's process; ``life`` counts those under its number, and tells their words apart."""

    number: int
    life: int = 0
    process: subprocess.Popen[bytes] | None = None
    connection: ServerConnection | None = None
    deadline: float = 0.0
    failures: int = 0
    not_before: float = 0.0


class ProcessCrew:
    """``count`` processes of ``command``, each of which connects to this one.

    Args:
        command: to start a worker, but for the address, which is added at its end.
        count: of workers.
        logs: folder for what they print, one file per number.
        patience: before a silent one is given up.
        environment: variables for them, besides this process's.
        tries: how often in a row a worker may fail before it has said ``hello``.

    Raises:
        UserError: a worker cannot be started, or fails too often; its last words are in the message.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        logs: Path,
        *,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        environment: Mapping[str, str] = {},  # noqa: B006 - never changed
        tries: int = 3,
    ) -> None:
        if count < 1:
            raise UserError(f"at least one worker acts, not {count}")
        self._command, self._logs, self._patience, self._tries = list(command), logs, patience, tries
        self._key = secrets.token_hex(16)
        # One thread for each worker's software renderer: they are what runs side by side (docs/simpler.md).
        threads = {"LP_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        private = {"SELFFLOW_WORKER_KEY": self._key, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        self._environment = {**os.environ, **{k: os.environ.get(k, v) for k, v in threads.items()}}
        self._environment.update({**environment, **private})
        self._members = [_Member(number) for number in range(count)]
        self._inbox: queue.Queue[tuple[int, int, Any]] = queue.Queue()  # number, life, message or exception
        self._whose: dict[ServerConnection, tuple[int, int]] = {}  # number, life
        self._server: Server | None = None

    def __enter__(self) -> ProcessCrew:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._server = serve(
            self._converse,
            "127.0.0.1",
            0,
            process_request=self._door,
            compression=None,
            max_size=None,
            ping_interval=None,
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        for member in self._members:
            self._begin(member)
        return self

    def __exit__(self, *error: object) -> None:
        for member in self._members:
            self._end(member)
        assert self._server is not None
        self._server.shutdown()

    def send(self, worker: int, message: Mapping[str, Any]) -> None:
        member = self._members[worker]
        if "start" in message:
            member.deadline = time.monotonic() + self._patience.start
        else:
            member.deadline = time.monotonic() + self._patience.step * max(1, len(message["actions"]))
        try:
            assert member.connection is not None
            member.connection.send(pack(dict(message)))
        except ConnectionClosed:
            pass  # its death is noticed by wait()

    def renew(self, worker: int) -> None:
        member = self._members[worker]
        self._end(member)
        self._begin(member)

    def wait(self) -> list[Answered | Lost]:
        happened: list[Answered | Lost] = []
        while not happened:
            try:
                happened += self._heard(self._inbox.get(timeout=_WATCH))
                while True:
                    happened += self._heard(self._inbox.get_nowait())
            except queue.Empty:
                pass
            happened += self._watch()
        return happened

    def _heard(self, word: tuple[int, int, Any]) -> list[Answered | Lost]:
        number, life, message = word
        member = self._members[number]
        if life != member.life:
            return []  # of a process that is no more
        if isinstance(message, dict) and "error" in message:
            return [self._lose(member, _last_line(str(message["error"])))]
        if not isinstance(message, dict):
            return [self._lose(member, self._how_it_ended(member))]
        member.failures = 0
        member.deadline = float("inf")
        return [Answered(number, message)]

    def _watch(self) -> list[Answered | Lost]:
        lost: list[Answered | Lost] = []
        now = time.monotonic()
        for member in self._members:
            if member.process is None:
                if now >= member.not_before:
                    self._begin(member)
            elif now > member.deadline:
                lost.append(self._lose(member, "said nothing for too long and was taken to hang"))
            elif member.connection is None and member.process.poll() is not None:
                lost.append(self._lose(member, self._how_it_ended(member)))
        return lost

    def _begin(self, member: _Member) -> None:
        member.life += 1
        member.connection = None
        member.deadline = time.monotonic() + self._patience.start
        assert self._server is not None
        port = self._server.socket.getsockname()[1]
        environment = {**self._environment, "SELFFLOW_WORKER_KEY": f"{self._key}-{member.number}-{member.life}"}
        with open(self._log(member), "ab") as log:
            try:
                member.process = subprocess.Popen(
                    [*self._command, f"ws://127.0.0.1:{port}"],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment,
                )  # fmt: skip
            except OSError as error:
                raise UserError(f"a worker cannot be started by '{self._command[0]}' ({error.strerror})") from error

    def _lose(self, member: _Member, reason: str) -> Lost:
        """Make sure that it is gone; the next one comes a little later each time it fails in a row."""
        self._end(member)
        member.failures += 1
        if member.failures >= self._tries:
            raise UserError(
                f"worker {member.number} failed {member.failures} times in a row: {reason}; "
                f"what it printed is in {self._log(member)}"
            )
        member.life += 1  # words that are still on their way are not listened to
        member.not_before = time.monotonic() + min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (member.failures - 1))
        return Lost(member.number, reason)

    def _end(self, member: _Member) -> None:
        if member.process is not None:
            member.process.kill()
            member.process.wait()
        member.process = member.connection = None

    def _how_it_ended(self, member: _Member) -> str:
        assert member.process is not None
        try:
            code: int | None = member.process.wait(1.0)
        except subprocess.TimeoutExpired:
            code = None
        what = "hung up" if code is None else f"ended (signal {-code})" if code < 0 else f"ended (exit code {code})"
        return f"{what}; its last line: {_last_line(_tail(self._log(member)))}"

    def _log(self, member: _Member) -> Path:
        return self._logs / f"worker-{member.number}.log"

    def _door(self, connection: ServerConnection, request: Request) -> Response | None:
        """Only workers of this crew come in, each as the one that it was started as."""
        given = request.headers.get("Authorization", "").removeprefix("Api-Key ").encode()
        for member in self._members:
            due = f"{self._key}-{member.number}-{member.life}".encode()
            if hmac.compare_digest(given, due) and member.connection is None:
                self._whose[connection] = (member.number, member.life)
                member.connection = connection
                return None
        return connection.respond(HTTPStatus.FORBIDDEN, "not a worker of this evaluation\n")

    def _converse(self, connection: ServerConnection) -> None:
        """A worker's thread: hand on what it says until it says nothing more."""
        number, life = self._whose.pop(connection)
        try:
            while True:
                message = connection.recv()
                if isinstance(message, str):
                    raise ValueError("a text where a message was due")
                self._inbox.put((number, life, unpack(message)))
        except Exception as error:  # the connection's end, or a message that is none
            self._inbox.put((number, life, error))


def _tail(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 4096))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "(nothing)"
