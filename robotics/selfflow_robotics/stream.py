"""Episodes of a data set one after another: in a seeded order, shared between ranks, resumable to the episode.

The order of an epoch is a pure function of (seed, epoch) and of the stated shard lengths: shards are permuted, taken in
groups, and the episodes of a group permuted together. So a place in it is two numbers, the epoch and the position, and
they are all that a run needs to go on. At most one group's shards are open at a time, however large the data set is.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from .files import BadEpisode
from .robot_episode import RobotEpisode
from .sources import RobotFiles

__all__ = ["EpisodeStream", "Quarantined"]

STATE_VERSION = 1
_REMEMBERED = 1024  # places of the episodes given last, so that who finds one damaged later can have it left out


@dataclass(frozen=True)
class Quarantined:
    """An episode that could not be read, and why. It is left out from then on, and never lost in silence.

    ``index`` -1 stands for a whole shard whose file is missing.
    """

    shard: str
    index: int
    reason: str


@dataclass(frozen=True)
class _Place:
    epoch: int
    position: int  # in the common order of the epoch
    shard: int
    index: int


class EpisodeStream:
    """The episodes of a data set, ``epochs`` times over or for ever.

    Args:
        source: an opened data set.
        seed: of the order.
        shuffle: False gives the stored order.
        epochs: how often each episode comes; None for ever.
        group: shards whose episodes are mixed with one another. More mixes better and opens more files.
        rank, world: this process sees every ``world``-th episode of the common order, from ``rank`` on; together they
            see each once.
        ahead: episodes that a thread reads ahead; 0 reads when asked.
        without: (shard, index) of episodes that are not in the order at all, such as those held out.

    Attributes:
        epoch: of the episode that comes next.
        quarantine: what could not be read so far, each once.

    Raises:
        UserError: a setting out of range; while iterating, a whole epoch without one readable episode.
    """

    def __init__(
        self,
        source: RobotFiles,
        *,
        seed: int = 0,
        shuffle: bool = True,
        epochs: int | None = None,
        group: int = 8,
        rank: int = 0,
        world: int = 1,
        ahead: int = 2,
        without: Collection[tuple[int, int]] = (),
    ) -> None:
        if not 0 <= rank < world:
            raise UserError(f"rank {rank} of {world} processes: it goes from 0 to {world - 1}")
        for name, value, least in (("seed", seed, 0), ("group", group, 1), ("ahead", ahead, 0), ("epochs", epochs, 1)):
            if value is not None and value < least:
                raise UserError(f"{name} is at least {least}, got {value}")
        missing = source.files.missing
        self._shards = [number for number in range(len(source.files.shards)) if number not in missing]
        stored = sum(source.files.shards[number].episodes for number in self._shards)
        self.without = frozenset(place for place in without if place[0] not in missing)
        self._total = stored - len(self.without)  # of an epoch
        if self._total <= rank:
            out = f" of which {len(self.without)} are left out," if self.without else ""
            raise UserError(f"{source.files.folder} holds {stored} episodes,{out} and none is left for rank {rank}")
        self.source = source
        self.seed, self.shuffle, self.epochs, self.group = seed, shuffle, epochs, group
        self.rank, self.world, self.ahead = rank, world, ahead
        self.epoch = 0
        self.quarantine = [
            Quarantined(source.files.shards[number].name, -1, "the file is missing") for number in sorted(missing)
        ]
        self._position = 0  # where the next round of all ranks begins in the common order
        self._bad: dict[tuple[int, int], str] = {}  # why; found by the reading thread, listed when its turn comes
        self._listed: set[tuple[int, int]] = set()
        self._given: OrderedDict[str, _Place] = OrderedDict()

    def __iter__(self) -> Iterator[RobotEpisode]:
        """Go on from the present place. One iterator at a time: they would share the place."""
        lost = 0  # in a row
        for place, result in self._results():
            self._advance(place)
            if isinstance(result, RobotEpisode):
                lost = 0
                self._remember(result.id, place)
                yield result
                continue
            self._exclude(place, result)
            lost += 1
            if lost >= -(-self._total // self.world):
                raise UserError(
                    f"not one episode of {self.source.files.folder} can be read; the last one failed because {result}"
                )

    def exclude(self, episode: RobotEpisode, reason: str) -> None:
        """Leave out an episode in which its reader found damage later, such as a picture that does not decode."""
        place = self._given.get(episode.id)
        if place is not None:
            self._exclude(place, reason)

    def state_dict(self) -> dict[str, Any]:
        """The place in the sequence, in plain values: what follows it is the same in whatever process it is loaded."""
        return {
            "version": STATE_VERSION,
            "data": self._fingerprint,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "group": self.group,
            "epoch": self.epoch,
            "position": self._position,
            "quarantine": [asdict(entry) for entry in self.quarantine],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken. The number of ranks may be another one: then all load rank 0's state.

        Raises:
            UserError: the state is of other data, another order, or another version.
        """
        if state.get("version") != STATE_VERSION:
            raise UserError(f"the state of the episode stream has version {state.get('version')}, not {STATE_VERSION}")
        if state["data"] != self._fingerprint:
            raise UserError(f"the data in {self.source.files.folder} are not those that the run was stopped with")
        for name in ("seed", "shuffle", "group"):
            if state[name] != getattr(self, name):
                raise UserError(f"the run was stopped with {name} {state[name]}, now it is {getattr(self, name)}")
        self.epoch, self._position = int(state["epoch"]), int(state["position"])
        self.quarantine = [Quarantined(**entry) for entry in state["quarantine"]]
        numbers = {shard.name: number for number, shard in enumerate(self.source.files.shards)}
        known = [entry for entry in self.quarantine if entry.shard in numbers and entry.index >= 0]
        self._bad = {(numbers[entry.shard], entry.index): entry.reason for entry in known}
        self._listed = set(self._bad)

    def _results(self) -> Iterator[tuple[_Place, RobotEpisode | str]]:
        if self.ahead == 0:
            yield from ((place, self._read(place)) for place in self._places())
            return
        with ThreadPoolExecutor(1, thread_name_prefix="episodes") as pool:
            waiting: deque[tuple[_Place, Future[RobotEpisode | str]]] = deque()
            try:
                for place in self._places():
                    waiting.append((place, pool.submit(self._read, place)))
                    if len(waiting) > self.ahead:
                        first, future = waiting.popleft()
                        yield first, future.result()
                while waiting:
                    first, future = waiting.popleft()
                    yield first, future.result()
            finally:
                for _, future in waiting:
                    future.cancel()

    def _places(self) -> Iterator[_Place]:
        """This rank's places from the present one on; runs ahead of what has been given."""
        epoch, start = self.epoch, self._position
        while self.epochs is None or epoch < self.epochs:
            position = 0
            for group in self._groups(epoch):
                last = position + len(group)
                first = max(position, start + self.rank)
                first += (start + self.rank - first) % self.world
                for at in range(first, last, self.world):
                    shard, index = (int(number) for number in group[at - position])
                    yield _Place(epoch, at, shard, index)
                position = last
            epoch, start = epoch + 1, 0

    def _groups(self, epoch: int) -> Iterator[np.ndarray]:
        """The epoch's order, group by group: ``(n, 2)`` of (shard, index)."""
        shards = np.array(self._shards)
        if self.shuffle:
            shards = _generator(self.seed, epoch).permutation(shards)
        for number, start in enumerate(range(0, len(shards), self.group)):
            chosen = shards[start : start + self.group]
            places = [(shard, index) for shard in chosen for index in range(self.source.files.shards[shard].episodes)]
            pairs = np.array([place for place in places if place not in self.without], np.int64).reshape(-1, 2)
            yield _generator(self.seed, epoch, number).permutation(pairs) if self.shuffle else pairs

    def _read(self, place: _Place) -> RobotEpisode | str:
        """The episode, or why there is none."""
        known = self._bad.get((place.shard, place.index))
        if known is not None:
            return known
        try:
            return self.source.read(place.shard, place.index)
        except BadEpisode as error:
            return self._bad.setdefault((place.shard, place.index), error.reason)

    def _advance(self, place: _Place) -> None:
        self.epoch, self._position = place.epoch, place.position - self.rank + self.world
        if self._position + self.rank >= self._total:  # nothing is left for this rank in this epoch
            self.epoch, self._position = place.epoch + 1, 0

    def _exclude(self, place: _Place, reason: str) -> None:
        self._bad.setdefault((place.shard, place.index), reason)
        if (place.shard, place.index) not in self._listed:
            self._listed.add((place.shard, place.index))
            self.quarantine.append(Quarantined(self.source.files.shards[place.shard].name, place.index, reason))

    def _remember(self, name: str, place: _Place) -> None:
        self._given[name] = place
        while len(self._given) > _REMEMBERED:
            self._given.popitem(last=False)

    @cached_property
    def _fingerprint(self) -> str:
        """Tells data sets apart by their shards' names and lengths, so that a position means the same episode."""
        files = self.source.files
        listing: list[Any] = [
            files.format,
            files.name,
            files.split,
            [(files.shards[n].name, files.shards[n].episodes) for n in self._shards],
        ]
        if self.without:
            listing.append(sorted(self.without))
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:16]


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(key))))
