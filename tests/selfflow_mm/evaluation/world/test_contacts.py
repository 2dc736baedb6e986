"""Contacts against closed-form paths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.data.world.constants import FPS, FRAMES, GRAVITY
from selfflow_mm.evaluation.world.contacts import find_events
from selfflow_mm.evaluation.world.tracks import Track

GROUND = 46.0


def bounce(contact: float, speed: float, elasticity: float) -> np.ndarray:
    """Places ``(FRAMES, 2)`` of a ball that hits the ground at frame ``contact`` with ``speed`` pixels per second."""
    t = (np.arange(FRAMES) - contact) / FPS
    y = np.where(t < 0, speed * t, -elasticity * speed * t) + GRAVITY * t**2 / 2 + GROUND
    return np.stack([np.full(FRAMES, 30.0), y], axis=1)


@given(st.floats(8.0, 20.0), st.floats(60.0, 100.0), st.floats(0.5, 0.75))
def test_a_bounce_is_timed_to_a_tenth_of_a_frame(contact: float, speed: float, elasticity: float) -> None:
    place = bounce(contact, speed, elasticity)
    place = place[: int(contact + 2 * elasticity * speed / GRAVITY * FPS) - 1]  # up to the second contact
    found = find_events([_track(place)], FPS).contacts
    assert len(found) == 1
    assert found[0].time == pytest.approx(contact, abs=0.1)
    [before], [after] = found[0].before, found[0].after
    assert before * FPS == pytest.approx(speed, abs=0.5) and after / before == pytest.approx(elasticity, abs=0.02)


def _track(place: np.ndarray) -> Track:
    full = np.full(len(place), 150.0)
    box = np.concatenate([place - 7, place + 7], axis=1).astype(np.int64)
    return Track(
        "red", full, place, np.zeros(len(place), bool), box, np.zeros((len(place), 5)), np.zeros((len(place), 4))
    )


def test_falling_rolling_and_resting_are_no_contacts(track_of: Callable[..., Track]) -> None:
    t = np.arange(FRAMES) / FPS
    fall = np.stack([20 + 10 * t, 9 + GRAVITY * t[:FRAMES] ** 2 / 8], axis=1)
    roll = np.stack([12 + 20 * t, np.full(FRAMES, GROUND)], axis=1)
    rest = np.full((FRAMES, 2), 40.0)
    noise = np.random.default_rng(0).normal(0, 0.08, (3, FRAMES, 2))
    for place, wobble in zip((fall, roll, rest), noise, strict=True):
        assert find_events([track_of(place + wobble)], FPS).contacts == ()


def test_a_soft_blow_or_one_that_does_not_last_is_no_contact(track_of: Callable[..., Track]) -> None:
    """Decoded pictures jerk by as much: a jump counts from an impact of 0.15 on, and if three quarters of it stay."""

    def found(*steps: float) -> int:
        x = 14 + np.cumsum([0.0] * 10 + list(steps) + [steps[-1]] * (16 - len(steps)))
        return len(find_events([track_of(np.stack([x, np.full(len(x), GROUND)], axis=1))], FPS).contacts)

    assert found(1.3) == 0 and found(1.7) == 1
    assert found(2.0, 0.6) == 0 and found(2.0, 1.4) == 1


def test_two_objects_that_meet_are_one_contact_and_apart_are_two(track_of: Callable[..., Track]) -> None:
    t = np.arange(FRAMES, dtype=float)
    one = np.stack([np.minimum(10 + 2 * t, 26), np.full(FRAMES, GROUND)], axis=1)
    other = np.stack([np.maximum(40, 40 + 2 * (t - 8)), np.full(FRAMES, GROUND)], axis=1)[:16]
    one = one[:16]
    [contact] = find_events([track_of(one), track_of(other, "blue")], FPS).contacts
    assert contact.time == pytest.approx(8, abs=0.2) and set(contact.who) == {0, 1}
    far = other + np.array([0.0, -20.0])
    assert len(find_events([track_of(one), track_of(far, "blue")], FPS).contacts) == 2


def test_what_comes_in_from_a_side_enters_and_what_falls_in_does_not(track_of: Callable[..., Track]) -> None:
    t = np.arange(FRAMES, dtype=float)
    roll = np.stack([-20 + 3 * t, np.full(FRAMES, GROUND)], axis=1)
    drop = np.stack([np.full(FRAMES, 30.0), -20 + 3 * t], axis=1)
    roll[roll[:, 0] < -5] = np.nan
    drop[drop[:, 1] < -5] = np.nan
    assert find_events([track_of(roll)], FPS).entrances == (pytest.approx(3.7),)
    assert find_events([track_of(drop)], FPS).entrances == ()
