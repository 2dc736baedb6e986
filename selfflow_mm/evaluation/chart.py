"""Line charts as inline SVG, for report pages; colours and text follow the page's light or dark scheme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 1000, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 12, 34
_POINTS = 500  # more cannot be told apart at this width
_SERIES_COLOURS = 6  # the page's style defines --series-0 to --series-5

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def line_chart(series: Series, *, log_y: bool = False, x_label: str = "step") -> str:
    """SVG of one line per entry ``name: (xs, ys)``.

    Points that are not finite (or not positive, with ``log_y``) interrupt the line. Lines with more points than
    can be seen are averaged over equal stretches.
    """
    lines = {name: _usable(xs, ys, log_y) for name, (xs, ys) in series.items()}
    points = [p for line in lines.values() for p in line if p is not None]
    if not points:
        return '<p class="empty">There is nothing to draw yet.</p>'
    x_low, x_high = _range([x for x, _ in points])
    y_low, y_high = _range([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        up = (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return round(_LEFT + across, 1), round(_HEIGHT - _BOTTOM - up, 1)

    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    for value in _ticks(y_low, y_high):
        y = place(x_low, value)[1]
        label = _number(10**value if log_y else value)
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{label}</text>')
    for value in _ticks(x_low, x_high):
        x = place(value, y_low)[0]
        parts.append(f'<text x="{x}" y="{_HEIGHT - 14}" text-anchor="middle">{_number(value)}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 2}" text-anchor="end">{escape(x_label)}</text>')
    for number, line in enumerate(lines.values()):
        colour = f"var(--series-{number % _SERIES_COLOURS})"
        for stretch in _stretches(line):
            placed = [place(x, y) for x, y in stretch]
            if len(placed) == 1:
                parts.append(f'<circle cx="{placed[0][0]}" cy="{placed[0][1]}" r="2.5" fill="{colour}"/>')
            else:
                path = " ".join(f"{x},{y}" for x, y in placed)
                parts.append(f'<polyline points="{path}" stroke="{colour}"/>')
    parts.append("</svg>")
    return "".join(parts) + _legend(series)


def _legend(series: Series) -> str:
    items = []
    for number, (name, (_, ys)) in enumerate(series.items()):
        last = f" <b>{_number(ys[-1])}</b>" if len(ys) else ""
        swatch = f'<i style="background:var(--series-{number % _SERIES_COLOURS})"></i>'
        items.append(f"<span>{swatch}{escape(name)}{last}</span>")
    return f'<div class="legend">{"".join(items)}</div>'


def _usable(xs: Sequence[float], ys: Sequence[float], log_y: bool) -> list[tuple[float, float] | None]:
    """The line's points, y in powers of ten with ``log_y``; None where it is interrupted."""
    size = math.ceil(len(xs) / _POINTS) if xs else 1
    line: list[tuple[float, float] | None] = []
    for start in range(0, len(xs), size):
        stretch = list(zip(xs[start : start + size], ys[start : start + size], strict=True))
        good = [(float(x), float(y)) for x, y in stretch if math.isfinite(y) and (y > 0 or not log_y)]
        if not good:
            line.append(None)
            continue
        y = sum(y for _, y in good) / len(good)
        line.append((sum(x for x, _ in good) / len(good), math.log10(y) if log_y else y))
    return line


def _stretches(line: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    result: list[list[tuple[float, float]]] = [[]]
    for point in line:
        if point is None:
            result.append([])
        else:
            result[-1].append(point)
    return [stretch for stretch in result if stretch]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low < 1e-12 * max(abs(low), abs(high), 1e-300):  # a flat line lies in the middle
        pad = abs(low) * 0.1 or 1.0
        return low - pad, high + pad
    return low, high


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round values between ``low`` and ``high``."""
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.0f}" if abs(value) >= 1000 and value == round(value) else f"{value:.3g}"
