"""The page of a run: what was asked for, how it went, what it makes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..config import dump_yaml
from ..data.reading import read_media
from ..evaluation.page import Card, MediaKind, Page, film_strip, spectrogram
from .config import TrainConfig
from .run_folder import read_log, read_warnings

KINDS: dict[str, MediaKind] = {".mp4": "video", ".wav": "audio", ".png": "image"}


def write_report(run: Path, config: TrainConfig, title: str) -> Path:
    """Write ``report.html`` into the run's folder from its log and its newest samples."""
    lines = read_log(run)
    page = Page(title, f"{config.objective.name}, {config.run.steps} steps, seed {config.run.seed}")
    if lines:
        last = lines[-1]
        page.text(f"{last['step']} of {config.run.steps} steps in {last['seconds'] / 60:.1f} minutes of work.")
    newest = sorted((run / "samples").glob("step-*"))[-1:]
    for folder in newest:
        page.heading(f"Samples at step {int(folder.name.removeprefix('step-')):,}")
        page.cards([_card(path, config) for path in sorted(folder.iterdir()) if path.suffix in KINDS])
    add_warnings(page, run)
    add_curves(page, lines)
    add_configuration(page, config)
    path = run / "report.html"
    page.save(path)
    return path


def add_curves(page: Page, lines: list[dict[str, Any]]) -> None:
    """What a run logged, over its steps."""
    groups = {
        "Loss per modality": r"loss|l_gen/.*",
        "Representation: loss and student-teacher cosine": r"l_rep|cosine/.*",
        "Gradient norm": r"grad_norm",
        "Learning rate": r"lr",
        "Samples per second": r"samples_per_second",
        "Tokens per second, media and text, without padding": r"tokens_per_second",
        "Arithmetic of the model, TFLOP per second": r"tflops",
        "MFU: that as a share of the device's peak": r"mfu",
        "Padding: share of tokens": r"padding(/.*)?",
        "Skipped steps since the line before": r"skipped",
    }
    if len(lines) > 1:
        page.heading("Curves")
    for name, pattern in groups.items():
        keys = sorted({k for line in lines for k in line if re.fullmatch(pattern, k)})
        series = {k: _column(lines, k) for k in keys}
        if len(lines) > 1 and series:
            page.curve(name, series)


def add_warnings(page: Page, run: Path) -> None:
    """What the run had to complain of, if it had."""
    if warnings := read_warnings(run):
        page.heading("Warnings")
        page.table([[line["step"], line["warning"]] for line in warnings], ["step", ""])


def add_configuration(page: Page, config: object) -> None:
    """Every setting of a run."""
    page.heading("Configuration")
    page.table([[k] for k in dump_yaml(config).splitlines()], ["config.yaml"])


def _column(lines: list[dict[str, float]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one scalar, thinned to at most 400 points so that a long run's page stays small."""
    points = [(line["step"], line[key]) for line in lines if key in line]
    points = points[:: max(1, len(points) // 400)]
    return [p[0] for p in points], [p[1] for p in points]


def _card(path: Path, config: TrainConfig) -> Card:
    task, number = path.stem.rsplit("-", 1)
    media = read_media(path)
    pictures = []
    if media.video is not None:
        pictures.append(film_strip(media.video))
    if media.audio is not None:
        pictures.append(spectrogram(media.audio))
    prompts = config.run.prompts or ("",)
    kind = KINDS[path.suffix]
    return Card(
        prompts[int(number) % len(prompts)] or "(no caption)",
        path.read_bytes(),  # in the page, which is then whole wherever it is sent
        kind,
        tuple(pictures),
        {"task": task, "seed": config.run.seed},
    )
