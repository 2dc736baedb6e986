"""Policies over the network: a server that speaks openpi's protocol (or vla-eval's), and a client for either side.

Needs the extra ``[serve]`` (msgpack, websockets).
"""

from selfflow_mm.errors import UserError

try:
    import msgpack as _msgpack  # noqa: F401
    import websockets as _websockets  # noqa: F401
except ModuleNotFoundError as error:
    raise UserError(
        f"serving policies needs '{error.name}', which is not installed; run: pip install 'selfflow-mm[serve]'"
    ) from error

from .client import PolicyClient, RemotePolicy
from .served import ServedPolicy
from .server import PolicyServer, ServerOptions

__all__ = ["PolicyClient", "PolicyServer", "RemotePolicy", "ServedPolicy", "ServerOptions"]
