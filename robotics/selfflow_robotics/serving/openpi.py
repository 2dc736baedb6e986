"""openpi's protocol: packed metadata first, then each packed observation is answered by a chunk of actions.

An error is a *text* frame, after which the connection is closed with code 1011. Ours adds, and says in the metadata's
``understands``: ``reset`` (``{"reset": True}`` starts an episode and is answered alike; beside a picture it starts one
before answering), ``seed`` (beside it), ``batch`` (pictures with a leading axis), ``query`` (beside a picture, with a
``seed``: asks the policy itself, whose answer depends on this message alone, without episode or ensembling; both are
lists where the picture is a batch).

Source: Physical-Intelligence/openpi, ``src/openpi/serving/websocket_policy_server.py``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import PolicyAbout, Request
from .conversation import Send, sentence
from .episodes import Episodes
from .msgpack_numpy import pack, unpack
from .observations import Question, read_observations

__all__ = ["UNDERSTANDS", "OpenpiConversation", "metadata"]

#: What this server does beyond openpi's.
UNDERSTANDS = ("reset", "seed", "batch", "query")

_log = logging.getLogger(__name__)


def metadata(about: PolicyAbout, executed: int) -> dict[str, Any]:
    """What the server says first, as plain values.

    Args:
        about: of the policy.
        executed: actions of a chunk that are meant to be carried out before the next question.
    """
    return {
        "server": f"selfflow-mm {version('selfflow-mm')}",
        "understands": list(UNDERSTANDS),
        "name": about.name,
        "horizon": about.horizon,
        "executed": executed,
        "must_execute": about.executed,
        "control_rate": about.control_rate,
        "action_names": list(about.action_names),
        "state_names": list(about.state_names),
        "needs_state": about.needs_state,
        "extra": about.extra,
    }


class OpenpiConversation:
    """One connection.

    Args:
        episodes: of this connection.
        greeting: the packed metadata.
        prompt: what the robot is told where a message says nothing.
        seen: keys that were ignored before, in any connection; each is logged once.
    """

    def __init__(self, episodes: Episodes, greeting: bytes, prompt: str | None, seen: set[str]) -> None:
        self._episodes, self._greeting, self._prompt, self._seen = episodes, greeting, prompt, seen
        self._last_total: float | None = None

    async def open(self, send: Send) -> None:
        await send(self._greeting)

    async def take(self, message: bytes | str, send: Send) -> None:
        start = time.perf_counter()
        if isinstance(message, str):
            raise UserError("messages are binary (msgpack), this one is text")
        found = unpack(message)
        if not isinstance(found, dict):
            raise UserError(f"a message is a dictionary, this one is {type(found).__name__}")
        answer = await self._answer(found)
        if "actions" in answer and self._last_total is not None:
            answer["server_timing"]["prev_total_ms"] = 1000 * self._last_total
        await send(pack(answer))
        if "actions" in answer:
            self._last_total = time.perf_counter() - start

    async def fail(self, error: Exception, send: Send) -> bool:
        await send(sentence(error))
        return False

    async def _answer(self, message: Mapping[Any, Any]) -> dict[str, Any]:
        alone = "query" in message
        start, seed = (False, None) if alone else _reset(message)
        rest = {key: value for key, value in message.items() if key not in ("reset", "seed", "query")}
        # Everything is read before anything is changed.
        question = read_observations(rest, self._episodes.about, self._prompt) if rest or not start else None
        requests = _requests(message, question) if alone and question is not None else None
        if start:
            self._episodes.reset(seed)
        if question is None:
            return {"reset": True}
        for key in question.ignored:
            if key not in self._seen and len(self._seen) < 100:  # a client may make up keys without end
                self._seen.add(key)
                _log.warning("ignoring %r in clients' messages; said once", key)
        asked = time.perf_counter()
        acted = self._episodes.act(question.observations) if requests is None else self._episodes.ask(requests)
        actions = await acted
        timing = {"infer_ms": 1000 * (time.perf_counter() - asked)}
        return {"actions": actions if question.batched else actions[0], "server_timing": timing}


def _reset(message: Mapping[Any, Any]) -> tuple[bool, int | None]:
    start, seed = message.get("reset", False), message.get("seed")
    if not isinstance(start, (bool, np.bool_)):
        raise UserError(f"'reset' is True or False, not {type(start).__name__}")
    if seed is not None and not start:
        raise UserError("'seed' goes with 'reset', which starts an episode")
    return bool(start), None if seed is None else _whole(seed, "seed")


def _requests(message: Mapping[Any, Any], question: Question) -> list[Request]:
    """Each row of a message that asks the policy itself."""
    if "reset" in message:
        raise UserError("'query' asks without an episode, and 'reset' starts one; send one of them")
    rows = len(question.observations)
    columns = {}
    for name in ("seed", "query"):
        value = message.get(name, 0)
        values = value if isinstance(value, list) else [value]
        if isinstance(value, list) != question.batched or len(values) != rows:
            raise UserError(f"'{name}' is a number, or a list of {rows} numbers beside a batch of {rows} pictures")
        columns[name] = [_whole(number, name) for number in values]
    return [
        Request(seen, seed, query)
        for seen, seed, query in zip(question.observations, columns["seed"], columns["query"], strict=True)
    ]


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < 2**63:
        raise UserError(f"'{name}' is a whole number, at least 0 and below 2**63")
    return int(value)
