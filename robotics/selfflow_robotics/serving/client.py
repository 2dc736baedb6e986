"""A client of policy servers: ours, and any that speaks openpi's protocol.

:class:`PolicyClient` sends dictionaries as openpi's own client does; :class:`RemotePolicy` is used like
:class:`selfflow_robotics.policies.Policy`, so a rollout does not know that its policy is elsewhere. Both block.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from selfflow_mm.errors import UserError

from ..interfaces import PolicyAbout
from ..robot_episode import ACTION_NAMES
from .msgpack_numpy import pack, unpack

__all__ = ["PolicyClient", "RemotePolicy", "about_of"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Seconds that the metadata may take; they come at once, unless the server speaks something else.
_GREETING = 30.0


class PolicyClient:
    """One connection to a policy server; close it, or use it as a context.

    Args:
        url: ``ws://host:port``, or ``host:port``.
        api_key: for servers that ask for one.
        wait: seconds for which to try again while nobody listens there.
        timeout: seconds that an answer may take; None waits as long as it takes.

    Attributes:
        metadata: what the server said first.

    Raises:
        UserError: nobody there, or not let in.
    """

    def __init__(self, url: str, api_key: str | None = None, wait: float = 0.0, timeout: float | None = None) -> None:
        self.url = url if "://" in url else f"ws://{url}"
        self._timeout = timeout
        self._stack = ExitStack()
        self._connection = _connect(self.url, api_key, wait, self._stack)
        try:
            self.metadata: dict[str, Any] = self._receive(_GREETING if timeout is None else timeout)
        except BaseException:
            self.close()
            raise

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Send a dictionary (texts, numbers, arrays), return the server's, as it is.

        Raises:
            UserError: the server said what is wrong (then it has closed the connection), or it is gone.
        """
        try:
            self._connection.send(pack(dict(observation)))
        except ConnectionClosed as error:
            raise UserError(f"the policy server at {self.url} has closed the connection: {error}") from error
        return self._receive(self._timeout)

    def act(
        self,
        image: np.ndarray,
        instruction: str,
        state: np.ndarray | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> np.ndarray:
        """What to do now, ``(H, D)`` float32.

        Args:
            image: ``(height, width, 3)`` uint8.
            instruction: what the robot is told.
            state: ``(S,)`` in raw units.
            keys: names that the server has for ``image``, ``prompt`` and ``state``, where they differ.

        Raises:
            UserError: as :meth:`infer`; or the answer has no actions.
        """
        names = {"image": "image", "prompt": "prompt", "state": "state"} | dict(keys or {})
        message: dict[str, Any] = {names["image"]: image, names["prompt"]: instruction}
        if state is not None:
            message[names["state"]] = state
        actions = self.infer(message).get("actions")
        if not isinstance(actions, np.ndarray) or actions.ndim != 2:
            raise UserError(f"the policy server at {self.url} answered without 'actions' of shape (H, D)")
        return actions.astype(np.float32)

    def reset(self, seed: int | None = None) -> None:
        """Start an episode, where the server knows that message; openpi's own has no memory and does not.

        Args:
            seed: of everything random, where the server knows it.
        """
        if "reset" in self.metadata.get("understands", ()):
            self.infer({"reset": True} if seed is None else {"reset": True, "seed": seed})

    def close(self) -> None:
        """End the connection; once is enough."""
        self._stack.close()

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _receive(self, timeout: float | None) -> dict[str, Any]:
        try:
            message = self._connection.recv(timeout)
        except TimeoutError as error:
            self.close()  # a late answer would be taken for that of the next question
            raise UserError(f"the policy server at {self.url} said nothing for {timeout:g} s") from error
        except ConnectionClosed as error:
            raise UserError(f"the policy server at {self.url} has closed the connection: {error}") from error
        if isinstance(message, str):
            raise UserError(f"the policy server at {self.url} says: {message}")
        found = unpack(message)
        if not isinstance(found, dict):
            raise UserError(f"the policy server at {self.url} answered with {type(found).__name__}, not a dictionary")
        return found


class RemotePolicy:
    """A policy on a server, used like :class:`selfflow_robotics.policies.Policy`; ensembling is the server's.

    Args:
        client: connected.
        about: of the policy, for servers that do not say it (openpi's own).
        keys: see :meth:`PolicyClient.act`.

    Attributes:
        about: what the policy says of itself.
        executed: how many actions of a chunk to carry out.

    Raises:
        UserError: the server says nothing of its policy and ``about`` is not given.
    """

    def __init__(
        self, client: PolicyClient, about: PolicyAbout | None = None, keys: Mapping[str, str] | None = None
    ) -> None:
        self._client, self._keys = client, keys
        self.about = about_of(client) if about is None else about
        self.executed = int(client.metadata.get("executed", self.about.horizon))

    def reset(self, seed: int | None = None) -> None:
        """Start an episode; see :meth:`PolicyClient.reset`."""
        self._client.reset(seed)

    def act(self, image: np.ndarray, instruction: str, state: np.ndarray | None = None) -> np.ndarray:
        """What to do now, ``(H, D)`` float32; carry out the first ``executed`` rows. See :meth:`PolicyClient.act`."""
        return self._client.act(image, instruction, state, self._keys)


def about_of(client: PolicyClient) -> PolicyAbout:
    """What the server says of its policy.

    Raises:
        UserError: nothing, as openpi's own.
    """
    said = client.metadata
    try:
        return PolicyAbout(
            name=str(said["name"]),
            horizon=int(said["horizon"]),
            control_rate=float(said["control_rate"]),
            action_names=tuple(map(str, said.get("action_names", ACTION_NAMES))),
            state_names=tuple(map(str, said.get("state_names", ()))),
            needs_state=bool(said.get("needs_state", False)),
            executed=None if said.get("must_execute") is None else int(said["must_execute"]),
            extra=dict(said.get("extra", {})),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the server at {client.url} says nothing of its policy's name, horizon and control rate; give 'about'"
        ) from error


def _connect(url: str, api_key: str | None, wait: float, stack: ExitStack) -> ClientConnection:
    deadline = time.monotonic() + wait
    headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
    while True:
        try:
            made = connect(
                url,
                additional_headers=headers,
                compression=None,
                max_size=None,
                ping_timeout=None,  # a policy that compiles for a minute is not gone
                proxy=None if urlsplit(url).hostname in _LOOPBACK else True,
            )
            return stack.enter_context(made)
        except InvalidStatus as error:
            raise UserError(f"the policy server at {url} refuses: {_refusal(error)}") from error
        except (InvalidURI, InvalidHandshake, InvalidMessage, ValueError) as error:
            raise UserError(f"there is no policy server at {url}: {error}") from error
        except OSError as error:
            if time.monotonic() >= deadline:
                raise UserError(f"nobody listens at {url}: {error}") from error
        time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))


def _refusal(error: InvalidStatus) -> str:
    body = (error.response.body or b"").decode(errors="replace").strip()
    return f"{error.response.status_code} {error.response.reason_phrase}" + (f", {body}" if body else "")
