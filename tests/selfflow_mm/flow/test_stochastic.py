"""The SDE sampler against the reference's sample, and against data of which every marginal is known."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from selfflow_mm.errors import UserError
from selfflow_mm.flow.solvers import euler, heun, schedule
from selfflow_mm.flow.stochastic import DIFFUSION, SDEConfig, euler_maruyama, score

MEAN, STD = 1.5, 0.5


def velocity(x: Tensor, t: float) -> Tensor:
    """E[x1 - x0 | x_t = x] for x0 ~ N(MEAN, STD^2): linear regression on x_t."""
    centred = (x - (1 - t) * MEAN) / ((1 - t) ** 2 * STD**2 + t**2)
    return t * centred - (MEAN + (1 - t) * STD**2 * centred)


@torch.no_grad()
def test_it_draws_the_references_sample(shared_data):
    from selfflow_mm.models import SelfFlowPerTokenDiT

    with safe_open(shared_data / "reference" / "imagenet_small.safetensors", "pt") as file:
        data = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    net = SelfFlowPerTokenDiT(8, 2, 4, 96, 4, 4, 4.0, 11, learn_sigma=True)
    net.load_state_dict({k.removeprefix("weights."): v for k, v in data.items() if k.startswith("weights.")})
    noises = data["output.sde_noises"]
    sample = euler_maruyama(
        lambda x, t: net(x, torch.full((3,), t), data["input.y"]),
        data["input.x"],
        lambda step: noises[step],
        SDEConfig(steps=len(noises) + 1),
    )
    torch.testing.assert_close(sample, data["output.sde_sample_10_steps"], atol=1e-5, rtol=0)


def test_the_score_is_the_slope_of_the_log_density():
    x = torch.linspace(-2, 3, 11, dtype=torch.float64)
    for t in (0.04, 0.3, 0.9, 1.0):
        var = (1 - t) ** 2 * STD**2 + t**2
        expected = -(x - (1 - t) * MEAN) / var
        torch.testing.assert_close(score(velocity(x, t), x, t), expected)


@pytest.mark.parametrize("diffusion", DIFFUSION)
def test_its_moments_are_the_datas(diffusion):
    """Of a Gaussian the recursion of mean and variance is exact; the sampler must have its limit and its samples."""
    # Start and noise with exact moments and no correlations, so that the sample's moments follow the recursion.
    torch.manual_seed(0)
    steps = 40
    white = torch.linalg.qr(torch.randn(2000, steps + 1, dtype=torch.float64))[0]
    white = white - white.mean(dim=0)
    white = torch.linalg.qr(white)[0] * math.sqrt(len(white))
    columns = [c.view(-1, 1, 1) for c in white.T]
    x = euler_maruyama(velocity, columns[0], lambda i: columns[i + 1], SDEConfig(steps=steps, diffusion=diffusion))

    w, config = DIFFUSION[diffusion], SDEConfig(steps=steps, diffusion=diffusion)
    mean, var, levels = 0.0, 1.0, [*config.levels, 0.0]
    for i, (t, then) in enumerate(zip(levels, levels[1:], strict=False)):
        # dx/dt = v - w score is affine in x: slope * x + offset.
        marginal = (1 - t) ** 2 * STD**2 + t**2
        slope = (t - (1 - t) * STD**2) / marginal + w(t) / marginal
        offset = -(1 - t) * MEAN * slope - MEAN
        h = t - then
        mean, var = mean - h * (slope * mean + offset), (1 - h * slope) ** 2 * var + (i < steps - 1) * 2 * w(t) * h
    assert float(x.mean()) == pytest.approx(mean, abs=1e-9)
    assert float(x.std(correction=0)) == pytest.approx(math.sqrt(var), abs=1e-9)


@pytest.mark.parametrize("diffusion", DIFFUSION)
def test_with_many_steps_it_reaches_the_data(diffusion):
    """A chain of Gaussians has exact moments, found with two particles: x = mean +- deviation in every direction."""
    errors = []
    for steps in (50, 200):
        config = SDEConfig(steps=steps, last_step=4 / steps / 5, diffusion=diffusion)
        w, mean, var = DIFFUSION[diffusion], 0.0, 1.0
        levels = [*config.levels, 0.0]
        for i, (t, then) in enumerate(zip(levels, levels[1:], strict=False)):
            pair = torch.tensor([mean, mean + 1.0], dtype=torch.float64).view(2, 1, 1)
            h = t - then
            drift = w(t) * score(velocity(pair, t), pair, t) - velocity(pair, t)
            moved = (pair + h * drift).flatten()
            mean = float(moved[0])
            var = float(moved[1] - moved[0]) ** 2 * var + (i < steps - 1) * 2 * w(t) * h
        errors.append((abs(mean - MEAN), abs(math.sqrt(var) - STD)))
    assert errors[1][0] < 0.02 and errors[1][1] < 0.05
    assert all(fine < 0.6 * coarse for coarse, fine in zip(*errors, strict=True) if coarse > 1e-3)


def test_without_diffusion_it_is_eulers_method():
    x = torch.randn(5, 1, 1, dtype=torch.float64)
    config = SDEConfig(steps=25, norm=0.0)
    got = euler_maruyama(velocity, x, lambda _: torch.full_like(x, torch.inf).nan_to_num(), config)
    times = {"a": [*config.levels, 0.0]}
    expected = euler(lambda v, now: {"a": velocity(v["a"], now["a"])}, {"a": x}, times)["a"]
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (heun, 2)])
def test_the_ode_converges_to_the_datas_moments_with_its_order(solver, order):
    x = torch.randn(50, 1, 1, dtype=torch.float64)
    errors = []
    for steps in (40, 80, 160):
        end = solver(lambda v, now: {"a": velocity(v["a"], now["a"])}, {"a": x}, {"a": schedule(steps)})["a"]
        errors.append(float((end - (MEAN + STD * x)).abs().max()))
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert abs(math.log2(coarse / fine) - order) < 0.2


def test_the_grid_and_the_number_of_calls():
    calls, noises = [], []

    def record(x: Tensor, t: float) -> Tensor:
        calls.append(t)
        return torch.zeros_like(x)

    x = torch.zeros(1, 1, 1)
    euler_maruyama(record, x, lambda i: noises.append(i) or x, SDEConfig(steps=5))
    assert calls == pytest.approx([1, 0.76, 0.52, 0.28, 0.04]) and noises == [0, 1, 2, 3]
    assert SDEConfig().steps == 250 and SDEConfig().levels[-1] == 0.04


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 1}, "at least 2 steps"),
        ({"last_step": 0.0}, "between 0 and 1"),
        ({"last_step": 1.0}, "between 0 and 1"),
        ({"diffusion": "SBDM"}, "no diffusion form 'SBDM'"),
        ({"norm": -1.0}, "at least 0"),
    ],
)
def test_impossible_settings_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        SDEConfig(**settings)
