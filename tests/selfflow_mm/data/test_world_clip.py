"""Clips of the world: sound and picture agree with the events, captions are true, everything follows from the seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from selfflow_mm.data.world import WorldClip, make_clip
from selfflow_mm.data.world.constants import FLOOR_TOP, FPS, RATE
from selfflow_mm.data.world.materials import MATERIALS
from selfflow_mm.data.world.picture import PAINT, background
from selfflow_mm.data.world.prompts import COLOURS, SHAPES, SYNONYMS, example_prompts
from selfflow_mm.data.world.prompts import MATERIALS as MATERIAL_WORDS
from selfflow_mm.data.world.sound import pan, ring
from selfflow_mm.errors import UserError


@pytest.fixture(scope="module")
def clips() -> list[WorldClip]:
    return [make_clip(3, index) for index in range(60)]


def test_forms(clips: list[WorldClip]) -> None:
    for clip in clips:
        assert clip.video.frames.shape == (33, 64, 64, 3) and clip.video.fps == 16
        assert clip.audio.waveform.shape == (2, 33_000) and clip.audio.rate == 16_000
        assert clip.video.seconds == clip.audio.seconds == 2.0625
        assert np.array(clip.meta["objects"][0]["states"]).shape == (33, 3)


def test_the_same_key_gives_the_same_clip_and_another_one_another() -> None:
    one, again, other, world = make_clip(5, 8), make_clip(5, 8), make_clip(5, 9), make_clip(6, 8)
    assert torch.equal(one.video.frames, again.video.frames) and torch.equal(one.audio.waveform, again.audio.waveform)
    assert (one.captions, one.events, one.meta) == (again.captions, again.events, again.meta)
    for different in (other, world):
        assert one.events[0]["time"] != different.events[0]["time"]
    with pytest.raises(UserError, match="seed"):
        make_clip(-1, 0)


def test_silence_until_the_first_contact_and_sound_from_it(clips: list[WorldClip]) -> None:
    for clip in clips:
        loudness = clip.audio.waveform.abs().amax(dim=0)
        start = round(clip.events[0]["time"] * RATE)
        assert loudness[:start].max() == 0
        assert loudness[start : start + RATE // FPS].max() > 0.2
        assert loudness.max() <= 1
        onset = int(torch.nonzero(loudness > 0.05)[0])
        assert 0 <= onset - start < 0.010 * RATE


def test_the_object_is_seen_at_its_lowest_when_its_sound_begins(clips: list[WorldClip]) -> None:
    """Sync from the media alone: pixels of the object's colour against the first loud sample."""
    checked = 0
    for clip in clips[:30]:
        colour = clip.meta["objects"][0]["colour"]
        if colour == "white":
            continue  # the floor's reflections are white too
        likeness = np.linalg.norm(clip.video.frames.numpy().astype(np.float32) - np.float32(PAINT[colour]), axis=-1)
        shown = (likeness < 70) & (_difference(clip) > 24)
        lowest = [int(np.nonzero(frame.any(axis=1))[0].max(initial=0)) for frame in shown]
        onset = int(torch.nonzero(clip.audio.waveform.abs().amax(dim=0) > 0.05)[0]) / RATE * FPS
        landing = range(int(onset), min(int(onset) + 2, 33))
        assert max(lowest[k] for k in landing) >= max(lowest[: landing.stop]) - 1
        assert max(lowest[k] for k in landing) >= FLOOR_TOP - 1  # in front of the floor, but for its shaded rim
        # A landing is a turning point: two frames earlier the object is higher.
        assert lowest[max(int(onset) - 2, 0)] < max(lowest[k] for k in landing)
        checked += 1
    assert checked > 15


def _difference(clip: WorldClip) -> np.ndarray:
    """Distance of every pixel from the empty room, ``(33, 64, 64)``."""
    return np.abs(clip.video.frames.numpy() - background(clip.meta["material"])).max(axis=-1)


def test_the_picture_shows_the_object_at_its_place_in_its_colour(clips: list[WorldClip]) -> None:
    checked = 0
    for clip in clips:
        difference = _difference(clip)
        thing = clip.meta["objects"][0]
        for frame, (x, y, _) in enumerate(thing["states"]):
            if not 14 < y < FLOOR_TOP - 14:
                continue  # in front of the wall alone, where neither floor nor shadow disturbs
            rows, columns = np.nonzero(difference[frame, :FLOOR_TOP] > 8)
            assert np.mean(columns) + 0.5 == pytest.approx(x, abs=0.6)
            assert np.mean(rows) + 0.5 == pytest.approx(y, abs=0.6)
            centre = clip.video.frames[frame, round(y - 0.5), round(x - 0.5)].numpy().astype(float)
            nearest = min(PAINT, key=lambda name: float(np.linalg.norm(centre - PAINT[name])))
            assert nearest == thing["colour"]
            checked += 1
    assert checked > 100


def test_colours_and_floors_are_well_apart() -> None:
    assert set(PAINT) == set(COLOURS)
    for one, other in itertools.combinations(PAINT.values(), 2):
        assert np.linalg.norm(np.subtract(one, other)) > 100
    floors = [background(name)[FLOOR_TOP + 1 :].mean(axis=(0, 1)) for name in MATERIAL_WORDS]
    for a, b in itertools.combinations(floors, 2):
        assert np.linalg.norm(a - b) > 60


def test_captions_are_true(clips: list[WorldClip]) -> None:
    for clip in clips:
        thing = clip.meta["objects"][0]
        main = f"a {thing['colour']} {thing['shape']} falls and bounces on {clip.meta['material']}"
        assert clip.captions[0] == main and len(set(clip.captions)) == 3
        heights = np.array([state[1] for state in thing["states"]])
        for caption in clip.captions:
            words = caption.split()
            assert 4 <= len(words) <= 10
            assert thing["colour"] in words and clip.meta["material"] in words
            assert any(word in words for word in SYNONYMS[thing["shape"]])
            if "thrown up" in caption:
                assert heights[:8].min() < heights[0] - 2
        # "Bounces": after the first contact the object rises again, visibly.
        after = heights[int(np.ceil(clip.events[0]["time"] * FPS)) :]
        assert np.max(np.maximum.accumulate(after) - after) > 2


def test_events_say_what_the_simulation_did(clips: list[WorldClip]) -> None:
    for clip in clips:
        times = [event["time"] for event in clip.events]
        assert times == sorted(times) and 0.2 <= times[0] <= 1.71 and times[-1] < 2.0625
        states = np.array(clip.meta["objects"][0]["states"])
        thing = clip.meta["objects"][0]
        for event in clip.events:
            assert event["kind"] == "contact" and event["material"] == clip.meta["material"]
            assert event["who"][0] == f"{thing['colour']} {thing['shape']}" and event["who"][1] in ("floor", "wall")
            frame = min(round(event["time"] * FPS), 32)
            assert np.hypot(*(states[frame, :2] - event["place"])) < thing["size"]
            assert event["impact"] > 0


@pytest.mark.parametrize("name", MATERIALS)
def test_a_material_rings_at_its_partials(name: str) -> None:
    material = MATERIALS[name]
    wave = ring(material, 1.0, 1.0)
    assert np.abs(wave).max() == pytest.approx(1)
    late = wave[800:]  # after click and glide
    frequencies = np.fft.rfftfreq(32768, 1 / RATE)
    spectrum = np.abs(np.fft.rfft(late * np.hanning(len(late)), 32768))
    loudest = frequencies[np.argmax(spectrum)]
    assert min(abs(loudest - partial.frequency) for partial in material.partials) < 8


def test_sounds_come_from_the_side_of_their_contact(clips: list[WorldClip]) -> None:
    for clip in clips:
        if len(clip.events) == 1 and abs(clip.events[0]["place"][0] - 32) > 3:
            left, right = clip.audio.waveform.square().sum(dim=1).tolist()
            assert (left > right) == (clip.events[0]["place"][0] < 32)
    for x in (-5.0, 0.0, 20.0, 32.0, 64.0):
        assert (pan(x) ** 2).sum() == pytest.approx(1)


def test_example_prompts_show_everything_early_and_are_stable() -> None:
    prompts = example_prompts(54, seed=4)
    assert prompts[:6] == example_prompts(6, seed=4) != example_prompts(6, seed=5)
    words = {word for prompt in prompts[:6] for word in prompt.split()}
    assert words >= {*SHAPES, *COLOURS, *MATERIAL_WORDS}
    assert len(set(prompts)) == 54  # every combination once
