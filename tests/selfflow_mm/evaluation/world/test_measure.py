"""The measures on true clips against their exact events, and on clips that are spoilt in one known way."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from selfflow_mm.data.world.clip import WorldClip, make_clip
from selfflow_mm.data.world.scene import Thing
from selfflow_mm.data.world.surfaces import PAINT
from selfflow_mm.evaluation.world.labels import inside
from selfflow_mm.evaluation.world.measure import Row, measure_clip
from selfflow_mm.evaluation.world.reader import Reader
from selfflow_mm.evaluation.world.run import shuffled
from selfflow_mm.evaluation.world.validation import validate
from selfflow_tokenizers.media import Audio, Video


def measure(reader: Reader, clip: WorldClip, video: Video | None = None, audio: Audio | None = None) -> Row:
    return measure_clip(reader, clip.captions[0].text, video or clip.video, audio or clip.audio)


@pytest.fixture(scope="module")
def rows(world_reader: Reader, world_clips: list[WorldClip]) -> list[Row]:
    return [measure(world_reader, clip) for clip in world_clips]


def test_true_clips_are_read_rightly(world_clips: list[WorldClip], rows: list[Row]) -> None:
    rates = validate(zip(world_clips, rows, strict=True))
    assert set(rates) >= {"contacts found", "contacts true", "onsets found", "onsets true", "words", "words true"}
    # A dozen clips have 7 words, 18 objects and 23 contacts: one miss of each is what they allow.
    assert all(rate.total >= 7 and rate.total - rate.found <= 1 for rate in rates.values()), rates
    assert sum(row["consistent"] for row in rows) >= len(rows) - 1


@pytest.mark.long
def test_two_hundred_true_clips_are_read_rightly(world_reader: Reader) -> None:
    clips = [make_clip(81_002, index, "test") for index in range(200)]
    rates = validate((clip, measure(world_reader, clip)) for clip in clips)
    assert rates["contacts found"].share >= 0.95 and rates["contacts true"].share >= 0.95
    assert rates["onsets found"].share >= 0.95 and rates["onsets true"].share >= 0.95
    assert min(rates[name].share for name in ("colours", "shapes", "counts", "words")) >= 0.95


def test_shuffled_sound_is_far_below(rows: list[Row]) -> None:
    def share(found: list[Row]) -> float:
        return sum(row["matched"] for row in found) / sum(len(row["contacts"]) for row in found)

    assert share(rows) >= 0.85 and share(shuffled(rows)) <= 0.5


@pytest.mark.parametrize("frames", [-2, 3])
def test_a_shifted_sound_is_off_by_the_shift(
    world_reader: Reader, world_clips: list[WorldClip], rows: list[Row], frames: int
) -> None:
    clip, before = next((c, r) for c, r in zip(world_clips, rows, strict=True) if len(r["contacts"]) >= 2)
    audio = Audio(torch.roll(clip.audio.waveform, frames * 1000, dims=1), clip.audio.rate)
    after = measure(world_reader, clip, audio=audio)
    assert after["offset"] - before["offset"] == pytest.approx(frames, abs=0.2)
    assert after["matched"] < before["matched"]


def _drop(world_clips: list[WorldClip]) -> WorldClip:
    return next(
        clip
        for clip in world_clips
        if clip.meta["story"] in ("drop", "throw", "sign") and clip.meta["objects"][0]["states"][0][3] == 1
    )


def _mask(clip: WorldClip, frame: int) -> torch.Tensor:
    """The pixels of the first object, and one around them."""
    facts = clip.meta["objects"][0]
    thing = Thing(facts["shape"], facts["colour"], facts["material"], facts["size"] + 2.5)
    return torch.from_numpy(inside(thing, torch.tensor(facts["states"][frame][:3]).numpy()))


def test_another_colour_is_caught(world_reader: Reader, world_clips: list[WorldClip]) -> None:
    clip = _drop(world_clips)
    colour = clip.meta["objects"][0]["colour"]
    other = "blue" if colour != "blue" else "red"
    frames = clip.video.frames.clone()
    for t in range(len(frames)):
        mask = _mask(clip, t)
        frames[t][mask] = torch.tensor(PAINT[other], dtype=torch.uint8)
    row = measure(world_reader, clip, Video(frames, clip.video.fps))
    assert row["colour"] is False and row["objects"][0].startswith(other)
    half = clip.video.frames.clone()
    half[20:] = frames[20:]  # and in the middle of the clip it is a change
    assert measure(world_reader, clip, Video(half, clip.video.fps))["recoloured"] == 1


def test_a_deleted_object_has_vanished(world_reader: Reader, world_clips: list[WorldClip]) -> None:
    clip = _drop(world_clips)
    frames = clip.video.frames.clone()
    masks = torch.stack([_mask(clip, t) for t in range(len(frames))])
    room = frames.float()
    room[masks] = torch.nan  # what is left shows the room behind the object
    empty = room.nanmedian(dim=0).values.to(torch.uint8)
    for t in range(12, 17):
        frames[t][masks[t]] = empty[masks[t]]
    assert measure(world_reader, clip)["vanished"] == 0
    row = measure(world_reader, clip, Video(frames, clip.video.fps))
    assert row["vanished"] == 1 and row["consistent"] is False


def test_reversed_time_gains_energy(world_reader: Reader, world_clips: list[WorldClip], rows: list[Row]) -> None:
    chosen = [(c, r) for c, r in zip(world_clips, rows, strict=True) if r["rebounds"] and r["bounces lose energy"]]
    assert len(chosen) >= 4
    backwards = [measure(world_reader, c, replace(c.video, frames=c.video.frames.flip(0))) for c, _ in chosen[:4]]
    assert sum(row["bounces lose energy"] is False for row in backwards) >= 3
