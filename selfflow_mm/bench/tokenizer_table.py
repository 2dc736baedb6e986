"""A comparison of tokenizers as tables: for a terminal, and for the page."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Sequence

from ..evaluation.intervals import Mean
from ..evaluation.scores import SCORES
from .memory import gigabytes
from .tokenizers import Comparison, Result

Rows = list[list[str]]


def as_text(comparison: Comparison) -> str:
    """Aligned columns, then what they mean."""
    lines = [comparison.machine["command"], about_machine(comparison), comparison.about_data]
    if comparison.left_out:
        lines.append(f"left out: {len(comparison.left_out)} samples without the medium")
    for head, rows in (quality(comparison), size(comparison), speed(comparison), latents(comparison)):
        if rows:
            lines += ["", *_aligned([head, *rows])]
    for result in comparison.results:
        lines += [f"  {result.name}: {note}" for note in result.notes]
    return "\n".join([*lines, "", *(w for text in legend(comparison) for w in textwrap.wrap(text, 118))])


def quality(comparison: Comparison) -> tuple[list[str], Rows]:
    """Scores with their intervals."""
    names = [s for s in SCORES if any(s in r.scores for r in comparison.results)]
    head = ["", *(title(name) for name in names), "n"]
    rows = [
        [r.name, *(interval(r.scores[s], SCORES[s].digits) if s in r.scores else "-" for s in names), str(r.samples)]
        for r in comparison.results
    ]
    return head, rows


def size(comparison: Comparison) -> tuple[list[str], Rows]:
    """How much of each medium is kept."""
    per = _per(comparison)
    head = ["", f"tokens/{per}", f"values/{per}", "inputs per value", "parameters", "what it is"]
    rows = []
    for r in comparison.results:
        tokens, values = r.per_second
        kept = [f"{tokens:,.4g}", f"{values:,.6g}", f"{r.inputs / r.values:.3g}"] if r.values else ["-", "-", "-"]
        about = r.about + (f", {8 * r.bytes / (r.inputs / 3):.3g} bits per pixel" if r.bytes else "")
        rows.append([r.name, *kept, f"{r.parameters / 1e6:.2f} M" if r.parameters else "-", about])
    return head, rows


def speed(comparison: Comparison) -> tuple[list[str], Rows]:
    """Speed of both ways and their peak memory."""
    unit = "images/s" if _per(comparison) == "image" else "x real time"
    head = [
        "",
        f"encode, {unit}",
        f"decode, {unit}",
        "encode, s",
        "decode, s",
        "memory to encode",
        "to decode",
        "in all",
    ]
    rows = []
    for r in comparison.results:
        if r.speed is None:
            continue
        both = (r.speed.encode, r.speed.decode)
        memory = (r.speed.encode_bytes, r.speed.decode_bytes, r.speed.total_bytes)
        rows.append(
            [
                r.name,
                *(f"{r.real_time(times):.3g}" for times in both),
                *(f"{statistics.median(times):.3g}" for times in both),
                *("-" if m is None else gigabytes(m) for m in memory),
            ]
        )
    return head, rows


def latents(comparison: Comparison) -> tuple[list[str], Rows]:
    """Moments over all channels: mean and deviation as ranges, the others as medians."""
    head = [
        "",
        "channels",
        "mean, from",
        "to",
        "deviation, from",
        "to",
        "skewness",
        "excess kurtosis",
        "neighbour",
        "dead",
        "hold 80 %",
    ]
    rows = []
    for r in comparison.results:
        if r.moments is None:
            continue
        m = r.moments
        spread = (min(m.mean), max(m.mean), min(m.deviation), max(m.deviation))
        middle = (statistics.median(m.skewness), statistics.median(m.kurtosis), statistics.median(m.neighbour))
        rows.append(
            [r.name, str(len(m.mean)), *(f"{v:.3f}" for v in (*spread, *middle)), str(len(m.dead)), str(m.directions)]
        )
    return head, rows


def legend(comparison: Comparison) -> list[str]:
    """What the columns are."""
    names = [s for s in SCORES if any(s in r.scores for r in comparison.results)]
    scores = "; ".join(f"{SCORES[s].title}: {SCORES[s].meaning} ({SCORES[s].better} is better)" for s in names)
    first = comparison.results[0]
    timed = f"{first.speed_samples} samples" + (
        "" if math.isnan(first.speed_seconds) else f", {first.speed_seconds:.1f} s of medium"
    )
    lines = [
        f"Scores are means over samples with a 95 % interval (bootstrap, seed {comparison.plan.seed}). {scores}.",
        "Inputs are values of pixels or samples of sound as they are in the data; bits are not counted.",
    ]
    if comparison.kind == "sound":
        lines.append(
            "Sounds are compared at the data's own rate and channels, whatever a tokenizer takes. The mel window is "
            "that of griffin-lim, whose mel distance is therefore flattered."
        )
    how = next((r.speed.how for r in comparison.results if r.speed and r.speed.how), "")
    lines.append(
        f"Speed: median of {comparison.plan.rounds} calls on {timed} in one batch, after one to warm up, without "
        f"resampling. Memory: of the first call, above what the loaded tokenizer and the media take"
        + (f" ({how})." if how else ", which could not be measured here.")
    )
    if any(r.moments for r in comparison.results):
        lines.append(
            "Latents: range over channels of mean and deviation; medians over channels of skewness, excess kurtosis "
            "and the correlation with the next token (in time, or along a row); dead channels vary by less than 1 % of "
            "the median deviation; how many principal directions of a token hold 80 % of the variance."
        )
    return lines


def title(name: str) -> str:
    score = SCORES[name]
    return f"{score.title}, {score.unit}" if score.unit else score.title


def interval(mean: Mean, digits: int) -> str:
    """``32.10 (31.90 to 32.30)``; without an interval for one sample."""
    if math.isnan(mean.low):
        return f"{mean.mean:.{digits}f}"
    return f"{mean.mean:.{digits}f} ({mean.low:.{digits}f} to {mean.high:.{digits}f})"


def about_machine(comparison: Comparison) -> str:
    m = comparison.machine
    where = m["cpu"] if m["device"] == "cpu" else f"{m['device']}, {m['cpu']}"
    return f"{where}, {m['threads']} threads, torch {m['torch']}, {m['date']}"


def _per(comparison: Comparison) -> str:
    return "image" if all(math.isnan(r.seconds) for r in comparison.results) else "s"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  " + "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in table
    ]


def score_line(result: Result, place: int) -> dict[str, str]:
    """The scores of one sample, for its card."""
    row = result.rows[place]
    shown = {s: row[s] for s in SCORES if s in row and not math.isnan(row[s])}
    return {SCORES[s].title: f"{v:.{SCORES[s].digits}f} {SCORES[s].unit}".strip() for s, v in shown.items()}
