"""The page of a tokenizer's run: scores, originals beside reconstructions, curves, settings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..config import dump_yaml
from ..evaluation.page import Card, Page
from .run_folder import read_log
from .tokenizer_config import TokenizerTrainConfig
from .tokenizer_latents import LatentStatistics

_MEANING = {
    "psnr": "PSNR over all pixels, dB",
    "object_psnr": "PSNR over moving pixels, dB",
    "si_sdr": "SI-SDR, mean, dB",
    "si_sdr_median": "SI-SDR, median, dB",
    "onset_recall": "share of onsets found within 25 ms",
    "false_onsets": "onsets that were not there, per sound",
    "silence_db": "level that silence decodes to, dBFS (-120: digital silence)",
    "dead_channels": "latent channels that carry nothing",
    "latent_kurtosis": "kurtosis of the latent channels, median (normal: 3)",
}
#: Terms of the losses that are never negative.
_TERMS = {
    "l1", "l2", "gradient", "pyramid", "perceptual",
    "complex", "magnitude", "log", "convergence", "mel", "kl",
}  # fmt: skip
#: Nats under which a latent value says nothing.
_FALLEN = 0.01


def write_tokenizer_report(
    run: Path,
    config: TokenizerTrainConfig,
    scores: Mapping[str, float],
    statistics: LatentStatistics,
    rows: Sequence[Sequence[Card]],
    parts: Mapping[str, int],
    notes: Sequence[str] = (),
) -> Path:
    """Write ``report.html`` and ``scores.json`` (held-out scores of the exported tokenizer) into the run's folder."""
    beside = run / ".scores.json.tmp"
    beside.write_text(json.dumps(dict(scores), indent=2) + "\n", encoding="utf-8")
    os.replace(beside, run / "scores.json")
    lines = read_log(run)
    images = config.video is not None and config.video.model.time_compression == 1
    page = Page(
        f"{config.name}: {'image' if images else config.kind} tokenizer",
        f"{config.run.steps} steps, seed {config.run.seed}",
    )
    page.text(f"{sum(parts.values()):,} parameters; scores are of the exported tokenizer on held-out samples.")
    for note in notes:
        page.text(note)
    page.table([[_MEANING[name], round(value, 3)] for name, value in scores.items()], ["held out", "value"])
    page.heading("Originals and reconstructions")
    for row in rows:
        page.cards(row)
    page.heading("Curves")
    terms = [name for name in dict.fromkeys(n for line in lines for n in line) if name in _TERMS]
    _curve(page, lines, "Loss", ["loss"], log_y=True)
    _curve(page, lines, "Its terms, as weighted", terms, log_y=True)
    _curve(page, lines, "Adversarial term, as weighted", ["adversarial"])
    _curve(page, lines, "The discriminator: its loss, and its mean logits", ["discriminator", "real", "fake"])
    _curve(page, lines, "Size of gradients before clipping", ["grad_norm", "discriminator_grad_norm"], log_y=True)
    _curve(page, lines, "Held out, dB", ["psnr", "object_psnr", "si_sdr", "si_sdr_median"])
    _curve(page, lines, "Held out, onsets", ["onset_recall", "false_onsets"])
    _latents(page, statistics)
    page.heading("Settings")
    page.table([[line] for line in dump_yaml(config).splitlines()], ["config.yaml"])
    path = run / "report.html"
    page.save(path)
    return path


def _latents(page: Page, statistics: LatentStatistics) -> None:
    page.heading("Latents")
    page.text("Per channel, over whole training samples. Kurtosis is 3 for the normal distribution.")
    if statistics.dead:
        named = ", ".join(map(str, statistics.dead))
        page.text(f"Dead channels, which carry nothing: {named}. Fewer `latent_channels` would do the same.")
    columns = {"mean": statistics.mean, "deviation": statistics.deviation, "kurtosis": statistics.kurtosis}
    if statistics.kl is not None:
        columns["KL, nats"] = statistics.kl
        fallen = [str(i) for i, nats in enumerate(statistics.kl.tolist()) if nats < _FALLEN]
        if fallen:
            page.text(f"Channels that fell back to the prior: {', '.join(fallen)}. Lower `loss.kl` to keep them.")
    table = torch.stack(list(columns.values()), dim=1).tolist()
    rows = [[i, *(round(value, 3) for value in values)] for i, values in enumerate(table)]
    page.table(rows, ["channel", *columns])


def _curve(page: Page, lines: list[dict[str, Any]], title: str, names: list[str], *, log_y: bool = False) -> None:
    series = {}
    for name in names:
        points = [(line["step"], line[name]) for line in lines if name in line]
        points = points[:: max(1, len(points) // 400)]
        if len(points) > 1:
            series[name] = ([p[0] for p in points], [p[1] for p in points])
    if series:
        page.curve(title, series, log_y=log_y)
