"""The page of a comparison: tables, and every original beside each tokenizer's reconstruction."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfflow_tokenizers.media import Audio, Image, Media, Video

from ..data.writing import encode_mp4, encode_png, encode_wav
from ..evaluation.page import Card, Page, film_strip, spectrogram
from .tokenizer_table import about_machine, latents, legend, quality, score_line, size, speed
from .tokenizers import Comparison

#: H.264 quality of the page's videos: at 10 its own losses are out of sight.
_CRF = 10


def write_page(folder: Path, comparison: Comparison) -> Path:
    """Write ``report.html`` and the media it shows, in ``media/``; returns the page's path."""
    names = ", ".join(f"`{r.name}`" for r in comparison.results)
    page = Page("Tokenizers side by side", f"{names}: {comparison.about_data}")
    titles = ("Reconstruction", "Size", "Speed and memory", "Latents")
    for heading, (head, rows) in zip(titles, (f(comparison) for f in (quality, size, speed, latents)), strict=True):
        if rows:
            page.heading(heading)
            page.table(rows, head)
    notes = [[r.name, note] for r in comparison.results for note in r.notes]
    if notes:
        page.table(notes, ["tokenizer", "note"])
    for text in legend(comparison):
        page.text(text)
    page.heading("Originals and reconstructions")
    media = folder / "media"
    media.mkdir(parents=True, exist_ok=True)
    for place, (item, outputs) in enumerate(comparison.shown):
        page.text(f"{item.caption} (`{item.key}`)")
        cards = [_card(media / f"{place:02d}-original", "original", item.medium, {})]
        for result in comparison.results:
            stem = media / f"{place:02d}-{slug(result.name)}"
            cards.append(_card(stem, result.name, outputs[result.name], score_line(result, place)))
        page.cards(cards)
    page.heading("How it was measured")
    page.text(f"`{comparison.machine['command']}`")
    page.text(
        f"{about_machine(comparison)}. All figures are in `results.json`, those of each sample in `results.jsonl`."
    )
    path = folder / "report.html"
    page.save(path)
    return path


def slug(name: str) -> str:
    """A name that files can have."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "tokenizer"


def _card(stem: Path, title: str, medium: Media, facts: Mapping[str, Any]) -> Card:
    if isinstance(medium, Audio):
        path = stem.with_name(stem.name + ".wav")
        path.write_bytes(encode_wav(medium))
        return Card(title, path, "audio", (spectrogram(medium),), facts)
    if isinstance(medium, Video) and len(medium.frames) > 1:
        path = stem.with_name(stem.name + ".mp4")
        path.write_bytes(encode_mp4(medium, crf=_CRF))
        return Card(title, path, "video", (film_strip(medium),), facts)
    path = stem.with_name(stem.name + ".png")
    pixels = medium.frames[0] if isinstance(medium, Video) else medium.pixels
    path.write_bytes(encode_png(Image(pixels)))
    return Card(title, path, "image", (), facts)
