"""A report as text for a terminal and as Markdown for a page."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path

from .memory import gigabytes
from .report import Job, Report, Row

TITLES = {"forward": "forward pass, two levels", "train": "training step", "sample": "sampling"}
_HEAD = ("", "seconds", "spread", "ratio", "TFLOP/s", "MFU", "peak memory", "above idle", "difference")


def as_text(report: Report) -> str:
    """Aligned columns."""
    lines = [*about(report)]
    for job in report.jobs:
        table = [_HEAD, *(_cells(row, i == 0) for i, row in enumerate(job.rows))]
        widths = [max(len(row[i]) for row in table) for i in range(len(_HEAD))]
        lines += ["", _title(job, report)]
        for row in table:
            cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
            lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join([*lines, "", *textwrap.wrap(_legend(report), 118)])


def as_markdown(report: Report) -> str:
    """The same for a page under docs/results."""
    lines = [f"    {report.machine['command']}", "", *about(report)[1:], ""]
    for job in report.jobs:
        lines += [f"**{_title(job, report)}**", ""]
        lines += [f"| {' | '.join(_HEAD)} |", "|---" + "|---:" * (len(_HEAD) - 1) + "|"]
        lines += [f"| {' | '.join(_cells(row, i == 0))} |" for i, row in enumerate(job.rows)]
        lines.append("")
    return "\n".join([*lines, *textwrap.wrap(_legend(report), 118), ""])


def about(report: Report) -> list[str]:
    """Command, machine, network: what a figure means nothing without."""
    m, plan = report.machine, report.plan
    tokens = f"{plan.tokens} tokens" if plan.imagenet else f"{plan.tokens} image and {plan.text_tokens} text tokens"
    how = "compiled" if plan.compile else "eager"
    where = m["cpu"] if m["device"] == "cpu" else f"{m['device']}, {m['cpu']}"
    return [
        m["command"],
        f"{where}, {m['threads']} threads, torch {m['torch']}, {m['date']}",
        f"{plan.preset}: {report.parameters / 1e6:.1f} M parameters, batch {plan.batch} of {tokens}, {report.dtype}, "
        f"{how}{', recompute' if plan.recompute else ''}; matrix rate {report.rate.flops / 1e12:.3g} TFLOP/s "
        f"({report.rate.dtype}, {report.rate.edge} x {report.rate.edge})",
    ]


def _title(job: Job, report: Report) -> str:
    steps = f" of {report.plan.steps} steps" if job.what == "sample" else ""
    return f"{TITLES[job.what]}{steps} ({job.model_flops / 1e12:.3g} TFLOP)"


def _cells(row: Row, first: bool) -> tuple[str, ...]:
    return (
        row.form,
        f"{row.seconds:.4g}",
        f"{row.spread:.1%}",
        "1" if first else f"{row.ratio:.3f}",
        f"{row.flops_per_second / 1e12:.3g}",
        f"{row.mfu:.1%}",
        "-" if row.peak_bytes is None else gigabytes(row.peak_bytes),
        "-" if row.above_bytes is None else gigabytes(row.above_bytes),
        "" if first else f"{row.difference:.1e}",
    )


def _legend(report: Report) -> str:
    compared = "; ".join(f"{job.what}: {job.compared}, up to {job.magnitude:.2g}" for job in report.jobs)
    return (
        f"Seconds: median of {report.plan.rounds} rounds in turns; spread: half of slowest minus fastest, over the "
        "median; ratio: seconds over ours, median of the rounds' ratios. TFLOP/s and MFU count the operations of the "
        "model with a modulation per level, for every row (a training step: three student passes and the teacher's up "
        "to block k; nothing for recomputation, clipping, AdamW, EMA); MFU is their share of the matrix rate. Peak "
        f"memory: {report.memory_method}. Difference: largest absolute one from ours ({compared})."
    )


def write_json(path: Path, report: Report) -> None:
    """All figures, every round's seconds included."""
    write_text(path, json.dumps(report.to_json(), indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Written beside and renamed: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
