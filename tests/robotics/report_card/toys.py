"""A world that can be imagined exactly, and models of it that are right or wrong in known ways.

The picture is a square on a plain ground. Actions x and y move it by whole pixels, 100 to a unit, and it stops at the
edge; the gripper sets its colour; nothing else shows. So a picture tells all that a model needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selfflow_robotics.episode import Episode, RawPictures
from selfflow_robotics.interfaces import Observation, PolicyAbout, Request, WorldModelAbout
from selfflow_robotics.sources import RobotFiles
from tests.robotics.memory import LAYOUT, MemoryFiles

HEIGHT, WIDTH, SIDE = 24, 32, 6
OPEN, CLOSED = (180, 150, 150), (110, 180, 110)


def draw(ground: int, row: int, column: int, open_: bool) -> np.ndarray:
    picture = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
    picture[row : row + SIDE, column : column + SIDE] = OPEN if open_ else CLOSED
    return picture


def read(picture: np.ndarray) -> tuple[int, int, int]:
    """Ground, row and column of a picture by :func:`draw`."""
    colours = (np.array(OPEN), np.array(CLOSED))
    square = np.any([(picture == colour).all(axis=-1) for colour in colours], axis=0)
    rows, columns = np.nonzero(square)
    return int(picture[~square][0][0]), int(rows.min()), int(columns.min())


def move(picture: np.ndarray, action: np.ndarray) -> np.ndarray:
    ground, row, column = read(picture)
    column = int(np.clip(column + round(float(action[0]) * 100), 0, WIDTH - SIDE))
    row = int(np.clip(row + round(float(action[1]) * 100), 0, HEIGHT - SIDE))
    return draw(ground, row, column, action[6] > 0.5)


def play(first: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """``(T, H, W, 3)`` after each action."""
    film = [first]
    for action in actions:
        film.append(move(film[-1], action))
    return np.stack(film[1:]) if len(actions) else np.zeros((0, HEIGHT, WIDTH, 3), np.uint8)


class SquareFiles(MemoryFiles):
    """Episodes of the world; ``length`` actions move the square at random, the last one shows nothing.

    ``shift`` makes other episodes; ``rightward`` ones drift to the right and jump to the edge at their end.
    """

    def __init__(self, lengths: list[list[int]], shift: int = 0, rightward: bool = False, split: str = "val") -> None:
        super().__init__(lengths, split=split)
        self.splits = {split: sum(map(len, lengths))}
        self.shift, self.rightward = shift, rightward

    def read(self, shard: int, index: int) -> Episode:
        length = self.lengths[shard][index]
        random = np.random.default_rng([shard, index, self.shift])
        actions = np.zeros((length, 7), np.float32)
        actions[:, :2] = random.integers(-4, 5, (length, 2)) / 100
        actions[:, 2:6] = random.normal(0, 0.05, (length, 4))
        actions[:, 6] = random.random(length) < 0.5
        first = draw(90, int(random.integers(0, 18)), int(random.integers(0, 26)), True)
        if self.rightward:
            first = draw(90, int(random.integers(0, 18)), 0, True)
            actions[:, 0] = np.where(np.arange(length) < length - 2, 0.01, 0.26)
        frames = np.concatenate([first[None], play(first, actions[:-1])])
        return Episode(
            id=f"{self.split}-{self.shift}/{shard}/{index}",
            length=length,
            columns={"action": actions, "observation/state": np.zeros((length, 2), np.float32)},
            texts={"language_instruction": ["open it" if self.rightward else f"move {shard} {index}"] * length},
            pictures={"observation/image": RawPictures(frames)},
        )


def squares(lengths: list[list[int]], shift: int = 0, rightward: bool = False, split: str = "val") -> RobotFiles:
    return RobotFiles(SquareFiles(lengths, shift, rightward, split), LAYOUT)


@dataclass
class Model:
    """``kind``: ``right`` imagines exactly; ``copies`` repeats its picture; ``ignores`` moves by its seed alone;
    ``stubborn`` moves always in the same way; ``noisy`` is right but for Gaussian noise of deviation 8.
    """

    kind: str = "right"
    calls: int = 0

    @property
    def about(self) -> WorldModelAbout:
        low, high = (-0.04,) * 6 + (0.0,), (0.04,) * 6 + (1.0,)
        return WorldModelAbout(self.kind, HEIGHT, WIDTH, 5.0, 8, action_low=low, action_high=high)

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
        self.calls += 1
        return np.stack([self._film(*row) for row in zip(images, actions, seeds, strict=True)])

    def _film(self, first: np.ndarray, actions: np.ndarray, seed: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        if self.kind == "copies":
            return np.repeat(first[None], len(actions), axis=0)
        if self.kind in ("ignores", "stubborn"):
            drawn = np.random.default_rng(seed if self.kind == "ignores" else 5)
            actions = np.concatenate([drawn.integers(-4, 5, (len(actions), 2)) / 100, np.ones((len(actions), 5))], 1)
        film = play(first, actions)
        if self.kind == "noisy":
            film = np.rint(film + random.normal(0, 8, film.shape)).astype(np.uint8)
        return film


class Tokenizing(Model):
    """A model whose tokenizer darkens by 4 levels."""

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        return images - 4


@dataclass
class Pusher:
    """Pushes to the right by ``pixels`` with each action; ``needs`` a state or not."""

    pixels: int
    needs: bool = False

    @property
    def about(self) -> PolicyAbout:
        return PolicyAbout(f"push {self.pixels}", 4, 5.0, needs_state=self.needs)

    def chunks(self, requests: Sequence[Request]) -> np.ndarray:
        result = np.zeros((len(requests), 4, 7), np.float32)
        result[..., 0] = self.pixels / 100
        for request in requests:
            assert isinstance(request.observation, Observation) and request.observation.state is None
        return result


class AtRightEdge:
    """An exact judge: the square is at the right edge."""

    def done(self, first: np.ndarray, later: np.ndarray) -> np.ndarray:
        return np.array([read(picture)[2] == WIDTH - SIDE for picture in later])
