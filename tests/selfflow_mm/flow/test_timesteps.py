"""p(t) against scipy, against densities written down independently, and each sampler against its own density."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from selfflow_mm.config import from_dict, to_dict
from selfflow_mm.errors import UserError
from selfflow_mm.flow.timesteps import PAPER_TIMESTEPS, Timesteps, shift
from selfflow_mm.randomness import Randomness

U = Randomness(5).uniform("t", 0, torch.arange(20_000))[:, 0]
# Even quantiles instead of draws: what comes out must lie on the distribution function, not merely near it.
EVEN = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000

distributions = st.builds(
    Timesteps,
    kind=st.sampled_from(["uniform", "logit-normal", "plateau-logit-normal"]),
    shift=st.sampled_from([0.0, 0.75, 1.0, 2.95, 10.0]),
    mean=st.sampled_from([-1.0, 0.0, 0.5]),
    std=st.sampled_from([0.3, 1.0, 1.8]),
    low_snr=st.sampled_from([0.0, 0.05, 0.5]),
    low_snr_from=st.sampled_from([0.0, 0.6, 0.95]),
)


def cdf_by_quadrature(p: Timesteps, at: np.ndarray) -> np.ndarray:
    """The integral of the density from 0, on a grid in logit(t) where every kind is smooth but for its edges."""
    x = np.linspace(-45, 45, 400_001)
    t = 1 / (1 + np.exp(-x))
    density = p.density(torch.from_numpy(t)).numpy()
    # dt = t (1 - t) dx, with 1 - t from the other side so that it does not vanish by rounding
    cdf = integrate.cumulative_trapezoid(density * t / (1 + np.exp(x)), x, initial=0)
    return np.interp(np.log(at) - np.log1p(-at), x, cdf)


@given(distributions)
def test_every_density_integrates_to_one_and_every_sampler_follows_its_density(p):
    drawn = np.sort(p.quantile(EVEN).numpy())
    assert drawn[0] > 0 and drawn[-1] < 1
    cdf = cdf_by_quadrature(p, np.append(drawn, 1 - 1e-16))
    assert cdf[-1] == pytest.approx(1, abs=2e-4)
    # The largest distance of the sample's distribution function from the integrated density (Kolmogorov-Smirnov).
    # Half a step of either of the mixture's branches, and the quadrature's error at the edges of the pieces.
    assert np.abs(cdf[:-1] - EVEN.numpy()).max() < 1.5 / len(EVEN) + 2e-4


@given(distributions)
def test_real_draws_pass_a_kolmogorov_smirnov_test_and_quantiles_rise(p):
    drawn = p.quantile(U).double().numpy()
    drawn = drawn[(drawn > 0) & (drawn < 1)]  # float32 may round to an end
    assert stats.kstest(drawn, lambda t: cdf_by_quadrature(p, t)).pvalue > 1e-4
    share = 1 - p.low_snr
    for part in (EVEN[EVEN < share], EVEN[EVEN >= share]):
        assert bool((p.quantile(part).diff() >= 0).all())


@pytest.mark.parametrize(("mean", "std", "a"), [(0.0, 1.0, 1.0), (-0.7, 0.4, 2.95), (1.2, 1.7, 0.75)])
def test_logit_normal_is_scipys(mean, std, a):
    p = Timesteps("logit-normal", a, mean, std)
    reference = stats.norm(mean + math.log(a), std)
    logits = torch.logit(p.quantile(EVEN)).numpy()
    np.testing.assert_allclose(logits, reference.ppf(EVEN.numpy()), atol=1e-9)
    t = np.linspace(0.001, 0.999, 999)
    np.testing.assert_allclose(
        p.density(torch.from_numpy(t)).numpy(), reference.pdf(np.log(t / (1 - t))) / (t * (1 - t)), rtol=1e-9
    )


@pytest.mark.parametrize("a", [1.0, 2.95, 0.75])
def test_logit_normal_shifted_by_a_is_logit_normal_with_mean_plus_log_a(a):
    t = Timesteps("logit-normal", shift=a).quantile(U).double().numpy()
    logits = np.log(t) - np.log1p(-t)
    assert stats.kstest(logits, stats.norm(math.log(a), 1).cdf).pvalue > 1e-3


@pytest.mark.parametrize("a", [1.0, 4.0, 0.5])
def test_shifted_uniform_in_closed_form(a):
    t = Timesteps("uniform", shift=a).quantile(U)
    assert torch.allclose(t, a * U / (1 + (a - 1) * U))
    assert torch.equal(Timesteps("uniform", shift=1.0).quantile(U), shift(U, 1.0))
    # F(t) = u solved from t = a u / (1 + (a - 1) u), and p is its derivative.
    at = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    cdf = at / (a + (1 - a) * at)
    assert torch.allclose(Timesteps("uniform", shift=a).quantile(cdf), at)
    step = 1e-6
    slope = ((at + step) / (a + (1 - a) * (at + step)) - (at - step) / (a + (1 - a) * (at - step))) / (2 * step)
    assert torch.allclose(Timesteps("uniform", shift=a).density(at), slope, rtol=1e-6)


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

    p = Timesteps("plateau-logit-normal", shift=a)
    np.testing.assert_allclose(cdf(p.quantile(EVEN).numpy()), EVEN.numpy(), atol=1e-9)
    after = torch.linspace(mode + 1e-3, 1 - 1e-6, 50, dtype=torch.float64)
    assert torch.allclose(p.density(after), torch.full_like(after, height / (below + height * (1 - mode))))


def test_a_wide_logit_normals_plateau_begins_at_the_higher_of_its_two_modes():
    t = torch.linspace(1e-5, 1 - 1e-5, 200_001, dtype=torch.float64)
    for mean in (-0.3, 0.3):
        density = Timesteps("logit-normal", 1.0, mean, 1.8).density(t)
        flat = Timesteps("plateau-logit-normal", 1.0, mean, 1.8).density(t)
        start = t[(flat.diff().abs() < 1e-12).nonzero()[0, 0]]
        assert abs(float(start - t[density.argmax()])) < 1e-4


def test_the_mixture_draws_the_stated_share_evenly_near_noise():
    p, base = Timesteps(shift=2.95, low_snr=0.05), Timesteps(shift=2.95)
    reused = U[U >= 0.95]
    low = p.quantile(reused)
    assert len(reused) / len(U) == pytest.approx(0.05, abs=5e-3)
    assert stats.kstest(low.double().numpy(), stats.uniform(0.95, 0.05).cdf).pvalue > 1e-3
    assert torch.allclose(p.quantile(U[U < 0.95]), base.quantile(U[U < 0.95] / 0.95))


def test_a_density_is_zero_outside_and_keeps_type_and_shape():
    p = Timesteps("uniform", low_snr=0.3)
    t = torch.tensor([[-1.0, 0.0, 0.5], [1.0, 2.0, 0.99]])
    density = p.density(t)
    assert density.dtype == t.dtype and density.shape == t.shape
    assert density[0].tolist() == pytest.approx([0, 0, 0.7]) and density[1].tolist() == pytest.approx([0, 0, 6.7])


def test_what_runs_drew_before_is_what_they_draw_now():
    # float32 values of the release before mixtures and densities, for u = 1/8, 1/2, 7/8: resumed runs depend on them.
    u = torch.tensor([0.125, 0.5, 0.875])
    for p, expected in [
        (Timesteps(shift=6.0), torch.sigmoid(math.log(6.0) + 1.0 * torch.special.ndtri(u))),
        (Timesteps("uniform", shift=4.0), 4 * u / (1 + 3 * u)),
    ]:
        assert torch.equal(p.quantile(u), expected)


def test_the_papers_rows_are_chosen_by_name_and_survive_a_saved_config():
    for name, row in PAPER_TIMESTEPS.items():
        p = Timesteps(paper=name)
        assert {k: getattr(p, k) for k in row} == row
        assert from_dict(Timesteps, to_dict(p)) == p
    assert Timesteps(paper="image-flux2").shift == 4.63 and Timesteps(paper="rae").kind == "plateau-logit-normal"
    assert Timesteps(paper="video-wan22").low_snr == 0 and Timesteps(paper="video-wan22-low-snr").low_snr == 0.05


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"std": 0}, "positive std"),
        ({"shift": -1}, "shift is positive"),
        ({"low_snr": 1.0}, "low_snr"),
        ({"low_snr_from": 1.0}, "low_snr_from"),
        ({"paper": "image-vae"}, "the paper's distributions are image-sd-vae"),
        ({"paper": "rae", "shift": 3.0}, "rae has shift 10.0, so shift cannot be 3.0"),
    ],
)
def test_bad_parameters_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        Timesteps(**settings)
