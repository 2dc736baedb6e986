"""The page of a tokenizer's run: scores, originals beside reconstructions, curves, settings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config import dump_yaml
from ..evaluation.page import Card, Page
from .run_folder import read_log
from .tokenizer_config import TokenizerTrainConfig

_MEANING = {
    "psnr": "PSNR over all pixels, dB",
    "object_psnr": "PSNR over moving pixels, dB",
    "si_sdr": "SI-SDR, mean, dB",
    "si_sdr_median": "SI-SDR, median, dB",
    "onset_recall": "share of onsets found within 25 ms",
    "false_onsets": "onsets that were not there, per sound",
    "silence_db": "level that silence decodes to, dBFS (-120: digital silence)",
}


def write_tokenizer_report(
    run: Path,
    config: TokenizerTrainConfig,
    scores: Mapping[str, float],
    statistics: tuple[Tensor, Tensor],
    cards: Sequence[Card],
    parts: Mapping[str, int],
) -> Path:
    """Write ``report.html`` and ``scores.json`` (held-out scores of the exported tokenizer) into the run's folder."""
    beside = run / ".scores.json.tmp"
    beside.write_text(json.dumps(dict(scores), indent=2) + "\n", encoding="utf-8")
    os.replace(beside, run / "scores.json")
    lines = read_log(run)
    page = Page(f"{config.name}: {config.kind} tokenizer", f"{config.run.steps} steps, seed {config.run.seed}")
    page.text(f"{sum(parts.values()):,} parameters; scores are of the exported tokenizer on held-out samples.")
    page.table([[_MEANING[name], round(value, 3)] for name, value in scores.items()], ["held out", "value"])
    page.heading("Originals and reconstructions")
    page.cards(cards)
    page.heading("Curves")
    _curve(page, lines, "Loss", ["loss"], log_y=True)
    _curve(page, lines, "Held out, dB", ["psnr", "object_psnr", "si_sdr", "si_sdr_median"])
    _curve(page, lines, "Held out, onsets", ["onset_recall", "false_onsets"])
    page.heading("Latents")
    mean, deviation = statistics
    rows = [
        [i, round(m, 3), round(d, 3)] for i, (m, d) in enumerate(zip(mean.tolist(), deviation.tolist(), strict=True))
    ]
    page.table(rows, ["channel", "mean", "deviation"])
    page.heading("Settings")
    page.table([[line] for line in dump_yaml(config).splitlines()], ["config.yaml"])
    path = run / "report.html"
    page.save(path)
    return path


def _curve(page: Page, lines: list[dict[str, Any]], title: str, names: list[str], *, log_y: bool = False) -> None:
    series = {}
    for name in names:
        points = [(line["step"], line[name]) for line in lines if name in line]
        points = points[:: max(1, len(points) // 400)]
        if len(points) > 1:
            series[name] = ([p[0] for p in points], [p[1] for p in points])
    if series:
        page.curve(title, series, log_y=log_y)
