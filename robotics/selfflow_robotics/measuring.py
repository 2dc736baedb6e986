"""Statistics of a data set on disk, with one process or several."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selfflow_mm.data.parallel import Crash, ordered_map
from selfflow_mm.errors import UserError

from .collect import Collector
from .files import BadEpisode
from .sources import RobotFiles
from .statistics import Statistics

__all__ = ["measure"]

_EPISODES = 100  # of one piece of work


@dataclass(frozen=True)
class _Piece:
    source: RobotFiles
    episodes: range
    folder: str


def measure(
    source: RobotFiles, episodes: range | None = None, *, workers: int = 0, progress: bool = True
) -> Statistics:
    """Statistics of all frames of an opened data set; the bits do not depend on ``workers``.

    Args:
        source: what to measure.
        episodes: numbers in the split; all unless given.
        workers: processes; 0 is this one.

    Raises:
        UserError: not one episode can be read, or what :func:`selfflow_robotics.collect.collect` refuses.
    """
    from tqdm import tqdm

    chosen = range(len(source)) if episodes is None else episodes
    lost = 0
    reason = "there is none"
    with tempfile.TemporaryDirectory(prefix="selfflow-statistics-") as place:
        (Path(place) / "all").mkdir()
        everything = Collector(Path(place) / "all")
        with tqdm(total=len(chosen), unit="episode", disable=not progress) as bar:
            for result in ordered_map(_collect, _pieces(source, chosen, place), workers):
                if isinstance(result, Crash):
                    raise UserError("a process that collected statistics died, perhaps for lack of memory")
                piece, collector, bad = result
                lost += len(bad)
                reason = bad[0] if bad else reason
                if len(bad) < len(piece.episodes):
                    everything.merge(collector)
                shutil.rmtree(piece.folder)
                bar.update(len(piece.episodes))
        if lost == len(chosen):
            raise UserError(f"not one episode of {source.files.folder} can be read: {reason}")
        files = source.files
        return everything.finish(
            dataset=files.name,
            version=str(getattr(files, "version", "")),
            split=files.split,
            layout=source.layout.name,
            quarantined=lost,
        )


def _pieces(source: RobotFiles, chosen: range, place: str) -> Iterator[_Piece]:
    for start in range(0, len(chosen), _EPISODES):
        yield _Piece(source, chosen[start : start + _EPISODES], tempfile.mkdtemp(dir=place))


def _collect(piece: _Piece) -> tuple[_Piece, Collector, list[str]]:
    collector, bad = Collector(piece.folder), []
    for number in piece.episodes:
        try:
            collector.add(piece.source.read(*piece.source.locate(number)))
        except BadEpisode as error:
            bad.append(str(error))
    return piece, collector, bad
