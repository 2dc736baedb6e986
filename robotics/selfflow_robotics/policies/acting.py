"""A policy as one episode needs it: seeds for its questions, and ensembling of what it answers."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import ChunkPolicy, Observation, PolicyAbout, Request
from .ensembling import adaptive_weights, blend, overlap, temporal_weights
from .seeds import derived_seed

__all__ = ["ActingOptions", "Policy"]


def _check_seed(seed: int) -> None:
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
        raise UserError(f"a seed is a whole number, at least 0 and below 2**63, got {seed!r}")


@dataclass(frozen=True)
class ActingOptions:
    """How chunks are used.

    Attributes:
        executed: actions that are carried out before the next chunk is asked for; None: all of it.
        ensemble: ``temporal`` (ACT) or ``adaptive`` (CogACT) average the chunks that overlap; ``off`` takes the newest.
        decay: of the temporal weights ``exp(-decay * i)``, i counting from the oldest chunk.
        alpha: of the adaptive weights ``exp(alpha * cos(previous, current))``.
        memory: how many past chunks are averaged with the new one; None: all that still reach it.
        seed: of everything random.

    Raises:
        UserError: a value out of range.
    """

    executed: int | None = None
    ensemble: Literal["off", "temporal", "adaptive"] = "off"
    decay: float = 0.01
    alpha: float = 0.1
    memory: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.executed is not None and self.executed < 1:
            raise UserError(f"at least one action of a chunk is carried out, not {self.executed}")
        if self.ensemble not in ("off", "temporal", "adaptive"):
            raise UserError(f"chunks are averaged by 'temporal' or 'adaptive' or not ('off'), not by '{self.ensemble}'")
        if self.memory is not None and self.memory < 1:
            raise UserError(f"at least one past chunk is averaged with the new one, not {self.memory}")
        for name in ("decay", "alpha"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"the ensemble's {name} is {getattr(self, name)}; it is a finite number")
        _check_seed(self.seed)


class Policy:
    """One episode after another with a policy that has no memory.

    Ask with :meth:`act`; or, where many episodes share one call of the policy, put the :meth:`request` of each into one
    ``chunks()`` and give every episode its row by :meth:`answer`. Of the chunk that comes back the first ``executed``
    actions are meant to be carried out before the next question: ensembling takes each chunk to begin that many control
    steps after the one before. Chunks that were asked for under another instruction are forgotten.

    Args:
        chunks: the policy; any number of ``Policy`` may share it.
        options: how its chunks are used.

    Attributes:
        about: what the policy says of itself.
        executed: how many actions of a chunk to carry out.

    Raises:
        UserError: more actions are to be carried out than a chunk has, or chunks that do not overlap averaged, or
            another number carried out than the policy was made for.
    """

    def __init__(self, chunks: ChunkPolicy, options: ActingOptions = ActingOptions()) -> None:  # noqa: B008 - frozen
        self.chunks, self.options = chunks, options
        self.about: PolicyAbout = chunks.about
        about = self.about
        self.executed = options.executed or about.executed or about.horizon
        if self.executed > about.horizon:
            raise UserError(
                f"a chunk of {about.name} has {about.horizon} actions, too few to carry out {self.executed}"
            )
        if options.ensemble != "off" and self.executed == about.horizon:
            raise UserError(
                f"chunks do not overlap where all {about.horizon} actions are carried out, so there is nothing to "
                "average; set 'executed' to fewer, or the ensemble to 'off'"
            )
        if about.executed not in (None, self.executed):
            raise UserError(f"{about.name} was made to have {about.executed} actions carried out, not {self.executed}")
        reach = -(-about.horizon // self.executed) - 1  # older chunks have no action for any step of the newest
        memory = reach if options.memory is None else min(reach, options.memory)
        self._past: deque[np.ndarray] = deque(maxlen=1 + memory)  # the newest first
        self._seed, self._episode, self._query = options.seed, 0, 0
        self._instruction = ""

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        *,
        options: ActingOptions = ActingOptions(),
        **settings: Any,  # noqa: B008 - frozen
    ) -> Policy:
        """A trained policy from its folder (or a baseline by its name), by :func:`load_policy`."""
        from .loading import load_policy

        return cls(load_policy(folder, **settings), options)

    def reset(self, seed: int | None = None) -> None:
        """Start an episode: nothing of the last one is remembered.

        Args:
            seed: of this episode and, counting on, of those after it; without one, the count goes on.
        """
        if seed is not None:
            _check_seed(seed)
            self._seed, self._episode = seed, 0
        elif self._query:
            self._episode += 1
        self._query = 0
        self._past.clear()

    def request(self, observation: Observation) -> Request:
        """The question for what is seen now; the same until it is answered.

        Its seed is a hash of (seed, episodes so far, questions so far).

        Raises:
            UserError: the policy needs a state and the observation has none, or one of another width.
        """
        about, state = self.about, observation.state
        if about.needs_state and state is None:
            raise UserError(f"{about.name} needs the robot's state ({', '.join(about.state_names)}), and there is none")
        if about.state_names and state is not None and len(state) != len(about.state_names):
            raise UserError(
                f"{about.name} takes a state of {len(about.state_names)} numbers ({', '.join(about.state_names)}), "
                f"got {len(state)}"
            )
        if observation.instruction != self._instruction:
            self._past.clear()
            self._instruction = observation.instruction
        return Request(observation, derived_seed("query", self._seed, self._episode, self._query), self._query)

    def answer(self, chunk: np.ndarray) -> np.ndarray:
        """The policy's ``(H, D)`` for the last request -> ``(H, D)`` float32 to act by.

        Raises:
            UserError: another shape, or numbers that are not finite.
        """
        about = self.about
        if chunk.shape != (about.horizon, len(about.action_names)):
            raise UserError(
                f"{about.name} answered with a chunk of shape {chunk.shape}; it said {about.horizon} actions of "
                f"{len(about.action_names)} numbers"
            )
        if not np.all(np.isfinite(chunk)):
            raise UserError(f"{about.name} answered with numbers that are not finite (nan or infinity)")
        self._query += 1
        if self.options.ensemble == "off":
            return chunk.astype(np.float32)
        self._past.appendleft(chunk.copy())
        members, present = overlap(self._past, self.executed)
        if self.options.ensemble == "temporal":
            weights = temporal_weights(present, self.options.decay)
        else:
            weights = adaptive_weights(members, present, self.options.alpha)
        return blend(members, weights, about.action_names).astype(np.float32)

    def act(self, image: np.ndarray, instruction: str, state: np.ndarray | None = None) -> np.ndarray:
        """What to do now, ``(H, D)`` float32 in raw units; carry out the first ``executed`` rows.

        Args:
            image: ``(height, width, 3)`` uint8, of any size.
            instruction: what the robot is told.
            state: ``(S,)`` in raw units; an array or a list.

        Raises:
            UserError: an image, an instruction or a state that no policy takes.
        """
        if not isinstance(instruction, str):
            raise UserError(f"an instruction is a text, got {type(instruction).__name__}")
        if state is not None:
            try:
                state = np.asarray(state, np.float32)
            except (TypeError, ValueError) as error:
                raise UserError(f"a state is (S,) numbers, got {type(state).__name__}: {error}") from error
        request = self.request(Observation(np.asarray(image), instruction, state))
        return self.answer(self.chunks.chunks([request])[0])
