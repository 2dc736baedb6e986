"""What a protocol is to the server that carries it: one conversation per connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from selfflow_mm.errors import UserError

__all__ = ["Conversation", "Send", "sentence"]

Send = Callable[[bytes | str], Awaitable[None]]


class Conversation(Protocol):
    """One client's side of a protocol. Messages come one at a time, the next after the last was dealt with."""

    async def open(self, send: Send) -> None:
        """Say what is said first."""
        ...

    async def take(self, message: bytes | str, send: Send) -> None:
        """Deal with a message.

        Raises:
            Exception: anything; :meth:`fail` is called with it.
        """
        ...

    async def fail(self, error: Exception, send: Send) -> bool:
        """Tell the client that its last message could not be dealt with; True if the connection may go on."""
        ...


def sentence(error: Exception) -> str:
    """What a client is told of an error: a user's mistake as it is, anything else by its name and message.

    Tracebacks stay in the server's log; they hold paths and source lines that concern no client.
    """
    return str(error) if isinstance(error, UserError) else f"the policy failed: {type(error).__name__}: {error}"
