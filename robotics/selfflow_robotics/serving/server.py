"""A server of policies on websockets, whatever the protocol; loopback unless told otherwise.

One task per connection reads a message, lets the protocol's :class:`~.conversation.Conversation` deal with it, and
reads the next. The policy runs in a thread of its own (:mod:`.batching`), so this loop is always there to answer pings.
Ours to clients have no time limit: a simulator that is busy for a minute is no reason to hang up. Clients that are gone
are found by the kernel's keep-alive and by how long they were silent.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from selfflow_mm.errors import UserError

from ..interfaces import ChunkPolicy, Observation, Request
from ..policies import ActingOptions, Policy
from .batching import Batcher
from .conversation import Conversation
from .door import answer_request
from .episodes import Episodes
from .msgpack_numpy import pack
from .openpi import OpenpiConversation, metadata
from .options import ServerOptions
from .vla_eval import VlaEvalConversation

__all__ = ["PolicyServer", "ServerOptions"]

_log = logging.getLogger(__name__)
# Handshakes that fail are the internet's noise, and what fails inside a conversation is logged there.
_QUIET = logging.getLogger(f"{__name__}.websockets")
_QUIET.setLevel(logging.CRITICAL)
#: Frames of one message, however short: a message of empty frames has no size that could be limited.
MAX_FRAMES = 4096
#: Bytes that may wait for a client that does not read, and how often they are counted. Answers are far smaller; what
#: piles up are pongs.
MAX_UNREAD, WATCH_SECONDS = 8 * 2**20, 1.0


class PolicyServer:
    """Serves ``policy`` to any number of clients, each with an episode of its own.

    Use :meth:`run` in a program, :meth:`background` in a test or notebook, :meth:`start` and :meth:`stop` in a loop.

    Args:
        policy: asked with many episodes' requests at once; reset by nobody, it has no memory.
        options: where and how.
        acting: how its chunks are used; every connection begins with this seed.

    Attributes:
        executed: actions of a chunk that are meant to be carried out before the next question.

    Raises:
        UserError: options that do not fit the policy or one another.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        options: ServerOptions = ServerOptions(),  # noqa: B008 - frozen
        acting: ActingOptions = ActingOptions(),  # noqa: B008 - frozen
    ) -> None:
        self.policy, self.options, self.acting = policy, options, acting
        self.executed = Policy(policy, acting).executed
        self._greeting = pack(metadata(policy.about, self.executed))
        self._batcher = Batcher(policy, options.max_batch, options.max_wait)
        self._ignored: set[str] = set()
        self._server: Server | None = None
        self._watch: asyncio.Task[None] | None = None
        self._busy: set[ServerConnection] = set()
        self._stopping = False

    @property
    def address(self) -> str:
        """``ws://host:port`` as bound; only while it listens."""
        if self._server is None:
            raise UserError("the server has no address before it was started")
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"

    async def start(self) -> None:
        """Ask the policy once, so that it is ready and known to work, then listen.

        Raises:
            UserError: the address cannot be used, or the policy cannot answer.
        """
        await self._warm_up()
        options = self.options
        try:
            self._server = await serve(
                self._connection,
                options.host,
                options.port,
                process_request=partial(answer_request, options=options),
                compression=None,
                max_size=options.max_message,
                max_queue=2,
                ping_interval=20,
                ping_timeout=None,
                close_timeout=3,
                logger=_QUIET,
            )
        except OSError as error:
            raise UserError(f"cannot listen on {options.host}:{options.port}: {error.strerror or error}") from error
        self._watch = asyncio.create_task(self._watch_unread())

    async def stop(self) -> None:
        """Take no more clients, finish the answers under way, close every connection with code 1001."""
        if self._server is None:
            return
        self._stopping = True
        self._server.close(close_connections=False)
        deadline = time.monotonic() + self.options.grace
        idle = [connection for connection in self._server.connections if connection not in self._busy]
        await asyncio.gather(*map(_go_away, idle))
        while self._busy and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await asyncio.gather(*map(_go_away, self._server.connections))
        if self._watch is not None:
            self._watch.cancel()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._server.wait_closed(), 1)
        self._batcher.close(timeout=0)

    def run(self, ready: Callable[[str], None]) -> None:
        """Serve until SIGINT or SIGTERM; a second one does not wait for answers under way.

        Args:
            ready: called with the address once clients are taken.
        """
        asyncio.run(self._run(ready))

    @contextmanager
    def background(self) -> Iterator[str]:
        """Serve in a thread for as long as the context lasts; gives the address."""
        ready: Future[tuple[str, Callable[[], object]]] = Future()

        async def serve_until_told() -> None:
            loop, told = asyncio.get_running_loop(), asyncio.Event()
            try:
                await self.start()
            except BaseException as error:
                self._batcher.close(timeout=0)
                ready.set_exception(error)
                return
            ready.set_result((self.address, lambda: loop.call_soon_threadsafe(told.set)))
            await told.wait()
            await self.stop()

        thread = threading.Thread(target=lambda: asyncio.run(serve_until_told()), name="policy server")
        thread.start()
        address, tell = ready.result()
        try:
            yield address
        finally:
            tell()
            thread.join()

    async def _run(self, ready: Callable[[str], None]) -> None:
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        stopping: asyncio.Task[None] | None = None

        def tell() -> None:
            if told.is_set() and stopping is not None:
                stopping.cancel()
            told.set()

        await self.start()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # on Windows, where an interrupt ends the loop at once
                loop.add_signal_handler(number, tell)
        ready(self.address)
        await told.wait()
        stopping = asyncio.create_task(self.stop())
        await asyncio.wait([stopping])

    def _episodes(self) -> Episodes:
        return Episodes(self.policy, self._batcher, self.acting)

    def _conversation(self) -> Conversation:
        if self.options.protocol == "vla-eval":
            return VlaEvalConversation(self._episodes(), self.options, self.acting.seed)
        return OpenpiConversation(self._episodes(), self._greeting, self.options.default_prompt, self._ignored)

    async def _warm_up(self) -> None:
        about = self.policy.about
        state = np.zeros(len(about.state_names), np.float32) if about.state_names else None
        seen = Observation(np.zeros((256, 320, 3), np.uint8), self.options.default_prompt or "", state)
        try:
            await asyncio.wrap_future(self._batcher.submit([Request(seen)])[0])
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{about.name} cannot answer: {type(error).__name__}: {error}") from error

    async def _connection(self, connection: ServerConnection) -> None:
        sock = connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        conversation, pace = self._conversation(), _Pace(self.options.max_rate)
        _log.info("connection from %s", connection.remote_address)
        try:
            await conversation.open(partial(self._send, connection))
            while not self._stopping:
                message = await self._receive(connection)
                self._busy.add(connection)
                try:
                    await pace.wait()
                    if not await self._deal(connection, conversation, message):
                        return
                finally:
                    self._busy.discard(connection)
            await _go_away(connection)
        except ConnectionClosed:
            pass
        except _Unwelcome as reason:
            await connection.close(reason.code, str(reason))
        finally:
            _log.info("connection from %s ended", connection.remote_address)

    async def _deal(self, connection: ServerConnection, conversation: Conversation, message: bytes | str) -> bool:
        """Let the protocol deal with a message; False where the connection was closed over it."""
        send = partial(self._send, connection)
        try:
            await conversation.take(message, send)
        except (ConnectionClosed, _Unwelcome):
            raise
        except Exception as error:
            if not isinstance(error, UserError):
                _log.error("a message could not be dealt with", exc_info=error)
            if await conversation.fail(error, send):
                return True
            await connection.close(CloseCode.INTERNAL_ERROR, "the error is in the frame before")
            return False
        return True

    async def _receive(self, connection: ServerConnection) -> bytes | str:
        """The next message, whole; nothing else is bounded by size alone."""
        pieces: list[Any] = []  # all bytes or all str
        try:
            async with asyncio.timeout(self.options.idle):
                async for piece in connection.recv_streaming():
                    pieces.append(piece)
                    if len(pieces) > MAX_FRAMES:
                        raise _Unwelcome(CloseCode.POLICY_VIOLATION, f"a message has at most {MAX_FRAMES} frames")
        except TimeoutError:
            raise _Unwelcome(CloseCode.GOING_AWAY, f"silent for {self.options.idle:g} s") from None
        return pieces[0] if len(pieces) == 1 else type(pieces[0])().join(pieces)

    async def _send(self, connection: ServerConnection, message: bytes | str) -> None:
        try:
            async with asyncio.timeout(self.options.idle):
                await connection.send(message)
        except TimeoutError:
            raise _Unwelcome(CloseCode.GOING_AWAY, f"read nothing for {self.options.idle:g} s") from None

    async def _watch_unread(self) -> None:
        """Hang up on clients that make us answer and never read."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for connection in list(self._server.connections if self._server else ()):
                if connection.transport.get_write_buffer_size() > MAX_UNREAD:
                    _log.warning("hanging up on %s, which does not read", connection.remote_address)
                    connection.transport.abort()


class _Unwelcome(Exception):
    """Why a connection is closed that did not say anything wrong."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _Pace:
    """Lets one message through per ``1 / rate`` seconds."""

    def __init__(self, rate: float) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._next = 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        if self._gap and now < self._next:
            await asyncio.sleep(self._next - now)
        self._next = max(now, self._next) + self._gap


async def _go_away(connection: ServerConnection) -> None:
    await connection.close(CloseCode.GOING_AWAY, "the server is stopping")
