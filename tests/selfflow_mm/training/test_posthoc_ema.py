"""Post-hoc EMA against quadrature, explicit weighted sums and the true averages of known trajectories."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from scipy import integrate
from torch import nn

from selfflow_mm.errors import UserError
from selfflow_mm.training import posthoc_ema as phe


def profile(gamma: float, t: float, tau: np.ndarray | float) -> np.ndarray | float:
    return (gamma + 1) * tau**gamma / t ** (gamma + 1)


def true_average(values: np.ndarray, gamma: float) -> np.ndarray:
    """The profile's mean of a trajectory that stands still within each step: values (t, ...), the first at step 1."""
    t = len(values)
    steps = np.arange(1, t + 1)
    weights = [integrate.quad(lambda tau: profile(gamma, t, tau), i - 1, i)[0] for i in steps]
    return np.tensordot(weights, values, 1)


def random_walk(steps: int, width: int = 64) -> np.ndarray:
    return np.cumsum(np.random.default_rng(0).standard_normal((steps, width)), axis=0)


def tracked(walk: np.ndarray, stds: tuple[float, ...], every: int) -> tuple[list[tuple[float, float]], np.ndarray]:
    """Snapshots of a walk as training takes them: (std, t) of each, and what it holds."""
    model = nn.Module()
    model.w = nn.Parameter(torch.zeros(walk.shape[1], dtype=torch.float64))
    averages = phe.PowerAverages(model, stds)
    have, held = [], []
    for step, value in enumerate(walk, start=1):
        model.w.data.copy_(torch.from_numpy(value))
        averages.update(model, step)
        if step % every == 0:
            for std in stds:
                have.append((std, float(step)))
                held.append(averages.averages[std]["w"].numpy().copy())
    return have, np.stack(held)


@given(st.floats(0.0, 60.0))
def test_std_is_that_of_the_profile_and_gamma_is_its_inverse(gamma):
    mean = integrate.quad(lambda x: x * profile(gamma, 1, x), 0, 1)[0]
    square = integrate.quad(lambda x: x**2 * profile(gamma, 1, x), 0, 1)[0]
    std = math.sqrt(square - mean**2)
    assert phe.std_of(gamma) == pytest.approx(std, rel=1e-6)
    if std < phe.LONGEST:
        assert phe.gamma_of(phe.std_of(gamma)) == pytest.approx(gamma, abs=1e-6)


def test_the_papers_exponents():
    # Sec. 3.1: widths of 5 % and 10 % are gammas of about 16.97 and 6.94; an even mean is the longest profile.
    assert phe.gamma_of(0.05) == pytest.approx(16.97, abs=0.005)
    assert phe.gamma_of(0.10) == pytest.approx(6.94, abs=0.005)
    assert phe.std_of(0) == pytest.approx(phe.LONGEST)


@given(st.floats(0.0, 25.0), st.floats(0.0, 25.0), st.floats(0.1, 5.0), st.floats(0.1, 5.0))
def test_inner_products_are_the_integrals_of_the_product(gamma_a, gamma_b, t_a, t_b):
    product = integrate.quad(
        lambda tau: profile(gamma_a, t_a, tau) * profile(gamma_b, t_b, tau), 0, min(t_a, t_b), epsabs=0, epsrel=1e-10
    )[0]
    assert phe.inner_product((gamma_a, t_a), (gamma_b, t_b)) == pytest.approx(product, rel=1e-7)


def test_long_runs_and_narrow_profiles_overflow_nothing():
    narrow, wide = (phe.gamma_of(0.002), 4e6), (phe.gamma_of(0.28), 1e3)
    assert 0 <= phe.inner_product(narrow, wide) < phe.inner_product(narrow, narrow) < math.inf


@pytest.mark.parametrize("std", [0.05, 0.10, 0.25])
def test_the_running_average_is_the_explicit_weighted_sum(std):
    walk = random_walk(40, 3)
    have, held = tracked(walk, (std,), every=20)
    for (_, t), value in zip(have, held, strict=True):
        np.testing.assert_allclose(value, true_average(walk[: int(t)], phe.gamma_of(std)), rtol=1e-9)


def test_a_tracked_profile_at_a_snapshot_is_that_snapshot():
    walk = random_walk(400)
    have, held = tracked(walk, (0.05, 0.10), every=25)
    for i in (0, 9, 31):
        coefficients, missed = phe.fit(have[i], have)
        assert missed < 1e-5
        np.testing.assert_allclose(coefficients @ held, held[i], atol=1e-5 * np.abs(held).max())


@pytest.mark.parametrize(
    ("std", "step", "error"),
    [(0.075, 400, 0.005), (0.03, 400, 0.05), (0.15, 400, 0.005), (0.2, 400, 0.03), (0.07, 375, 0.005), (0.1, 385, 0.3)],
)
def test_other_profiles_are_near_the_truth_and_nearer_than_any_snapshot(std, step, error):
    # A random walk of 400 steps of size 1, 16 snapshots of each of two averages. The error is in steps' sizes,
    # where the walk itself is about 20 from its start.
    walk = random_walk(400)
    have, held = tracked(walk, (0.05, 0.10), every=25)
    coefficients, _ = phe.fit((std, step), have)
    truth = true_average(walk[:step], phe.gamma_of(std))
    off = np.sqrt(np.mean((coefficients @ held - truth) ** 2))
    nearest = min(np.sqrt(np.mean((value - truth) ** 2)) for value in held)
    assert off < error
    assert off < 0.5 * nearest


@given(st.integers(1, 8), st.floats(0.02, 0.28), st.floats(0.3, 1.0))
def test_coefficients_sum_to_one_so_weights_that_stand_still_stay(count, std, share):
    have = [(s, 100.0 * (i + 1) / count) for i in range(count) for s in (0.05, 0.10)]
    coefficients, missed = phe.fit((std, 100 * share), have)
    assert coefficients.sum() == pytest.approx(1, abs=1e-6)
    assert 0 <= missed <= 2


@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_snapshots_are_combined_into_weights_tensor_by_tensor(tmp_path, weights):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2, bias=False))
    averages = phe.PowerAverages(model, (0.05, 0.10))
    folder = tmp_path / phe.FOLDER
    trajectory = []
    for step in range(1, 41):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * torch.randn_like(p))
        averages.update(model, step)
        trajectory.append({k: v.clone() for k, v in model.state_dict().items()})
        if step % 5 == 0:
            averages.save_snapshots(folder, step, weights)
    have = phe.snapshots(tmp_path)
    assert [(s.step, s.std) for s in have[:3]] == [(5, 0.05), (5, 0.10), (10, 0.05)] and len(have) == 16
    how = phe.recipe(have, 0.08)
    phe.write_weights(how, tmp_path / "out.safetensors")
    made = load_file(tmp_path / "out.safetensors")
    assert made.keys() == model.state_dict().keys()
    for name, value in made.items():
        truth = true_average(np.stack([w[name].double().numpy() for w in trajectory]), phe.gamma_of(0.08))
        np.testing.assert_allclose(value.numpy(), truth, atol=2e-3 if weights == "float32" else 4e-3)
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "posthoc_ema_std": "0.08", "steps": "40"}
    phe.write_weights(how, tmp_path / "half.safetensors", half=True)
    halves = load_file(tmp_path / "half.safetensors")
    assert all(torch.equal(halves[name], value.half()) for name, value in made.items())
    # A tracked average comes out as it was stored, from its own file alone.
    same = phe.recipe(have, 0.10)
    assert len(same.parts) == 1 and same.missed < 1e-5
    assert [s.path.name for s, _ in same.parts] == ["step-000040-std-0.100.safetensors"]


def test_snapshots_after_the_step_a_run_goes_on_from_are_dropped(tmp_path):
    averages = phe.PowerAverages(nn.Linear(1, 1), (0.1,))
    for step in (5, 10, 15):
        averages.save_snapshots(tmp_path / phe.FOLDER, step, "float32")
    phe.drop_snapshots_after(tmp_path / phe.FOLDER, 10)
    assert [s.step for s in phe.snapshots(tmp_path)] == [5, 10]
    phe.drop_snapshots_after(tmp_path / "nothing", 10)


def test_what_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no snapshots"):
        phe.snapshots(tmp_path)
    have = [phe.Snapshot(std, step, tmp_path / "x") for step in (10, 20) for std in (0.05, 0.10)]
    with pytest.raises(UserError, match="between 0.001 and 0.289"):
        phe.recipe(have, 0.3)
    with pytest.raises(UserError, match="step 21 is outside of what the snapshots cover, 1 to 20"):
        phe.recipe(have, 0.1, 21)
    with pytest.raises(UserError, match=r"misses \d+% of its norm\); .* stds from 0.0\d+ to 0.2\d+ can"):
        phe.recipe(have, 0.005)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"every": -1}, "number of steps"),
        ({"stds": ()}, "at least one"),
        ({"stds": (0.1, 0.1)}, "twice"),
        ({"stds": (0.4,)}, "lies between"),
    ],
)
def test_impossible_settings_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        phe.PostHocConfig(**settings)
