"""A world model whose truth is known: a bright spot that actions move by as many pixels as they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from selfflow_robotics.interfaces import PolicyAbout, Request, WorldModelAbout
from selfflow_robotics.resizing import Fit

HEIGHT, WIDTH, PIXELS = 24, 32, 20.0  # an action of 1 moves the spot by 20 pixels
LOW = (-0.2, -0.2, -0.1, -0.3, -0.3, -0.3, 0.0)
HIGH = (0.2, 0.2, 0.1, 0.3, 0.3, 0.3, 1.0)


def spot(row: float, column: float) -> np.ndarray:
    """The canvas with the spot there; the last line stays black."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    picture = 200 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8)
    picture[-1] = 0
    return np.repeat(picture.round().astype(np.uint8)[..., None], 3, axis=2)


def place(picture: np.ndarray) -> np.ndarray:
    """(row, column) of the spot: where the mass lies."""
    mass = picture[:-1, :, 0].astype(np.float64)
    rows, columns = np.mgrid[: HEIGHT - 1, :WIDTH]
    return np.array([(mass * rows).sum(), (mass * columns).sum()]) / mass.sum()


class DotWorld:
    """x moves the spot up, y to the left, as on the robot's table. The last line is noise, a hash of seed and time."""

    def __init__(self, horizon: int = 4, rate: float = 5.0, noise: bool = True, fit: Fit = "pad") -> None:
        self.about = WorldModelAbout("dots", HEIGHT, WIDTH, rate, horizon, action_low=LOW, action_high=HIGH, fit=fit)
        self.noise = noise
        self.calls: list[dict[str, Any]] = []

    @classmethod
    def from_pretrained(cls, folder: Any) -> DotWorld:
        return cls()

    def imagine(
        self,
        images: np.ndarray,
        actions: np.ndarray,
        instructions: Sequence[str] | None = None,
        *,
        seeds: Sequence[int],
        steps: int | None = None,
        context_level: float | None = None,
    ) -> np.ndarray:
        assert images.dtype == np.uint8 and images.shape[1:] == (HEIGHT, WIDTH, 3)
        assert actions.dtype == np.float32 and len(images) == len(actions) == len(seeds)
        told = [""] * len(images) if instructions is None else list(instructions)
        self.calls.append({"rows": len(images), "steps": steps, "level": context_level, "instructions": told})
        return np.stack([self._row(*row) for row in zip(images, actions, seeds, strict=True)])

    def _row(self, image: np.ndarray, actions: np.ndarray, seed: int) -> np.ndarray:
        found, film = place(image), []
        for t, action in enumerate(actions):
            if t and t % self.about.horizon == 0:
                found = place(film[-1])
            found = np.clip(found - PIXELS * action[:2], (5, 5), (HEIGHT - 7, WIDTH - 6))
            picture = spot(*found)
            if self.noise:
                picture[-1] = np.random.default_rng([seed, t]).integers(0, 256, (WIDTH, 3))
            film.append(picture)
        return np.stack(film)


class ConstantPolicy:
    """Moves in x and y by what its seed says, by the same multiples of 0.05 at every step; z counts the steps."""

    def __init__(self, horizon: int = 3, rate: float = 5.0, needs_state: bool = False) -> None:
        names = ("a", "b") if needs_state else ()
        self.about = PolicyAbout("constant", horizon, rate, state_names=names, needs_state=needs_state)
        self.requests: list[Request] = []

    def chunks(self, requests: Sequence[Request]) -> np.ndarray:
        self.requests.extend(requests)
        result = np.zeros((len(requests), self.about.horizon, 7), np.float32)
        for row, request in zip(result, requests, strict=True):
            row[:, :2] = self.move(request.seed)
            row[:, 2], row[:, 6] = 0.01 * np.arange(len(row)), 1
        return result

    @staticmethod
    def move(seed: int) -> np.ndarray:
        return 0.05 * np.random.default_rng(seed).integers(-2, 3, 2)
