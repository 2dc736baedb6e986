"""Trying again: pauses that grow, a limit, one warning, and no second attempt for what waiting does not mend."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.training.retries import LONGEST_PAUSE, pauses, retrying


@given(st.floats(0, 5000))
def test_pauses_grow_and_make_the_whole_time(seconds: float) -> None:
    found = list(pauses(seconds))
    assert sum(found) == pytest.approx(seconds)
    assert all(0 < pause <= LONGEST_PAUSE for pause in found)
    assert found[:-1] == sorted(found[:-1]) and found[:-1][:6] == [1, 2, 4, 8, 16, 32][: len(found[:-1])]


@given(st.integers(0, 12))
def test_it_is_tried_until_it_works_or_the_time_is_up(failures: int) -> None:
    calls, waited = [], []

    def action() -> str:
        calls.append(None)
        if len(calls) <= failures:
            raise OSError("away")
        return "there"

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if failures > 5:  # 1 + 2 + 4 + 8 + 5
            with pytest.raises(OSError, match="away"):
                retrying(action, seconds=20, what="reading", sleep=waited.append)
        else:
            assert retrying(action, seconds=20, what="reading", sleep=waited.append) == "there"
    assert waited == [1, 2, 4, 8, 5][:failures] and len(calls) == min(failures, 5) + 1
    assert [str(w.message) for w in told] == ["reading failed (away); trying again for 20 s"] * (failures > 0)


def test_other_errors_go_through_at_once() -> None:
    def action() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        retrying(action, seconds=20, what="reading", sleep=pytest.fail)
