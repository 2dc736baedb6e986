"""Acceleration and rebounds against closed forms, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from selfflow_mm.data.world.constants import FPS, GRAVITY
from selfflow_mm.evaluation.world.contacts import find_events
from selfflow_mm.evaluation.world.plausibility import accelerations, rebounds
from selfflow_mm.evaluation.world.tracks import Track


def _bounce(gravity: float, elasticity: float) -> np.ndarray:
    t = np.arange(25) / FPS - 0.81
    y = np.where(t < 0, 80 * t, -elasticity * 80 * t) + gravity * t**2 / 2 + 46
    return np.stack([np.full(25, 30.0), y], axis=1)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_a_fall_has_the_acceleration_it_was_made_with(track_of: Callable[..., Track], share: float) -> None:
    tracks = [track_of(_bounce(share * GRAVITY, 0.6)[:12])]
    [found] = accelerations(tracks, find_events(tracks, FPS).contacts, FPS)
    assert found == pytest.approx(share, abs=0.02)


def test_a_bounce_loses_energy_and_gains_it_backwards(track_of: Callable[..., Track]) -> None:
    place = _bounce(GRAVITY, 0.6)
    for path, ratio in ((place, 0.6), (place[::-1].copy(), 1 / 0.6)):
        [found] = rebounds(find_events([track_of(path)], FPS).contacts)
        assert found == pytest.approx(ratio, rel=0.05)


def test_rolling_down_a_ramp_is_no_fall(track_of: Callable[..., Track]) -> None:
    t = np.arange(20) / FPS
    x = 10 + 20 * t + 10 * t**2
    assert accelerations([track_of(np.stack([x, 20 + 0.3 * (x - 10)], axis=1))], [], FPS) == []
