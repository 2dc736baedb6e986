"""Clips of the world: sound and picture agree with the events, and everything follows from the seed."""

from __future__ import annotations

import hashlib
import itertools
import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from selfflow_mm.data.world import WorldClip, make_clip
from selfflow_mm.data.world.constants import FLOOR_TOP, FPS, RATE, STEPS
from selfflow_mm.data.world.furniture import empty_room
from selfflow_mm.data.world.holdout import HELD_OUT_WORDS, Split
from selfflow_mm.data.world.materials import MATERIALS
from selfflow_mm.data.world.physics import Motion
from selfflow_mm.data.world.picture import render_picture
from selfflow_mm.data.world.scene import SIZES, Scene, Thing
from selfflow_mm.data.world.sound import pan, ring
from selfflow_mm.data.world.surfaces import PAINT, ink
from selfflow_mm.data.world.text import LETTER_HEIGHT, LETTER_WIDTH, PITCH, letter
from selfflow_mm.data.world.vocabulary import COLOURS, SHAPES, WORDS
from selfflow_mm.errors import UserError

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.fixture(scope="module")
def clips() -> list[WorldClip]:
    return [make_clip(3, index) for index in range(90)]


def sounding(clip: WorldClip) -> list[dict]:
    return [event for event in clip.events if event["kind"] != "hidden"]


def test_forms(clips: list[WorldClip]) -> None:
    for clip in clips:
        assert clip.video.frames.shape == (33, 64, 64, 3) and clip.video.fps == 16
        assert clip.audio.waveform.shape == (2, 33_000) and clip.audio.rate == 16_000
        assert clip.video.seconds == clip.audio.seconds == 2.0625
        for thing in clip.meta["objects"]:
            states = np.array(thing["states"])
            assert states.shape == (33, 4) and (0 <= states[:, 3]).all() and (states[:, 3] <= 1).all()


def test_the_same_key_gives_the_same_clip_and_another_one_another() -> None:
    one, again = make_clip(5, 8), make_clip(5, 8)
    assert torch.equal(one.video.frames, again.video.frames) and torch.equal(one.audio.waveform, again.audio.waveform)
    assert (one.captions, one.events, one.meta) == (again.captions, again.events, again.meta)
    for other in (make_clip(5, 9), make_clip(6, 8), make_clip(5, 8, "test")):
        assert sounding(one)[0]["time"] != sounding(other)[0]["time"]
    with pytest.raises(UserError, match="seed"):
        make_clip(-1, 0)
    with pytest.raises(UserError, match="split"):
        make_clip(0, 0, "validation")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seed", "index", "split", "text", "brightness", "energy"),
    [
        (0, 0, "train", "734a26b4b307f6fc", 132.819, 120.787),
        (5, 8, "train", "f31217e698bdf151", 131.070, 123.417),
        (3, 18, "test", "a0baf573f059bd30", 132.189, 140.664),
        (0, 2, "test", "b9034b08c044695c", 133.587, 25.391),
    ],
)
def test_the_clips_are_those_that_the_bundled_weights_learned(
    seed: int, index: int, split: Split, text: str, brightness: float, energy: float
) -> None:
    clip = make_clip(seed, index, split)
    events = [[event["kind"], event["who"], round(event["time"], 3)] for event in clip.events]
    told = json.dumps([[caption.text for caption in clip.captions], events])
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == text
    assert float(clip.video.frames.float().mean()) == pytest.approx(brightness, abs=0.001)
    assert float(clip.audio.waveform.double().square().sum()) == pytest.approx(energy, abs=0.001)


def test_silence_until_the_first_event_and_sound_from_it(clips: list[WorldClip]) -> None:
    for clip in clips:
        loudness = clip.audio.waveform.abs().amax(dim=0)
        first = sounding(clip)[0]
        start = round(first["time"] * RATE)
        assert loudness[:start].max() == 0 and loudness.max() <= 1
        heard = 0.02 if first["kind"] == "contact" else 0.0
        assert 0 <= int(torch.nonzero(loudness > heard)[0]) - start < 0.002 * RATE
        if first["kind"] == "contact":
            assert loudness[start : start + RATE // FPS].max() > 0.1
        else:
            middle = round((first["time"] + first["until"]) / 2 * RATE)
            assert loudness[middle - 400 : middle + 400].max() > 0.04


def test_materials_are_told_apart_by_ear(clips: list[WorldClip]) -> None:
    """Spectral centroid of the 0.15 s from a clip's first contact, where nothing else sounds."""
    bands = {"rubber": (100, 330), "wooden": (400, 900), "metal": (1200, 2050), "glass": (2100, 3000)}
    seen = set()
    for clip in clips:
        first, *later = sounding(clip)
        if (
            first["kind"] != "contact"
            or len(first["materials"]) > 1
            or (later and later[0]["time"] < first["time"] + 0.15)
        ):
            continue
        start = round(first["time"] * RATE)
        sound = clip.audio.waveform[:, start : start + 2400].sum(dim=0).numpy()
        power = np.abs(np.fft.rfft(sound)) ** 2
        centroid = (power * np.fft.rfftfreq(len(sound), 1 / RATE)).sum() / power.sum()
        low, high = bands[first["materials"][0]]
        assert low < centroid < high, (first, centroid)
        seen.add(first["materials"][0])
    assert seen == set(bands)


@pytest.mark.parametrize("name", MATERIALS)
def test_a_material_rings_at_its_partials(name: str) -> None:
    material = MATERIALS[name]
    wave = ring(material, 1.0, 1.0)
    assert np.abs(wave).max() == pytest.approx(1)
    late = wave[800:]  # after click and glide
    frequencies = np.fft.rfftfreq(32768, 1 / RATE)
    loudest = frequencies[np.argmax(np.abs(np.fft.rfft(late * np.hanning(len(late)), 32768)))]
    assert min(abs(loudest - partial.frequency) for partial in material.partials) < 8


def test_harder_blows_are_louder_and_brighter() -> None:
    hertz = np.fft.rfftfreq(8000, 1 / RATE)
    for material in MATERIALS.values():
        centroids = []
        for impact in (0.1, 0.5, 1.0):
            power = np.abs(np.fft.rfft(ring(material, 1.0, impact), 8000)) ** 2
            centroids.append((power * hertz).sum() / power.sum())
        assert centroids == sorted(centroids)


def test_sounds_come_from_the_side_of_their_contact(clips: list[WorldClip]) -> None:
    for clip in clips:
        events = sounding(clip)
        if len(events) == 1 and events[0]["kind"] == "contact" and abs(events[0]["place"][0] - 32) > 3:
            left, right = clip.audio.waveform.square().sum(dim=1).tolist()
            assert (left > right) == (events[0]["place"][0] < 32)
    assert np.square(pan(np.array([-5.0, 0.0, 20.0, 32.0, 64.0]))).sum(axis=0) == pytest.approx(1)


def test_rolling_moves_across_and_has_the_bands_of_its_material(clips: list[WorldClip]) -> None:
    checked = 0
    for clip in clips:
        rolls = [event for event in clip.events if event["kind"] == "roll"]
        if clip.meta["story"] != "hide" or len(sounding(clip)) > 1:
            continue
        [roll] = rolls
        a, b = round(roll["time"] * RATE), round(roll["until"] * RATE)
        third = (b - a) // 3
        early, late = (clip.audio.waveform[:, k : k + third].square().sum(dim=1) for k in (a, b - third))
        rightwards = roll["places"][1][0] > roll["places"][0][0]
        assert (early[0] > early[1]) == rightwards == (late[1] > late[0])
        power = clip.audio.waveform.sum(dim=0)[a:b].numpy()
        spectrum, hertz = np.abs(np.fft.rfft(power)) ** 2, np.fft.rfftfreq(b - a, 1 / RATE)
        (low, _), (_, high) = MATERIALS[roll["materials"][0]].rolling
        inside = (hertz > low / 1.4) & (hertz < high * 1.4)
        assert spectrum[inside].sum() > 0.95 * spectrum.sum()
        checked += 1
    assert checked >= 2


def resting(thing: Thing, x: float = 32.0, y: float = 28.0) -> tuple[Scene, Motion]:
    """An object that hangs still in the air."""
    return Scene("", (thing,)), Motion(np.broadcast_to([x, y, 0.0], (1, STEPS, 3)), (), ())


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of sRGB in [0, 255], D65."""
    linear = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(linear > 0.04045, ((linear + 0.055) / 1.055) ** 2.4, linear / 12.92)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / matrix.sum(axis=1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def test_paints_are_far_apart() -> None:
    assert tuple(PAINT) == COLOURS
    for one, other in itertools.combinations(PAINT.values(), 2):
        assert np.linalg.norm(lab(np.array(one)) - lab(np.array(other))) > 50
    wall = empty_room(Scene("", ()))[0][:FLOOR_TOP, 5:-5].reshape(-1, 3)
    for paint in PAINT.values():
        assert np.linalg.norm(lab(wall) - lab(np.array(paint)), axis=1).min() > 30


@pytest.mark.parametrize("shape", SHAPES)
def test_objects_have_the_colour_that_is_said_in_every_material(shape: str) -> None:
    room = empty_room(Scene("", ()))[0]
    names = list(PAINT)
    paints = lab(np.array([PAINT[name] for name in names]))
    for colour, material in itertools.product(PAINT, MATERIALS):
        frames, seen = render_picture(*resting(Thing(shape, colour, material, sum(SIZES[shape]) / 2)))
        assert (seen == 1).all()
        shown = np.abs(frames[0] - room).max(axis=-1)[:FLOOR_TOP] > 24
        pixels = lab(frames[0, :FLOOR_TOP][shown])
        median = np.median(pixels, axis=0)
        assert names[int(np.linalg.norm(paints - median, axis=1).argmin())] == colour, material


def test_materials_of_a_colour_look_different() -> None:
    for shape, colour in itertools.product(("ball", "cube", "star", "block"), COLOURS):
        looks = [render_picture(*resting(Thing(shape, colour, m, sum(SIZES[shape]) / 2)))[0][0] for m in MATERIALS]
        for one, other in itertools.combinations(looks, 2):
            assert np.abs(one.astype(float) - other).max(axis=-1)[20:37, 24:41].mean() > 6


def test_areas_are_those_of_the_shapes() -> None:
    for shape in SHAPES:
        size = sum(SIZES[shape]) / 2
        thing = Thing(shape, "red", "wooden", size)
        frames, _ = render_picture(*resting(thing))
        shown = np.abs(frames[0].astype(float) - empty_room(Scene("", ()))[0]).max(axis=-1)[:FLOOR_TOP] > 60
        if shape == "ball":
            area = np.pi * size**2 / 4
        else:
            x, y = thing.corners().T
            area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
        assert shown.sum() == pytest.approx(area, rel=0.12)


def read(inked: np.ndarray, letters: int) -> str:
    """The word in a mask of ink, by exact comparison with all letters."""
    word = ""
    for place in range(letters):
        cell = inked[:, place * PITCH : place * PITCH + LETTER_WIDTH]
        word += "".join(name for name in ALPHABET if np.array_equal(letter(name), cell))
    return word


def test_letters_are_different_and_all_are_learnt() -> None:
    for one, other in itertools.combinations(ALPHABET, 2):
        assert (letter(one) != letter(other)).sum() >= 4, (one, other)
    learnt = {name for word in WORDS if word not in HELD_OUT_WORDS for name in word}
    assert learnt >= {name for word in HELD_OUT_WORDS for name in word}


def test_signs_are_read_back_from_every_frame(clips: list[WorldClip]) -> None:
    signs = 0
    for clip in clips:
        sign = clip.meta["room"]["sign"]
        if sign is None:
            continue
        left, top, right, _ = sign["box"]
        assert (left + 2) % PITCH == 0 and right - left == PITCH * len(sign["word"]) + 3
        for frame in clip.video.frames.numpy():
            board = frame[top + 2 : top + 2 + LETTER_HEIGHT, left + 2 : right - 1]
            assert read(board.mean(axis=-1) < 128, len(sign["word"])) == sign["word"]
        signs += 1
    assert signs > 10


def test_words_on_blocks_are_read_back_while_they_stand(clips: list[WorldClip]) -> None:
    blocks = 0
    for clip in clips:
        if clip.meta["story"] != "block":
            continue
        block = clip.meta["objects"][1]
        width = PITCH * len(block["word"]) - 1
        x, y, angle, _ = block["states"][0]
        assert angle == pytest.approx(0, abs=0.01)
        left, top = round(x - width / 2), round(y - LETTER_HEIGHT / 2)
        assert left % PITCH == 0
        before = int(sounding(clip)[0]["time"] * FPS)
        for frame in clip.video.frames.numpy()[: before + 1]:
            field = frame[top : top + LETTER_HEIGHT, left : left + width].astype(float)
            to_ink, to_paint = (
                np.linalg.norm(field - colour, axis=-1) for colour in (ink(block["colour"]), PAINT[block["colour"]])
            )
            assert read(to_ink < to_paint, len(block["word"])) == block["word"]
        blocks += 1
    assert blocks > 5


def test_hidden_objects_cannot_be_seen_and_others_can(clips: list[WorldClip]) -> None:
    screens = 0
    for clip in clips:
        hidden = [event for event in clip.events if event["kind"] == "hidden"]
        for thing in clip.meta["objects"]:
            for event in hidden:
                if event["who"] == [f"{thing['colour']} {thing['shape']}"]:
                    inside = [k for k in range(33) if event["time"] <= k / FPS <= event["until"]]
                    assert all(thing["states"][k][3] == 0 for k in inside)
            seen = np.array([state[3] for state in thing["states"]])
            told = np.zeros(33, dtype=bool)
            for event in hidden:
                if event["who"] == [f"{thing['colour']} {thing['shape']}"]:
                    told |= (np.arange(33) / FPS >= event["time"]) & (np.arange(33) / FPS <= event["until"])
            assert (seen[~told] > 0).mean() > 0.9 and (seen[told] == 0).all()
        behind = [event for event in hidden if event["by"] == "screen"]
        if clip.meta["story"] != "hide":
            assert not behind
            continue
        [event] = behind
        frames = clip.video.frames.numpy()
        room, screen = empty_room(Scene("", (), walls=(False, False), screen=tuple(clip.meta["room"]["screen"])))
        assert screen is not None
        room = room.copy()
        room[screen[0], screen[1]] = screen[2]
        for k in range(33):
            difference = np.abs(frames[k, :FLOOR_TOP] - room[:FLOOR_TOP]).max()
            if clip.meta["objects"][0]["states"][k][3] == 0:
                assert difference < 12  # shares are rounded to 0.001: a twelfth of a pixel may show
            elif clip.meta["objects"][0]["states"][k][3] > 0.2:
                assert difference > 40
        after = [state[3] for k, state in enumerate(clip.meta["objects"][0]["states"]) if k / FPS > event["until"]]
        assert max(after) > 0.95
        screens += 1
    assert screens >= 2


def test_objects_are_counted_in_the_picture(clips: list[WorldClip]) -> None:
    """Connected components in front of the wall, in frames in which all objects are in sight and none touch."""
    counts = []
    for clip in clips:
        room = clip.meta["room"]
        if room["ramp"] or room["shelf"] or room["screen"] or room["sign"]:
            continue
        walls = ("left" in room["walls"], "right" in room["walls"])
        empty = empty_room(Scene("", (), walls=walls))[0]
        states = np.array([thing["states"] for thing in clip.meta["objects"]])
        radii = [thing["size"] * (0.6 if thing["shape"] != "ball" else 0.5) for thing in clip.meta["objects"]]
        for k in range(33):
            apart = all(
                np.hypot(*(states[i, k, :2] - states[j, k, :2])) > radii[i] + radii[j] + 2
                for i, j in itertools.combinations(range(len(radii)), 2)
            )
            if apart and (states[:, k, 3] == 1).all():
                shown = np.abs(clip.video.frames[k].numpy() - empty).max(axis=-1)[: FLOOR_TOP - 1] > 12
                assert ndimage.label(shown, np.ones((3, 3)))[1] == len(radii), (clip.meta["index"], k)
                counts.append(len(radii))
    assert min(counts.count(count) for count in (1, 2, 3)) > 4


def test_the_picture_shows_objects_at_their_places(clips: list[WorldClip]) -> None:
    checked = 0
    for clip in clips:
        if clip.meta["story"] != "drop":
            continue
        [thing] = clip.meta["objects"]
        empty = empty_room(Scene("", ()))[0]
        for k, (x, y, _, share) in enumerate(thing["states"]):
            if not 14 < y < FLOOR_TOP - 14 or share < 1 or thing["shape"] == "star":
                continue  # in front of the wall alone, where neither floor nor shadow disturbs
            rows, columns = np.nonzero(np.abs(clip.video.frames[k].numpy() - empty).max(axis=-1)[:FLOOR_TOP] > 8)
            assert (np.mean(columns) + 0.5, np.mean(rows) + 0.5) == pytest.approx((x, y), abs=0.7)
            checked += 1
    assert checked > 30


def test_a_landing_is_seen_when_it_is_heard(clips: list[WorldClip]) -> None:
    """Sync from the media alone: the lowest pixels of the object's colour against the first loud sample."""
    checked = 0
    for clip in clips:
        thing = clip.meta["objects"][0]
        if clip.meta["story"] not in ("drop", "sign") or thing["colour"] in ("white", "black"):
            continue
        likeness = np.linalg.norm(clip.video.frames.numpy().astype(float) - PAINT[thing["colour"]], axis=-1)
        lowest = [int(np.nonzero(frame.any(axis=1))[0].max(initial=0)) for frame in likeness < 80]
        onset = int(torch.nonzero(clip.audio.waveform.abs().amax(dim=0) > 0.02)[0]) / RATE * FPS
        landing = range(int(onset), min(int(onset) + 2, 33))
        assert max(lowest[k] for k in landing) >= max(lowest[: landing.stop]) - 1
        assert max(lowest[k] for k in landing) >= FLOOR_TOP  # in front of the floor, but for a dark rim
        assert lowest[max(int(onset) - 2, 0)] < max(lowest[k] for k in landing)
        checked += 1
    assert checked > 10
