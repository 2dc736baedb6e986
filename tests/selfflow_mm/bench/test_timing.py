"""Clocks and rates: the order of turns, what a ratio means, and arithmetic with known answers."""

from __future__ import annotations

import time

import pytest
import torch

from selfflow_mm.bench.rate import Rate, better, matrix_rate, product_flops
from selfflow_mm.bench.timing import Timing, in_turns, once

CPU = torch.device("cpu")


def test_variants_take_turns_and_warm_up_does_not_count() -> None:
    order: list[str] = []
    actions = {name: lambda name=name: order.append(name) for name in "AB"}
    found = in_turns(actions, CPU, 3, warm_up=2, shortest=0.0)
    assert "".join(order) == "AABB" + "AB" * 3
    assert all(len(timing.seconds) == 3 for timing in found.values())


def test_a_short_call_is_repeated_within_its_round() -> None:
    calls = 0

    def quick() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.002)

    seconds = once(quick, CPU, shortest=0.02)
    assert 2 < calls <= 11 and 0.002 <= seconds < 0.02


def test_median_and_spread() -> None:
    timing = Timing((2.0, 3.0, 2.4))
    assert timing.median == 2.4 and timing.spread == pytest.approx(0.5 / 2.4)


def test_a_drifting_machine_leaves_the_ratio_alone() -> None:
    ours = Timing((1.0, 1.7, 3.1, 0.4, 9.0))
    other = Timing(tuple(1.5 * s for s in ours.seconds))
    assert ours.times_faster_than(other) == pytest.approx(1.5) and other.times_faster_than(ours) == pytest.approx(
        1 / 1.5
    )


def test_one_disturbed_round_does_not_decide() -> None:
    assert Timing((1.0, 1.0, 1.0)).times_faster_than(Timing((1.5, 30.0, 1.5))) == 1.5


def test_operations_of_a_product_are_two_per_multiply_add() -> None:
    assert product_flops(10) == 2000  # 100 results of 10 multiply-adds


def test_the_matrix_rate_is_of_the_size_that_gave_it() -> None:
    rate = matrix_rate(CPU, torch.float32, sizes=(64, 128))
    assert rate.edge in (64, 128) and rate.dtype == "float32" and rate.flops > 0


def test_the_better_of_two_rates_counts() -> None:
    slow, fast = Rate(1e9, 64, "float32"), Rate(2e9, 64, "float32")
    assert better(slow, fast) is fast and better(fast, slow) is fast
