"""Robot data from one format to another, with everything kept that the other format can hold."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from selfflow_mm.errors import UserError

from .episode import Episode, Pictures, RawPictures
from .files import BadEpisode, EpisodeWriter
from .naming import Naming, lerobot_naming, rlds_naming
from .sources import RobotFiles
from .stream import Quarantined

__all__ = ["Converted", "TargetOptions", "convert"]

#: Pictures of an episode that take less than this are decoded once and kept while it is written.
_KEPT_BYTES = 256 * 2**20
_AHEAD = 3


@dataclass(frozen=True)
class TargetOptions:
    """How the new data set is written.

    Attributes:
        to: ``lerobot`` (v3.0) or ``rlds``.
        name: of an RLDS data set; the source's unless given.
        pictures: of a LeRobot data set: ``video``, or ``image`` to keep JPEG and PNG files bit for bit.
        video_codec, crf: of the videos; crf None is the codec's usual.
        episodes_per_shard: of an RLDS data set.
        overwrite: replace the folder if it holds a data set.
    """

    to: Literal["lerobot", "rlds"]
    name: str = ""
    pictures: Literal["video", "image"] = "video"
    video_codec: str = "h264"
    crf: int | None = None
    episodes_per_shard: int = 100
    overwrite: bool = False

    @property
    def decodes(self) -> bool:
        """Whether pictures are decoded on the way."""
        return self.to == "lerobot" and self.pictures == "video"


@dataclass(frozen=True)
class Converted:
    """What a conversion did."""

    folder: Path
    episodes: int
    steps: int
    quarantine: tuple[Quarantined, ...]


def convert(
    source: RobotFiles,
    target: Path,
    options: TargetOptions,
    *,
    episodes: range | None = None,
    progress: bool = True,
) -> Converted:
    """Write ``source`` in another format into the folder ``target``.

    Damaged episodes are left out, told in the result, and listed in ``quarantine.jsonl`` of the new folder.

    Args:
        source: an opened data set with its layout.
        target: a folder that is not there yet, unless ``options.overwrite``.
        episodes: numbers in the split; all unless given.

    Raises:
        UserError: a target that exists, episodes that do not, or not one episode that can be read.
    """
    from tqdm import tqdm

    chosen = range(len(source)) if episodes is None else episodes
    if len(chosen) == 0:
        raise UserError("no episode was chosen")
    source.locate(chosen[0]), source.locate(chosen[-1])
    naming = lerobot_naming(source) if options.to == "lerobot" else rlds_naming(source)
    quarantine: list[Quarantined] = []
    written = steps = 0
    with (
        _writer(source, target, options, naming) as writer,
        tqdm(total=len(chosen), unit="episode", disable=not progress) as bar,
    ):
        for result in _read_ahead(source, chosen, options.decodes):
            bar.update()
            if isinstance(result, Quarantined):
                quarantine.append(result)
                continue
            writer.write(naming.translate(result))
            written, steps = written + 1, steps + result.length
        if not written:
            raise UserError(f"not one episode of {source.files.folder} can be read: {quarantine[0].reason}")
    if quarantine:
        lines = "".join(json.dumps(dataclasses.asdict(entry)) + "\n" for entry in quarantine)
        (target / "quarantine.jsonl").write_text(lines, encoding="utf-8")
    return Converted(target, written, steps, tuple(quarantine))


def _writer(source: RobotFiles, target: Path, options: TargetOptions, naming: Naming) -> EpisodeWriter:
    if options.to == "lerobot":
        from .lerobot import LeRobotWriter

        return LeRobotWriter(
            target,
            features=naming.features,
            metadata_features=naming.metadata_features,
            fps=source.control_rate,
            robot_type=source.layout.robot,
            extra_info=naming.note,
            pictures=options.pictures,
            video_codec=options.video_codec,
            crf=options.crf,
            overwrite=options.overwrite,
        )
    from .rlds import RldsWriter

    return RldsWriter(
        target,
        name=options.name or re.sub(r"\W+", "_", source.files.name).lower(),
        split=source.files.split or "train",
        features=None if naming.tree else naming.features,
        metadata_features=None if naming.tree else naming.metadata_features,
        tree=naming.tree,
        episodes_per_shard=options.episodes_per_shard,
        description=f"Converted from {source.files.format} data by selfflow-mm.",
        overwrite=options.overwrite,
    )


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
