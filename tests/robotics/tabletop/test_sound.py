"""Contacts are heard when they happen, from where they happen, and nothing else is."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from selfflow_robotics.tabletop import Expert
from selfflow_robotics.tabletop.contacts import Contact
from selfflow_robotics.tabletop.sound import MATERIALS, RATE, SAMPLES, Microphones, pan, ring


def contact(time: float, y: float = 0.0, impact: float = 0.5, materials=("metal", "wood")) -> Contact:
    return Contact(time, (0.6, y, 0.9), impact, ("coke can", "table"), materials)


@pytest.mark.parametrize("time", [2.0, 2.0601, 2.3])
def test_a_sound_begins_at_its_contact_and_is_silent_before(time):
    heard = Microphones().hear([contact(time)], 2.0)
    assert heard.shape == (2, SAMPLES) and heard.dtype == np.float32
    first = int(np.flatnonzero(np.abs(heard).max(axis=0))[0])
    assert first == pytest.approx((time - 2.0) * RATE, abs=1)


def test_tails_ring_on_into_the_next_step_without_a_gap_and_end():
    split, whole = Microphones(), Microphones()
    late = contact(0.9 / 3)
    parts = [split.hear([late], 0.0)] + [split.hear([], step / 3) for step in (1, 2, 3)]
    assert np.abs(parts[1]).max() > 0.01 and np.abs(parts[3]).max() == 0.0
    shifted = whole.hear([contact(0.0)], 0.0)  # the same blow at the beginning of a step
    start = round(0.9 / 3 * RATE)
    joined = np.concatenate(parts[:2], axis=1)[:, start : start + SAMPLES]
    np.testing.assert_allclose(joined, shifted[:, : joined.shape[1]], atol=1e-6)


def test_left_is_left_and_harder_is_louder():
    left, right = pan(0.5), pan(-0.5)
    assert left[0] > left[1] and right[1] > right[0]
    assert np.hypot(*left) == pytest.approx(1.0)
    heard = [Microphones().hear([contact(0.0, y=0.4, impact=impact)], 0.0) for impact in (0.1, 0.4, 1.0)]
    loud = [float(np.abs(part).max()) for part in heard]
    assert loud[0] < loud[1] < loud[2] <= 1.0
    assert np.abs(heard[1][0]).max() > 1.5 * np.abs(heard[1][1]).max()


@pytest.mark.parametrize("material", sorted(MATERIALS))
def test_a_material_rings_at_its_partials(material):
    wave = ring(material, 7)
    assert np.abs(wave).max() == pytest.approx(1.0)
    spectrum = np.abs(np.fft.rfft(wave[200:], 1 << 16))  # after the click
    frequencies = np.fft.rfftfreq(1 << 16, 1 / RATE)
    loudest = max(MATERIALS[material].partials, key=lambda partial: partial[1] * partial[2])
    assert frequencies[spectrum.argmax()] == pytest.approx(loudest[0], rel=0.06)


def test_many_blows_stay_within_full_scale():
    heard = Microphones().hear([contact(0.01 * k, impact=1.0) for k in range(20)], 0.0)
    assert np.abs(heard).max() <= 1.0


def test_an_episode_sounds_where_its_contacts_are_and_only_there():
    env = gymnasium.make("selfflow/Tabletop-v0", task="place_in_drawer", sound=True, pictures=False)
    obs, info = env.reset(seed=1)
    assert not obs["sound"].any() and info["contacts"] == []
    expert, silent, onsets = Expert(env), True, 0
    for step in range(60):
        obs, _, terminated, _, info = env.step(expert.act())
        for event in info["contacts"]:
            assert step / 3 - 1e-9 <= event.time <= (step + 1) / 3 + 1e-9
            assert 0 <= event.impact <= 1
        sound = np.abs(obs["sound"]).max(axis=0)
        if silent and info["contacts"]:
            first = min(event.time for event in info["contacts"])
            assert np.flatnonzero(sound)[0] == pytest.approx(min((first - step / 3) * RATE, SAMPLES - 1), abs=1)
            onsets += 1
        elif silent:
            assert not sound.any()
        silent = not sound[-1] and not env.unwrapped._microphones._waiting.any()
        if terminated:
            break
    assert onsets >= 3
