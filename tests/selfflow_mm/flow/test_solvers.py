"""Solvers by their order of convergence on an equation with a known solution, and schedules by their ends."""

from __future__ import annotations

import math

import pytest
import torch

from selfflow_mm.errors import UserError
from selfflow_mm.flow.path import interpolate, velocity
from selfflow_mm.flow.solvers import euler, heun, schedule


def test_the_path_runs_from_data_to_noise_with_the_stated_velocity():
    x0, x1 = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    t = torch.rand(2, 5, dtype=torch.float64)
    assert torch.equal(interpolate(x0, x1, torch.zeros_like(t)), x0)
    assert torch.equal(interpolate(x0, x1, torch.ones_like(t)), x1)
    h = 1e-6
    slope = (interpolate(x0, x1, t + h) - interpolate(x0, x1, t - h)) / (2 * h)
    assert torch.allclose(slope, velocity(x0, x1), atol=1e-8)


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (heun, 2)])
def test_order_of_convergence(solver, order):
    # dx/dt = x has x(0) = x(1) / e.
    def f(x, now):
        return {m: v for m, v in x.items()}

    errors = []
    for steps in (20, 40, 80):
        end = solver(f, {"a": torch.ones(1, 1, 1, dtype=torch.float64)}, {"a": schedule(steps)})["a"]
        errors.append(abs(float(end) - math.exp(-1)))
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert abs(math.log2(coarse / fine) - order) < 0.1


def test_a_gaussian_is_carried_to_its_mean_and_spread():
    """x0 ~ N(3, 0.5^2): v(x, t) has a closed form, and the flow's end has that mean and deviation."""
    mean, sigma = 3.0, 0.5

    def f(x, now):
        t = now["a"]
        var = (1 - t) ** 2 * sigma**2 + t**2
        x0 = mean + (1 - t) * sigma**2 / var * (x["a"] - (1 - t) * mean)
        x1 = t / var * (x["a"] - (1 - t) * mean)
        return {"a": x1 - x0}

    torch.manual_seed(0)
    start = torch.randn(20_000, 1, 1, dtype=torch.float64)
    end = heun(f, {"a": start}, {"a": schedule(100)})["a"]
    assert torch.allclose(end, mean + sigma * start, atol=2e-3)


def test_spans_let_one_modality_run_ahead():
    ahead, behind = schedule(10, 1.0, (0.0, 0.5)), schedule(10, 3.0, (0.5, 1.0))
    assert ahead[0] == behind[0] == 1 and ahead[-1] == behind[-1] == 0
    assert ahead[5] == 0 and behind[5] == 1
    assert all(a >= b for times in (ahead, behind) for a, b in zip(times, times[1:], strict=False))
    with pytest.raises(UserError, match="span"):
        schedule(10, 1.0, (0.5, 0.5))
