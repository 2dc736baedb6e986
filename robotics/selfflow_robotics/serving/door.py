"""Who is let in: what is decided of a request before it becomes a websocket."""

from __future__ import annotations

import hmac
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from .options import ServerOptions

__all__ = ["answer_request"]


def answer_request(connection: ServerConnection, request: Request, options: ServerOptions) -> Response | None:
    """The answer to an HTTP request, or None to open a websocket.

    Health checks need no key. Browsers send an ``Origin`` and are refused: no page that somebody looks at on a robot's
    computer may move the robot.
    """
    path = request.path.partition("?")[0]
    if path == "/healthz":
        return connection.respond(HTTPStatus.OK, "OK\n")
    if path == "/health" and options.protocol == "vla-eval":
        response = connection.respond(HTTPStatus.OK, '{"status": "ok"}\n')
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        return response
    if options.api_key is not None and not _has_key(request, options.api_key):
        return connection.respond(HTTPStatus.UNAUTHORIZED, "send the header 'Authorization: Api-Key KEY'\n")
    if request.headers.get_all("Origin"):
        return connection.respond(HTTPStatus.FORBIDDEN, "browsers are not served\n")
    if len(connection.server.connections) >= options.max_connections:
        return connection.respond(
            HTTPStatus.SERVICE_UNAVAILABLE, f"there are {options.max_connections} clients already\n"
        )
    return None


def _has_key(request: Request, key: str) -> bool:
    # Compared as bytes and in constant time: how long it takes says nothing about the key.
    sent = request.headers.get_all("Authorization")
    return len(sent) == 1 and hmac.compare_digest(sent[0].encode(errors="surrogateescape"), f"Api-Key {key}".encode())
