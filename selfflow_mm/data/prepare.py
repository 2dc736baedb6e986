"""``prepare``: any collection of media becomes a data set of equal clips, and a report of what was done to each file.

The result depends on the source and the options only, not on the number of processes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selfflow_mm.data.parallel import Crash, available_cores, ordered_map
from selfflow_mm.data.prepare_clips import Outcome, prepare_item
from selfflow_mm.data.prepare_options import MODALITIES, PrepareOptions
from selfflow_mm.data.prepare_sources import Item, list_items
from selfflow_mm.data.shards import ShardWriter
from selfflow_mm.errors import UserError

REPORT_FORMAT, REPORT_VERSION = "selfflow-prepare-report", 1


@dataclass
class Report:
    """What ``report.json`` holds.

    ``rows`` has one entry for each source file: ``source``, ``clips`` (0 when skipped) and ``notes``, each
    ``kind: detail``; the last note of a skipped file is the reason. ``kinds`` counts the files with a note of each
    kind, ``clips`` the samples by what is in them (``"video+audio"``).
    """

    source: str
    options: dict[str, Any]
    rows: list[dict[str, Any]]
    clips: dict[str, int]

    @property
    def skipped(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if not row["clips"]]

    @property
    def kinds(self) -> dict[str, int]:
        """Note kind -> files that have one, the most frequent first."""
        kinds = Counter(kind for row in self.rows for kind in {note.split(":")[0] for note in row["notes"]})
        return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))

    def to_dict(self) -> dict[str, Any]:
        head = {"format": REPORT_FORMAT, "version": REPORT_VERSION}
        return head | asdict(self) | {"skipped": len(self.skipped), "kinds": self.kinds}

    def summary(self) -> str:
        """A table for the terminal."""
        files, skipped = len(self.rows), len(self.skipped)
        clips = ", ".join(f"{count} {what.replace('+', ' with ')}" for what, count in self.clips.items())
        lines = [f"{files} files: {files - skipped} kept, {skipped} skipped; samples: {clips or 'none'}"]
        examples: dict[str, str] = {}
        for row in self.rows:
            for note in row["notes"]:
                examples.setdefault(note.split(":")[0], f"{row['source']}: {note.partition(':')[2].strip()}")
        width = max((len(kind) for kind in examples), default=0)
        for kind, count in self.kinds.items():
            example = examples[kind].removesuffix(": ")
            lines.append(f"  {kind:<{width}} {count:>7}  {example if len(example) < 100 else example[:97] + '...'}")
        return "\n".join(lines)


def prepare(
    source: str | Path,
    target: str | Path,
    options: PrepareOptions | None = None,
    *,
    workers: int | None = None,
    limit: int | None = None,
    samples_per_shard: int = 500,
    name_captions: bool = True,
) -> Report:
    """Turn a source into a data set folder with ``report.json``.

    Args:
        source: see :func:`~selfflow_mm.data.prepare_sources.list_items`.
        target: a folder that does not exist or is empty; it appears when it is complete.
        workers: processes; None takes every core, 0 works in this process.
        limit: take only the first so many files.
        name_captions: the words of a file's name are its caption when it has no other.

    Raises:
        UserError: nothing to prepare, nothing could be prepared, or the target is not empty.
    """
    options = options or PrepareOptions()
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"'{target}' exists and is not an empty folder; give another name or remove it")
    if limit is not None and limit < 1:
        raise UserError(f"--limit takes at least one file, got {limit}")
    if workers is not None and workers < 0:
        raise UserError(f"--workers is 0 or more, got {workers}")
    items = list_items(source, name_captions, limit)
    workers = min(len(items), available_cores()) if workers is None else workers
    draft = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)  # of a run that was stopped
    report = Report(str(source), asdict(options), [], {})
    try:
        with ShardWriter(draft, samples_per_shard=samples_per_shard, info={}) as writer:
            outcomes = _outcomes(items, options, workers)
            _write(tqdm(outcomes, total=len(items), unit="file", desc="prepare"), writer, report)
            writer.info.update(_about(report, options))
        if not report.clips:
            raise UserError(f"none of the {len(items)} files of '{source}' could be prepared:\n{report.summary()}")
        text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False)
        (draft / "report.json").write_text(text + "\n", encoding="utf-8")
        os.replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return report


def _outcomes(items: list[Item], options: PrepareOptions, workers: int) -> Iterator[Outcome]:
    work = partial(prepare_item, options=options)
    results = ordered_map(work, items, workers, preload=[prepare_item.__module__])
    for item, result in zip(items, results, strict=True):
        if isinstance(result, Crash):
            reason = "failed: the process that read it died (a decoder's fault, or too little memory)"
            yield Outcome(item, [], [*item.notes, reason])
        else:
            yield result


def _write(outcomes: Iterable[Outcome], writer: ShardWriter, report: Report) -> None:
    clips: Counter[str] = Counter()
    for outcome in outcomes:
        for clip in outcome.clips:
            writer.add(f"{clips.total():08d}", clip.files, clip.meta)
            clips["+".join(clip.modalities)] += 1
        report.rows.append({"source": outcome.item.name, "clips": len(outcome.clips), "notes": outcome.notes})
    report.clips = dict(sorted(clips.items()))


def _about(report: Report, options: PrepareOptions) -> dict[str, Any]:
    """What ``dataset.json`` says about the samples."""
    found = {kind for what in report.clips for kind in what.split("+")}
    size = {"height": options.height, "width": options.width}
    return {
        "modalities": [kind for kind in MODALITIES if kind in found],
        "video": {"frames": options.frames, **size, "fps": options.fps} if "video" in found else None,
        "audio": {"rate": options.rate, "channels": options.channels} if "audio" in found else None,
        "image": size if "image" in found else None,
        "created_by": f"selfflow-mm {version('selfflow-mm')} prepare",
    }
