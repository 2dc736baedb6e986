"""The world's mechanics against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from selfflow_mm.data.world.clip import clip_generator
from selfflow_mm.data.world.constants import (
    FIRST_CONTACT,
    FLOOR_LINE,
    FPS,
    FRAMES,
    FULL_IMPACT,
    GRAVITY,
    SECONDS,
    STEP,
    WALL_LEFT,
    WALL_RIGHT,
)
from selfflow_mm.data.world.materials import MATERIALS
from selfflow_mm.data.world.physics import Motion, moment_of_inertia, simulate
from selfflow_mm.data.world.scene import Body, Scene, draw_scene

TIMES = np.arange(FRAMES) / FPS


@pytest.fixture(scope="module")
def runs() -> list[tuple[Scene, Motion]]:
    scenes = [draw_scene(clip_generator(17, index)) for index in range(300)]
    return [(scene, simulate(scene)) for scene in scenes]


def test_objects_fly_on_parabolas_until_the_first_contact(runs: list[tuple[Scene, Motion]]) -> None:
    for scene, motion in runs:
        body = scene.bodies[0]
        before = motion.contacts[0].time - STEP > TIMES
        t = TIMES[before]
        (x, y), (u, v) = body.place, body.velocity
        expected = np.stack([x + u * t, y + v * t + GRAVITY * t**2 / 2, body.angle + body.spin * t], axis=1)
        np.testing.assert_allclose(motion.states[0, before], expected, atol=1e-6)


def test_a_dropped_ball_lands_and_bounces_when_the_closed_form_says() -> None:
    for name, material in MATERIALS.items():
        body = Body("ball", "red", 18.0, (32.0, 15.0), 0.0, (0.0, 0.0), 0.0)
        motion = simulate(Scene(name, (body,)))
        landing = math.sqrt(2 * (FLOOR_LINE - 9 - 15) / GRAVITY)
        speed = GRAVITY * landing
        times = [landing]
        while (flight := 2 * material.elasticity * speed / GRAVITY) + times[-1] < SECONDS:
            times.append(times[-1] + flight)
            speed *= material.elasticity
        heard = [contact.time for contact in motion.contacts]
        assert len(heard) >= 2
        np.testing.assert_allclose(heard, times[: len(heard)], atol=0.02)
        assert abs(heard[0] - landing) <= 2 * STEP
        impact = GRAVITY * landing * (1 + material.elasticity) / FULL_IMPACT
        assert motion.contacts[0].impact == pytest.approx(impact, rel=0.02)
        assert motion.contacts[0].place == pytest.approx((32.0, FLOOR_LINE), abs=0.5)


def test_first_contacts_are_with_the_floor_and_spread_uniformly_over_time(runs: list[tuple[Scene, Motion]]) -> None:
    assert {motion.contacts[0].other for _, motion in runs} == {"floor"}
    low, high = FIRST_CONTACT
    times = [motion.contacts[0].time for _, motion in runs]
    assert stats.kstest(times, stats.uniform(low, high - low).cdf).pvalue > 0.01


def test_energy_never_grows(runs: list[tuple[Scene, Motion]]) -> None:
    """Mechanical energy per unit of mass from pairs of frames, which is exact between contacts."""
    for scene, motion in runs:
        x, y, angle = motion.states[0].T
        # Velocity at the first frame of a pair without contact: the mean velocity less half a frame of gravity.
        u, v, spin = np.diff(x) * FPS, np.diff(y) * FPS - GRAVITY / FPS / 2, np.diff(angle) * FPS
        inertia = moment_of_inertia(scene.bodies[0])
        energy = (u**2 + v**2 + inertia * spin**2) / 2 + GRAVITY * (FLOOR_LINE - y[:-1])
        contacts = np.array([contact.time for contact in motion.contacts])
        touched = ((contacts[:, None] > TIMES[:-1] - STEP) & (contacts[:, None] < TIMES[1:] + STEP)).any(axis=0)
        # Unheard contacts (settling) only lose energy; a pair that straddles one reads at most a little too low.
        free = energy[~touched]
        assert (free[1:] <= free[:-1] + 0.02 * energy[0]).all()
        assert free[-1] <= free[0]


def test_later_floor_impacts_of_a_ball_are_weaker(runs: list[tuple[Scene, Motion]]) -> None:
    checked = 0
    for scene, motion in runs:
        impacts = [c.impact for c in motion.contacts if c.other == "floor"]
        if scene.bodies[0].shape == "ball" and len(impacts) > 1:
            ratios = np.divide(impacts[1:], impacts[:-1])
            np.testing.assert_allclose(ratios, MATERIALS[scene.material].elasticity, atol=0.08)
            checked += 1
    assert checked > 20


def test_nothing_leaves_the_room(runs: list[tuple[Scene, Motion]]) -> None:
    for scene, motion in runs:
        body = scene.bodies[0]
        radius = body.size / 2 if body.shape == "ball" else float(np.hypot(*body.corners().T).min()) * 0.5
        x, y, _ = motion.states[0].T
        assert (x > WALL_LEFT + radius - 0.5).all() and (x < WALL_RIGHT - radius + 0.5).all()
        assert (y < FLOOR_LINE - radius + 0.5).all() and (y > -0.5).all()


def test_a_thrown_ball_hits_the_wall_and_says_so() -> None:
    body = Body("ball", "red", 18.0, (40.0, 20.0), 0.0, (60.0, -20.0), 0.0)
    contact = simulate(Scene("metal", (body,))).contacts[0]
    assert contact.other == "wall"
    assert contact.time == pytest.approx((WALL_RIGHT - 9 - 40) / 60, abs=2 * STEP)
    assert contact.place[0] == pytest.approx(WALL_RIGHT, abs=0.5)
    assert contact.impact == pytest.approx(60 * (1 + MATERIALS["metal"].elasticity) / FULL_IMPACT, rel=0.02)
