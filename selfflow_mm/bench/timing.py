"""Clocks: variants timed in turns, so that a machine which slows down slows all of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

#: A round shorter than this is repeated within the round, or the clock would time itself.
SHORTEST_ROUND = 0.2


@dataclass(frozen=True)
class Timing:
    """What the rounds of one variant gave: ``seconds`` of one call in each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between slowest and fastest round, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / 2 / self.median

    def times_faster_than(self, other: Timing) -> float:
        """How many times longer ``other`` took: the median over rounds of the ratio within a round.

        Both are timed in every round, so what the machine does besides falls out of the ratio.
        """
        return statistics.median(b / a for a, b in zip(self.seconds, other.seconds, strict=True))


def synchronize(device: torch.device) -> None:
    """Wait for the work an accelerator has been given; a CPU has none outstanding."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def once(action: Callable[[], object], device: torch.device, shortest: float = 0.0) -> float:
    """Seconds of one call; of one among many in a row, where one takes less than ``shortest`` seconds."""
    seconds = _several(action, device, 1)
    return _several(action, device, math.ceil(shortest / max(seconds, 1e-7))) if seconds < shortest else seconds


def _several(action: Callable[[], object], device: torch.device, calls: int) -> float:
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(calls):
        action()
    synchronize(device)
    return (time.perf_counter() - begin) / calls


def in_turns(
    actions: Mapping[str, Callable[[], object]],
    device: torch.device,
    rounds: int,
    *,
    warm_up: int = 1,
    shortest: float = SHORTEST_ROUND,
    after_round: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time the actions A B C, A B C, ...: ``rounds`` times each, after ``warm_up`` calls of each that do not count.

    Args:
        actions: name -> a call without arguments.
        device: what is waited for before a clock is read.
        rounds: at least 1.
        shortest: see :func:`once`.
        after_round: called after the warm-up and after every round (progress).
    """
    for action in actions.values():
        for _ in range(warm_up):  # compiles, fills caches, lets allocators grow
            _several(action, device, 1)
    after_round()
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            seconds[name].append(once(action, device, shortest))
        after_round()
    return {name: Timing(tuple(values)) for name, values in seconds.items()}
