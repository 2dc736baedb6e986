"""A server of policies on websockets, whatever the protocol; loopback unless told otherwise.

Each connection is a task (:mod:`.connection`); the policy runs in a thread of its own (:mod:`.batching`), so the loop
is always there to answer pings. Ours to clients have no time limit: a simulator that is busy for a minute is no reason
to hang up. Clients that are gone are found by the kernel's keep-alive and by how long they were silent.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve

from selfflow_mm.errors import UserError

from ..interfaces import ChunkPolicy, Observation, Request
from ..policies import ActingOptions, Policy
from .batching import Batcher
from .connection import ClientConnection
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
        self._clients: set[ClientConnection] = set()

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
                self._serve,
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
        except (OSError, UnicodeError) as error:  # a name that no host can have does not get as far as the system
            why = getattr(error, "strerror", None) or error
            raise UserError(f"cannot listen on {options.host}:{options.port}: {why}") from error
        self._watch = asyncio.create_task(self._watch_unread())

    async def stop(self) -> None:
        """Take no more clients, finish the answers under way, close every connection with code 1001."""
        if self._server is None:
            return
        self._server.close(close_connections=False)
        deadline = time.monotonic() + self.options.grace
        await asyncio.gather(*(client.leave() for client in list(self._clients)))
        while any(client.busy for client in self._clients) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.gather(*(client.hang_up() for client in list(self._clients)))
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

    async def _serve(self, websocket: ServerConnection) -> None:
        client = ClientConnection(websocket, self._conversation(), self.options)
        self._clients.add(client)
        try:
            await client.run()
        finally:
            self._clients.discard(client)

    async def _watch_unread(self) -> None:
        """Hang up on clients that make us answer and never read."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for client in self._clients:
                transport = client.websocket.transport
                if transport.get_write_buffer_size() > MAX_UNREAD:
                    _log.warning("hanging up on %s, which does not read", client.websocket.remote_address)
                    transport.abort()
