"""One client on a websocket: its messages, one after another, and what ends the connection."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from selfflow_mm.errors import UserError

from .conversation import Conversation
from .options import ServerOptions

__all__ = ["MAX_FRAMES", "ClientConnection"]

_log = logging.getLogger(__name__)
#: Frames of one message, however short: a message of empty frames has no size that could be limited.
MAX_FRAMES = 4096


class ClientConnection:
    """Reads a message, lets the protocol's conversation deal with it, reads the next.

    Args:
        websocket: open.
        conversation: what is said.
        options: of the server; ``max_rate`` and ``idle`` are used.

    Attributes:
        websocket: as given.
        busy: is a message being dealt with?
    """

    def __init__(self, websocket: ServerConnection, conversation: Conversation, options: ServerOptions) -> None:
        self.websocket, self.busy = websocket, False
        self._conversation, self._options = conversation, options
        self._leaving = False
        self._next = 0.0  # when the next message may be dealt with

    async def run(self) -> None:
        """Until one side has enough. Nothing that a client does raises here."""
        self.websocket.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        _log.info("connection from %s", self.websocket.remote_address)
        try:
            await self._conversation.open(self._send)
            going = True
            while going:
                message = await self._receive()
                self.busy = True
                await self._pace()
                going = await self._deal(message) and not self._leaving
                self.busy = False
            if self._leaving:
                await self.hang_up()
        except ConnectionClosed:
            pass
        except _Enough as reason:
            await self.websocket.close(reason.code, str(reason))
        finally:
            self.busy = False
            _log.info("connection from %s ended", self.websocket.remote_address)

    async def leave(self) -> None:
        """Say goodbye (code 1001), after the answer under way if there is one."""
        self._leaving = True
        if not self.busy:
            await self.hang_up()

    async def hang_up(self) -> None:
        """Say goodbye at once."""
        await self.websocket.close(CloseCode.GOING_AWAY, "the server is stopping")

    async def _deal(self, message: bytes | str) -> bool:
        """Let the protocol deal with a message; False where the connection was closed over it."""
        try:
            await self._conversation.take(message, self._send)
        except (ConnectionClosed, _Enough):
            raise
        except Exception as error:
            if not isinstance(error, UserError):
                _log.error("a message could not be dealt with", exc_info=error)
            if await self._conversation.fail(error, self._send):
                return True
            await self.websocket.close(CloseCode.INTERNAL_ERROR, "the error is in the frame before")
            return False
        return True

    async def _receive(self) -> bytes | str:
        """The next message, whole."""
        pieces: list[Any] = []  # all bytes or all str
        try:
            async with asyncio.timeout(self._options.idle):
                async for piece in self.websocket.recv_streaming():
                    pieces.append(piece)
                    if len(pieces) > MAX_FRAMES:
                        raise _Enough(CloseCode.POLICY_VIOLATION, f"a message has at most {MAX_FRAMES} frames")
        except TimeoutError:
            raise _Enough(CloseCode.GOING_AWAY, f"silent for {self._options.idle:g} s") from None
        return pieces[0] if len(pieces) == 1 else type(pieces[0])().join(pieces)

    async def _send(self, message: bytes | str) -> None:
        try:
            async with asyncio.timeout(self._options.idle):
                await self.websocket.send(message)
        except TimeoutError:
            raise _Enough(CloseCode.GOING_AWAY, f"read nothing for {self._options.idle:g} s") from None

    async def _pace(self) -> None:
        """Let one message through per ``1 / max_rate`` seconds."""
        if self._options.max_rate:
            now = time.monotonic()
            await asyncio.sleep(max(0.0, self._next - now))
            self._next = max(now, self._next) + 1 / self._options.max_rate


class _Enough(Exception):
    """Why a connection is closed that has said nothing wrong."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
