"""The page about a prepared data set: what became of each file, and what the samples look and sound like."""

from __future__ import annotations

from pathlib import Path

from selfflow_mm.data.prepare import Report, describe_bucket
from selfflow_mm.data.shards import ShardDataset
from selfflow_mm.data.writing import encode_wav
from selfflow_mm.evaluation.page import Card, Page, film_strip, spectrogram

_ROWS = 300  # files listed; report.json has all
_CARDS = 12


def write_prepare_page(folder: Path, report: Report) -> Path:
    """Write ``report.html`` into a prepared data set's folder and return its path."""
    dataset = ShardDataset(folder)
    skipped = report.skipped
    clips = ", ".join(f"{count} {what.replace('+', ' with ')}" for what, count in report.clips.items())
    page = Page("Prepared data", f"`{report.source}`: {len(report.rows)} files, {len(skipped)} skipped; {clips}")
    page.cards([_card(dataset, index) for index in _spread(len(dataset))])
    if report.several:
        page.heading("Buckets")
        rows = [[describe_bucket(bucket), bucket["samples"]] for bucket in report.buckets]
        page.table(rows, ["size", "samples"])
    page.heading("What was done")
    page.table([[kind, count] for kind, count in report.kinds.items()] or [["nothing unusual", 0]], ["note", "files"])
    _list(page, "Skipped", skipped)
    _list(page, "Kept, with notes", [row for row in report.rows if row["clips"] and row["notes"]])
    page.heading("Settings")
    page.table([[name, str(value)] for name, value in report.options.items()], ["option", "value"])
    page.save(folder / "report.html")
    return folder / "report.html"


def _list(page: Page, title: str, rows: list[dict]) -> None:
    if not rows:
        return
    page.heading(f"{title}: {len(rows)}")
    shown = rows[:_ROWS]
    page.table([[r["source"], r["clips"], "; ".join(r["notes"])] for r in shown], ["file", "samples", "notes"])
    if len(rows) > _ROWS:
        page.text(f"The first {_ROWS} are shown; `report.json` lists all.")


def _spread(samples: int) -> list[int]:
    """A few samples from the whole data set."""
    count = min(_CARDS, samples)
    return [i * samples // count for i in range(count)]


def _card(dataset: ShardDataset, index: int) -> Card:
    sample, raw = dataset[index], dataset.raw(index)
    prompt = sample.captions[0] if sample.captions else "(no caption)"
    details = {"sample": sample.key, "source": sample.meta.get("source", "")}
    if sample.video is not None:
        pictures = [film_strip(sample.video)]
        if sample.audio is not None:
            pictures.append(spectrogram(sample.audio))
        return Card(prompt, raw.files["mp4"], "video", tuple(pictures), details)
    if sample.audio is not None:
        return Card(prompt, encode_wav(sample.audio), "audio", (spectrogram(sample.audio),), details)
    return Card(prompt, raw.files["png"], "image", (), details)
