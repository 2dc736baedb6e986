"""Line charts: points land where a ruler would put them."""

from __future__ import annotations

import math
import re

from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.evaluation.chart import line_chart

_finite = st.floats(-1e12, 1e12)


def _lines(svg: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline points="([^"]*)"', svg)
    return [[tuple(map(float, p.split(","))) for p in line.split()] for line in found]  # type: ignore[misc]


@given(st.lists(_finite, min_size=2, max_size=40), st.booleans())
def test_heights_are_proportional(ys: list[float], log_y: bool) -> None:
    if log_y:
        ys = [abs(y) + 1e-6 for y in ys]
    (line,) = _lines(line_chart({"a": (range(len(ys)), ys)}, log_y=log_y))
    values = [math.log10(y) for y in ys] if log_y else ys
    assert len(line) == len(ys)
    span = max(values) - min(values)
    if span < 1e-9 * max(map(abs, values), default=1) or span == 0:
        assert len({y for _, y in line}) <= 2  # flat
        return
    top, bottom = min(y for _, y in line), max(y for _, y in line)
    for value, (_, y) in zip(values, line, strict=True):
        assert abs((bottom - y) / (bottom - top) - (value - min(values)) / span) < 0.002
    xs = [x for x, _ in line]
    assert xs == sorted(xs)


def test_points_that_cannot_be_drawn_interrupt_the_line() -> None:
    svg = line_chart({"a": (range(7), [1.0, 2.0, math.nan, 3.0, 4.0, math.inf, 5.0])})
    assert [len(line) for line in _lines(svg)] == [2, 2] and svg.count("<circle") == 1
    assert [len(line) for line in _lines(line_chart({"a": (range(4), [1.0, 0.1, -1.0, 0.0])}, log_y=True))] == [2]


def test_nothing_to_draw_is_said() -> None:
    assert "nothing to draw" in line_chart({"a": ([], [])})
    assert "nothing to draw" in line_chart({"a": ([1], [math.nan])})


def test_long_lines_are_averaged_not_sampled() -> None:
    ys = [0.0, 1.0] * 4000 + [2.0] * 2000
    (line,) = _lines(line_chart({"a": (range(len(ys)), ys)}))
    assert len(line) == 500
    assert len({y for _, y in line[:400]}) == 1  # each stretch of twenty holds as many zeros as ones
