"""Robot data from one format to another, with everything kept that the other format can hold.

Episodes are written in parts, by one process or several, and joined when all are there: a conversion that was killed
goes on with the parts that are missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Generator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from selfflow_mm.data.parallel import Crash, ordered_map
from selfflow_mm.errors import UserError

from .part_writing import PartJob, write_part
from .parts import PartRecord, PartsFolder, quarantine_lines
from .sources import RobotFiles
from .stream import Quarantined
from .targets import QUARANTINE, Target, TargetOptions

__all__ = ["Converted", "TargetOptions", "convert"]


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
    workers: int = 0,
    episodes_per_part: int | None = None,
    progress: bool = True,
) -> Converted:
    """Write ``source`` in another format into the folder ``target``.

    Damaged episodes are left out, told in the result, and listed in ``quarantine.jsonl`` of the new folder.

    Parts that are done lie in ``.parts`` of the folder until everything is; the same call goes on with the others after
    it was stopped in whatever way. The result has the same bytes with any number of ``workers``.

    Args:
        source: an opened data set with its layout.
        target: a folder that is not there yet, unless ``options.overwrite``.
        episodes: numbers in the split; all unless given.
        workers: processes; 0 is this one.
        episodes_per_part: of a LeRobot data set, whose files begin anew with each part; 50 to 500 unless given, the
            more the larger the data set is. An RLDS data set's parts are its shards.

    Raises:
        UserError: a target that exists or holds the parts of another conversion, episodes that do not exist, or not
            one that can be read.
    """
    chosen = range(len(source)) if episodes is None else episodes
    if len(chosen) == 0:
        raise UserError("no episode was chosen")
    source.locate(chosen[0]), source.locate(chosen[-1])
    making, parts = Target(source, options), PartsFolder(target)
    size = options.episodes_per_part(len(chosen))
    if episodes_per_part is not None and options.to == "lerobot":
        size = episodes_per_part
    if size < 1 or workers < 0:
        raise UserError(f"a part has at least one episode and workers are at least 0, got {size} and {workers}")
    stretches = [chosen[start : start + size] for start in range(0, len(chosen), size)]

    def check() -> None:
        making.writer(target, options.overwrite)

    with parts.opened(_plan(source, options, chosen, size), options.overwrite, check):
        jobs = [PartJob(source, options, target, number, stretch) for number, stretch in enumerate(stretches)]
        records = _written(parts, jobs, len(chosen), workers, progress)
        quarantine = tuple(entry for record in records for entry in record.quarantine)
        whole = [record for record in records if record.episodes]
        if not whole:
            parts.discard()
            raise UserError(f"not one episode of {source.files.folder} can be read: {quarantine[0].reason}")
        if not parts.placing:
            parts.joined.mkdir(exist_ok=True)
            making.join([record.data for record in whole], parts.joined, target, progress)
            if quarantine:
                (parts.joined / QUARANTINE).write_text(quarantine_lines(quarantine), encoding="utf-8")
        parts.place([] if parts.placing else making.replaced(target), check)
    return Converted(target, sum(one.episodes for one in whole), sum(one.steps for one in whole), quarantine)


def _written(parts: PartsFolder, jobs: list[PartJob], total: int, workers: int, progress: bool) -> list[PartRecord]:
    """The records of all parts, those that are missing being made."""
    missing = [job for job in jobs if parts.record(job.number) is None]
    done = total - sum(len(job.episodes) for job in missing)
    with parts.progress(total, done, progress):
        results = ordered_map(write_part, missing, min(workers, len(missing)))
        # Its processes end with it, before what they have begun is removed.
        with contextlib.closing(cast(Generator[int | Crash, None, None], results)):
            for result in results:
                if isinstance(result, Crash):
                    raise UserError(
                        "a process that converted died, perhaps for lack of memory; the same command goes on with "
                        "what is missing (try fewer --workers)"
                    )
    records = [parts.record(job.number) for job in jobs]
    return [record for record in records if record is not None]


def _plan(source: RobotFiles, options: TargetOptions, chosen: range, size: int) -> dict[str, Any]:
    """What the parts depend on, by the words for a user whose second run differs."""
    files = source.files
    try:
        program = version("selfflow-mm")
    except PackageNotFoundError:
        program = "unknown"
    rlds, lerobot = ("name", "episodes_per_shard"), ("pictures", "video_codec", "crf")
    used = ("to", *(rlds if options.to == "rlds" else lerobot))
    return {
        "the version of the program": program,
        "the source": [files.format, files.name, files.split],
        "the source's shards": _digest([(shard.name, shard.episodes) for shard in files.shards]),
        "the shards that are missing": _digest(sorted(files.missing)),
        "the layout": source.layout.name,
        "the layout's content": _digest(dataclasses.asdict(source.layout)),
        **{f"the option {name.replace('_', ' ')}": getattr(options, name) for name in used},
        "the control rate": source.control_rate if options.to == "lerobot" else None,
        "the episodes": [chosen.start, chosen.stop, chosen.step],
        "the episodes of a part": size,
    }


def _digest(content: Any) -> dict[str, str]:
    """What is too long to show."""
    return {"sha256": hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]}
