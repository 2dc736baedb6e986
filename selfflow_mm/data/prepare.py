"""``prepare``: any collection of media becomes a data set of equal clips, or of a few sizes and lengths of them, and a
report of what was done to each file.

The result depends on the source and the options only, not on the number of processes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
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
    kind, ``clips`` the samples by what is in them (``"video+audio"``), ``buckets`` those of each kind
    and size: ``kind`` (``"video+audio"``), ``frames``, ``height`` and ``width`` or ``seconds``, and how many
    ``samples``, the most common first.
    """

    source: str
    options: dict[str, Any]
    rows: list[dict[str, Any]]
    clips: dict[str, int]
    buckets: list[dict[str, Any]] = field(default_factory=list)

    @property
    def skipped(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if not row["clips"]]

    @property
    def kinds(self) -> dict[str, int]:
        """Note kind -> files that have one, the most frequent first."""
        kinds = Counter(kind for row in self.rows for kind in {note.split(":")[0] for note in row["notes"]})
        return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))

    @property
    def several(self) -> bool:
        """Whether samples of a modality differ in size."""
        sizes = {tuple(bucket.get(n) for n in ("frames", "height", "width", "seconds")) for bucket in self.buckets}
        return len(sizes) > len({main_modality(bucket) for bucket in self.buckets})

    def to_dict(self) -> dict[str, Any]:
        head = {"format": REPORT_FORMAT, "version": REPORT_VERSION}
        return head | asdict(self) | {"skipped": len(self.skipped), "kinds": self.kinds}

    def summary(self) -> str:
        """A table for the terminal."""
        files, skipped = len(self.rows), len(self.skipped)
        clips = ", ".join(f"{count} {what.replace('+', ' with ')}" for what, count in self.clips.items())
        lines = [f"{files} files: {files - skipped} kept, {skipped} skipped; samples: {clips or 'none'}"]
        if self.several:
            lines += [f"  bucket {describe_bucket(bucket)}: {bucket['samples']:,}" for bucket in self.buckets]
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
    buckets: Counter[tuple[tuple[str, Any], ...]] = Counter()
    for outcome in outcomes:
        for clip in outcome.clips:
            writer.add(f"{clips.total():08d}", clip.files, clip.meta)
            clips["+".join(clip.modalities)] += 1
            buckets[("kind", "+".join(clip.modalities)), *clip.size.items()] += 1
        report.rows.append({"source": outcome.item.name, "clips": len(outcome.clips), "notes": outcome.notes})
    report.clips = dict(sorted(clips.items()))
    found = [{**dict(bucket), "samples": buckets[bucket]} for bucket in sorted(buckets)]
    report.buckets = sorted(found, key=lambda b: (MODALITIES.index(main_modality(b)), -b["samples"]))


def main_modality(bucket: Mapping[str, Any]) -> str:
    """That which a bucket's size is of: a film's sound is as long as its picture."""
    return bucket["kind"].split("+")[0]


def describe_bucket(bucket: Mapping[str, Any]) -> str:
    """The size of one of ``Report.buckets`` in words."""
    frames = f"{bucket['frames']} frames of " if "frames" in bucket else ""
    size = f"{bucket['seconds']:g} s" if "seconds" in bucket else f"{frames}{bucket['height']} x {bucket['width']}"
    return f"{bucket['kind'].replace('+', ' with ')}, {size}"


def _about(report: Report, options: PrepareOptions) -> dict[str, Any]:
    """What ``dataset.json`` says about the samples."""
    found = {kind for what in report.clips for kind in what.split("+")}
    most = {main_modality(bucket): bucket for bucket in reversed(report.buckets)}  # the most common of each
    film, still = most.get("video"), most.get("image")
    return {
        "modalities": [kind for kind in MODALITIES if kind in found],
        "video": film and {**{n: film[n] for n in ("frames", "height", "width")}, "fps": options.fps},
        "audio": {"rate": options.rate, "channels": options.channels} if "audio" in found else None,
        "image": still and {n: still[n] for n in ("height", "width")},
        **({"buckets": report.buckets} if options.several else {}),
        "created_by": f"selfflow-mm {version('selfflow-mm')} prepare",
    }
