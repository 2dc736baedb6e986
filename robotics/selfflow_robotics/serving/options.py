"""How a policy is served."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from selfflow_mm.errors import UserError

from .observations import read_prompt

__all__ = ["ServerOptions"]


@dataclass(frozen=True)
class ServerOptions:
    """Where a server listens and what it allows.

    Attributes:
        host: address to listen on; the default is reached from this machine alone.
        port: 0 for any that is free.
        protocol: ``openpi`` or ``vla-eval``.
        api_key: clients must send the header ``Authorization: Api-Key KEY``; None asks for nothing.
        max_batch: most requests in one call of the policy.
        max_wait: seconds that a request waits for others to fill a batch.
        max_message: bytes of the largest message that is read.
        max_connections: clients at a time.
        max_rate: messages per second and connection; more wait for their turn. 0: as many as come.
        idle: seconds after which a connection that says nothing is closed.
        grace: seconds that answers under way have when the server is stopped.
        default_prompt: what the robot is told where a message says nothing.
        camera: which picture is looked at, of several; for vla-eval.
        rotation: of the answers: ``euler_xyz`` as the policy gives it, or ``axis_angle``; for vla-eval.

    Raises:
        UserError: a value out of range.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    protocol: Literal["openpi", "vla-eval"] = "openpi"
    api_key: str | None = None
    max_batch: int = 16
    max_wait: float = 0.0
    max_message: int = 32 * 2**20
    max_connections: int = 64
    max_rate: float = 0.0
    idle: float = 3600.0
    grace: float = 30.0
    default_prompt: str | None = None
    camera: str | None = None
    rotation: Literal["euler_xyz", "axis_angle"] = "euler_xyz"

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise UserError(f"a port is between 0 (any) and 65535, not {self.port}")
        if self.protocol not in ("openpi", "vla-eval"):
            raise UserError(f"the protocols are 'openpi' and 'vla-eval', not '{self.protocol}'")
        if self.rotation not in ("euler_xyz", "axis_angle"):
            raise UserError(f"rotations are given as 'euler_xyz' or 'axis_angle', not '{self.rotation}'")
        if self.api_key is not None and (
            not self.api_key or not self.api_key.isascii() or not self.api_key.isprintable()
        ):
            raise UserError("an API key is printable ASCII text and not empty")
        if self.api_key is not None and self.api_key != self.api_key.strip():
            raise UserError("an API key neither begins nor ends with a space: headers lose them, so no client had it")
        for name, least, unit in (
            ("max_message", 1024, " bytes"), ("max_connections", 1, ""), ("max_rate", 0, " per second"),
            ("grace", 0, " s"),
        ):  # fmt: skip
            if not least <= getattr(self, name) < math.inf:
                raise UserError(f"{name} is a number from {least}{unit} on, not {getattr(self, name)}")
        if not 0 < self.idle < math.inf:
            raise UserError(f"connections are idle for some seconds above 0 before they are closed, not {self.idle}")
        if self.default_prompt is not None:
            read_prompt(self.default_prompt)
