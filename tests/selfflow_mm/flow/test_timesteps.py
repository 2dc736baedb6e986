"""p(t) against scipy and against densities written down independently."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from selfflow_mm.errors import UserError
from selfflow_mm.flow.timesteps import Timesteps, shift
from selfflow_mm.randomness import Randomness

U = Randomness(5).uniform("t", 0, torch.arange(20_000))[:, 0]


@pytest.mark.parametrize("a", [1.0, 2.95, 0.75])
def test_logit_normal_shifted_by_a_is_logit_normal_with_mean_plus_log_a(a):
    t = Timesteps("logit-normal", shift=a).quantile(U).double().numpy()
    logits = np.log(t) - np.log1p(-t)
    assert stats.kstest(logits, stats.norm(math.log(a), 1).cdf).pvalue > 1e-3


def test_shifted_uniform_has_the_shift_of_a_uniform():
    t = Timesteps("uniform", shift=4.0).quantile(U)
    assert torch.allclose(t, 4 * U / (1 + 3 * U))
    assert torch.equal(Timesteps("uniform", shift=1.0).quantile(U), shift(U, 1.0))


@pytest.mark.parametrize("a", [1.0, 10.0])
def test_plateau_keeps_the_density_of_its_mode(a):
    mean = math.log(a)

    def logit_normal(t: float) -> float:
        return stats.norm.pdf(math.log(t / (1 - t)), mean, 1) / (t * (1 - t)) if 0 < t < 1 else 0.0

    # The mode is where the density's derivative vanishes: logit(t) = mean + (2 t - 1), for a deviation of 1.
    mode = optimize.brentq(lambda t: math.log(t / (1 - t)) - mean - (2 * t - 1), 1e-6, 1 - 1e-9)
    height = logit_normal(mode)
    below = stats.norm(mean, 1).cdf(math.log(mode / (1 - mode)))  # the logit-normal's mass up to its mode

    def cdf(t: np.ndarray) -> np.ndarray:
        rising = stats.norm(mean, 1).cdf(np.log(t) - np.log1p(-t))
        return np.where(t < mode, rising, below + height * (t - mode)) / (below + height * (1 - mode))

    drawn = Timesteps("plateau-logit-normal", shift=a).quantile(U).double().numpy()
    assert stats.kstest(drawn, cdf).pvalue > 1e-3


def test_bad_parameters_are_refused():
    with pytest.raises(UserError, match="positive std"):
        Timesteps(std=0)
    with pytest.raises(UserError, match="shift is positive"):
        Timesteps(shift=-1)
