"""A policy on a server where a policy is wanted: rollouts, dreams and report cards ask it as they ask one in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import PolicyAbout, Request
from .client import PolicyClient, about_of
from .observations import MAX_ROWS

__all__ = ["ServedPolicy"]


class ServedPolicy:
    """The policy behind a connection; a :class:`selfflow_robotics.interfaces.ChunkPolicy`.

    A server of ours answers from a request alone (``query`` in its metadata), a batch in one message, so what comes of
    it is what the policy would give here. Another server of openpi's protocol is asked one observation after another
    and draws its own noise.

    Args:
        url: ``ws://host:port``.
        about: of the policy, for servers that do not say it (openpi's own).
        api_key: for servers that ask for one.
        wait: seconds for which to try again while nobody listens there.
        keys: names that such a server has for ``image``, ``prompt`` and ``state``, where they differ.

    Raises:
        UserError: nobody there, not let in, or a server that says nothing of its policy without ``about``.
    """

    def __init__(
        self,
        url: str,
        *,
        about: PolicyAbout | None = None,
        api_key: str | None = None,
        wait: float = 0.0,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self._keys = keys
        self._client = PolicyClient(url, api_key, wait)
        try:
            said = about_of(self._client) if about is None else about
        except UserError:
            self._client.close()
            raise
        self._exact = {"query", "batch"} <= set(self._client.metadata.get("understands", ()))
        self.about = replace(said, extra={**said.extra, "served": True, "seeds_reach_it": self._exact})

    def chunks(self, requests: Sequence[Request]) -> np.ndarray:
        """``(B, H, D)`` float32 in raw units.

        Raises:
            UserError: what the server says is wrong, it is gone, or it answers with another shape.
        """
        shape = (self.about.horizon, len(self.about.action_names))
        found = np.empty((len(requests), *shape), np.float32)
        for rows in self._messages(requests):
            asked = [requests[row] for row in rows]
            actions = self._ask(asked)
            if actions.shape != (len(rows), *shape):
                raise UserError(
                    f"the policy server at {self._client.url} answered with actions of {actions.shape[1:]} where it "
                    f"had promised {shape}"
                )
            found[rows] = actions
        return found

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _messages(self, requests: Sequence[Request]) -> list[list[int]]:
        """Rows that go into one message: pictures of one size, with states or without."""
        if not self._exact:
            return [[row] for row in range(len(requests))]
        alike: dict[Any, list[int]] = {}
        for row, request in enumerate(requests):
            state = request.observation.state
            alike.setdefault((request.observation.image.shape, None if state is None else len(state)), []).append(row)
        return [rows[i : i + MAX_ROWS] for rows in alike.values() for i in range(0, len(rows), MAX_ROWS)]

    def _ask(self, requests: Sequence[Request]) -> np.ndarray:
        seen = [request.observation for request in requests]
        if not self._exact:
            state = seen[0].state if self.about.state_names else None
            return self._client.act(seen[0].image, seen[0].instruction, state, self._keys)[None]
        message: dict[str, Any] = {
            "image": np.stack([one.image for one in seen]),
            "prompt": [one.instruction for one in seen],
            "seed": [request.seed for request in requests],
            "query": [request.query for request in requests],
        }
        states = [one.state for one in seen if one.state is not None]
        if states:
            message["state"] = np.stack(states)
        actions = self._client.infer(message).get("actions")
        if not isinstance(actions, np.ndarray) or actions.ndim != 3:
            raise UserError(f"the policy server at {self._client.url} answered without 'actions' of shape (B, H, D)")
        return actions.astype(np.float32)
