"""The work on one part of a conversion: episodes read, translated and written as a data set of their own."""

from __future__ import annotations

import dataclasses
import multiprocessing
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selfflow_mm.errors import UserError

from .episode import Episode, Pictures, RawPictures
from .files import BadEpisode, EpisodeWriter
from .parts import PartsFolder
from .sources import RobotFiles
from .stream import Quarantined
from .targets import Target, TargetOptions

__all__ = ["PartJob", "write_part"]

#: Pictures of an episode that take less than this are decoded once and kept while it is written.
_KEPT_BYTES = 256 * 2**20
_AHEAD = 3


@dataclass(frozen=True)
class PartJob:
    """Part ``number`` of the conversion into ``target``: ``episodes`` of the source."""

    source: RobotFiles
    options: TargetOptions
    target: Path
    number: int
    episodes: range


def write_part(job: PartJob) -> int:
    """Write one part completely and say which it is. Damaged episodes are listed in its record.

    Raises:
        UserError: an episode does not fit what the data set declares.
    """
    parts, target = PartsFolder(job.target), Target(job.source, job.options)
    folder = parts.begun(job.number)
    quarantine: list[Quarantined] = []
    episodes = steps = 0
    try:
        folder.mkdir()
        with ExitStack() as stack:
            writer: EpisodeWriter | None = None
            for result in _read_ahead(job.source, job.episodes, job.options.decodes):
                _stop_if_alone()
                parts.tally()
                if isinstance(result, Quarantined):
                    quarantine.append(result)
                    continue
                if writer is None:  # a part of damaged episodes only has no data set
                    writer = stack.enter_context(target.writer(folder / "data"))
                writer.write(target.naming.translate(result))
                episodes, steps = episodes + 1, steps + result.length
        lost = [dataclasses.asdict(entry) for entry in quarantine]
        chosen = len(job.episodes)
        parts.finish(job.number, {"chosen": chosen, "episodes": episodes, "steps": steps, "quarantine": lost})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return job.number


def _stop_if_alone() -> None:
    """A worker whose parent was killed must not go on beside the next run of the same command."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise SystemExit(1)


def _read_ahead(source: RobotFiles, chosen: range, decode: bool) -> Iterator[Episode | Quarantined]:
    """The episodes in order; a thread reads and decodes a few ahead, because decoding lets go of the interpreter."""
    with ThreadPoolExecutor(1, thread_name_prefix="episodes") as pool:
        waiting: deque[Future[Episode | Quarantined]] = deque()
        try:
            for number in chosen:
                waiting.append(pool.submit(_read, source, number, decode))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _read(source: RobotFiles, number: int, decode: bool) -> Episode | Quarantined:
    shard, index = source.locate(number)
    try:
        episode = source.files.read(shard, index)
        if episode.length == 0:
            raise BadEpisode(source.files.shards[shard].name, index, "it has no step")
    except BadEpisode as error:
        return Quarantined(error.shard, error.index, error.reason)
    if not decode:
        return episode
    try:
        return dataclasses.replace(episode, pictures={name: _decoded(p) for name, p in episode.pictures.items()})
    except UserError as error:
        return Quarantined(source.files.shards[shard].name, index, str(error))


def _decoded(pictures: Pictures) -> Pictures:
    """The same pictures, every one known to decode: a video cannot take back frames that it has begun to write."""
    kept, size = [], 0
    for start in range(0, len(pictures), 32):
        steps = range(start, min(start + 32, len(pictures)))
        frames = pictures.read(steps)
        size += frames.nbytes
        if size <= _KEPT_BYTES:
            kept.append(frames)
    return RawPictures(np.concatenate(kept)) if kept and size <= _KEPT_BYTES else pictures
