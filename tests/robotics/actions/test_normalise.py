"""Normalisation: what goes where, and that it comes back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from selfflow_mm.errors import UserError
from selfflow_robotics.actions.normalise import RT1_PUBLISHED, Normaliser, normaliser

_KINDS = ("quantile", "gaussian", "bounds", "unit", "identity")
_SETTINGS = st.tuples(
    st.lists(st.floats(-100, 100), min_size=7, max_size=7), st.lists(st.floats(1e-4, 100), min_size=7, max_size=7)
)


def _statistics(low: list[float], spread: list[float]) -> dict[str, list[float]]:
    high = [a + b for a, b in zip(low, spread, strict=True)]
    return {"q01": low, "q99": high, "min": low, "max": high, "mean": low, "std": spread}


@pytest.mark.parametrize("kind", _KINDS)
@given(settings=_SETTINGS, values=hnp.arrays(np.float32, (2, 3, 7), elements=st.floats(-300, 300, width=32)))
def test_values_come_back(kind: str, settings: tuple[list[float], list[float]], values: np.ndarray) -> None:
    n = normaliser(kind, _statistics(*settings), names=tuple("abcdefg"))  # type: ignore[arg-type]
    shift, scale = np.array(n.shift), np.array(n.scale)
    exact = n.inverse(n.forward(values.astype(np.float64))).astype(np.float32)
    large = np.abs(values) >= 1e-8 * (np.abs(shift) + scale)
    assert np.array_equal(exact[large], values[large])
    seen = n.forward(values)
    assert seen.dtype == np.float32
    back = n.inverse(seen)
    assert back.dtype == np.float32
    bound = 2.0**-24 * (np.abs(values.astype(np.float64) - shift) + np.abs(values)) * 1.001 + 1e-40
    assert np.all(np.abs(back.astype(np.float64) - values) <= bound)


@given(settings=_SETTINGS)
def test_where_the_marks_go(settings: tuple[list[float], list[float]]) -> None:
    statistics = _statistics(*settings)
    low, high, names = statistics["q01"], statistics["q99"], tuple("abcdefg")
    for kind in ("quantile", "bounds"):
        n = normaliser(kind, statistics, names=names)  # type: ignore[arg-type]
        assert np.allclose(n.forward([low, high]), [[-1] * 7, [1] * 7], atol=1e-9)
        # OpenVLA's and openpi's formula (without their 1e-8 and 1e-6 in the denominator).
        x = np.linspace(low, high, 5) * 1.5
        expected = 2 * (x - low) / (np.array(high) - low) - 1
        assert np.allclose(n.forward(x), expected, rtol=1e-7, atol=1e-7)
    n = normaliser("gaussian", statistics, names=names)
    assert np.allclose(n.forward([low, high]), [[0] * 7, [1] * 7], atol=1e-9)


def test_rt1_and_the_gripper() -> None:
    n = normaliser("quantile", RT1_PUBLISHED)
    assert n.kinds == ("quantile",) * 6 + ("unit",)
    edges = [RT1_PUBLISHED["q01"], RT1_PUBLISHED["q99"]]
    assert np.allclose(n.forward(edges), [[-1] * 7, [1] * 7], atol=1e-12)
    assert n.forward(np.float32([[0.0] * 6 + [0.5]]))[0, 6] == 0
    untouched = normaliser("quantile", RT1_PUBLISHED, gripper="identity")
    assert untouched.forward(edges)[:, 6].tolist() == [0, 1]
    assert normaliser("quantile", RT1_PUBLISHED, gripper=None).kinds == ("quantile",) * 7
    # The figures that everybody quotes.
    assert np.round(RT1_PUBLISHED["q01"][:6], 5).tolist() == [-0.22454, -0.1482, -0.23159, -0.3518, -0.4193, -0.43643]
    assert np.round(RT1_PUBLISHED["q99"][:6], 5).tolist() == [0.17825, 0.14938, 0.21842, 0.58927, 0.35273, 0.44797]
    # What one wild value does to bounds: RT-1's y from -5.4979 to 22.0905 leaves 0.022 of 2 for its quantiles.
    wild = normaliser("bounds", {"min": [-5.4979], "max": [22.0905]}, names=("y",))
    assert np.ptp(wild.forward([[-0.1482], [0.14938]])) == pytest.approx(0.0216, abs=1e-4)


def test_clipping_is_off_unless_asked_for() -> None:
    values = np.zeros((1, 7))
    values[0, 0] = 22.0
    assert normaliser("quantile", RT1_PUBLISHED).forward(values)[0, 0] > 100
    clipped = normaliser("quantile", RT1_PUBLISHED, clip=1.5)
    assert clipped.forward(values)[0, 0] == 1.5
    assert clipped.inverse(np.full((1, 7), 3.0))[0, 6] == 2.0  # the inverse limits nothing


def test_constant_dimensions_become_0_and_come_back() -> None:
    # 0.1 + 1e-9 is 0.1 in float32: no variation that the data could have shown.
    n = normaliser("quantile", {"q01": [0.5, 0.1, -1.0], "q99": [0.5, 0.1 + 1e-9, 1.0]})
    assert n.constant == ("dimension 0", "dimension 1") and n.scale == (1, 1, 1)
    seen = n.forward(np.float32([[0.5, 0.1, 0.25], [2.5, 0.1, 1.0]]))
    assert np.allclose(seen, [[0, 0, 0.25], [2, 0, 1]], atol=1e-7)
    assert np.array_equal(n.inverse(seen), np.float32([[0.5, 0.1, 0.25], [2.5, 0.1, 1.0]]))


def test_each_dimension_may_have_its_own_kind() -> None:
    statistics = {"q01": [0, 0, 0], "q99": [2, 2, 2], "mean": [1, 1, 1], "std": [4, 4, 4]}
    n = normaliser(("quantile", "gaussian", "identity"), statistics)
    assert n.forward([2.0, 5.0, 7.0]).tolist() == [1, 1, 7]


@pytest.mark.parametrize("kind", _KINDS)
def test_json_keeps_every_bit(kind: str) -> None:
    statistics = _statistics([0.1, 1 / 3, 7.0], [0.7, 1e-3, 0.0])
    n = normaliser(kind, statistics, names=("a", "b", "gripper"), clip=5.0)  # type: ignore[arg-type]
    assert Normaliser.from_dict(json.loads(json.dumps(n.to_dict()))) == n


def test_missing_statistics_say_how_to_get_them() -> None:
    for statistics in (None, {}, {"names": ["x"]}, {"mean": [0.0], "std": [1.0]}):
        with pytest.raises(UserError, match="selfflow-mm robot-data stats"):
            normaliser("quantile", statistics)
    assert normaliser("identity", None, names=("x",)).forward([[4.0]]).tolist() == [[4.0]]


def test_what_cannot_be_right_is_refused() -> None:
    with pytest.raises(UserError, match="the statistics of 'x' are wrong"):
        normaliser("quantile", {"q01": [1.0], "q99": [0.0]}, names=("x",))
    with pytest.raises(UserError, match="'x' cannot be normalised with shift nan"):
        normaliser("gaussian", {"mean": [np.nan], "std": [1.0]}, names=("x",))
    with pytest.raises(UserError, match="2 dimensions"):
        normaliser("quantile", {"q01": [0.0], "q99": [1.0]}, names=("x", "y"))
    with pytest.raises(UserError, match="no normalisation 'q99'"):
        normaliser("q99", {"q01": [0.0], "q99": [1.0]})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="last axis is"):
        normaliser("quantile", RT1_PUBLISHED).forward(np.zeros((2, 6)))
    with pytest.raises(UserError, match="clip"):
        normaliser("quantile", RT1_PUBLISHED, clip=0.0)
    with pytest.raises(UserError, match="lacks 'kinds'"):
        Normaliser.from_dict({"clip": None, "names": ["x"]})
