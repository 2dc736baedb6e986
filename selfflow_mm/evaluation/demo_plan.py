"""What the demo asks a model for: sections of wishes, and the real clips that some of them start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selfflow_tokenizers.media import Image

from ..conditions import Conditions
from ..data.world import WorldClip, constants, make_clip
from ..data.world.prompts import example_prompts
from ..data.writing import encode_mp4, write_image
from ..errors import UserError
from ..generation.pipeline import Geometry, Pipeline

#: Real clips that are given in part, for sound and for a film.
_GIVEN = 2


@dataclass(frozen=True)
class Wish:
    """One result to make.

    Attributes:
        prompt: the text.
        task: by its usual name.
        label: what sets it apart from its neighbours.
        given: the file that the task is given, in the demo's folder; it is shown beside the result.
        given_label: what is said above it.
    """

    prompt: str
    task: str
    label: str = ""
    given: Path | None = None
    given_label: str = ""


@dataclass(frozen=True)
class Section:
    """Wishes under one heading."""

    title: str
    text: str
    wishes: tuple[Wish, ...]


def plan_demo(out: Path, pipeline: Pipeline, clips: int, seed: int) -> list[Section]:
    """What this model can make, with ``clips`` videos with sound; files that are given are written into ``out``.

    Raises:
        UserError: it makes neither video nor sound nor images.
    """
    films = tuple(Wish(prompt, "t2va") for prompt in example_prompts(clips, seed))
    sign = example_prompts(2, seed + 2)[1]
    sections = [
        Section("Video with sound", "Picture and sound come out of one transformer, together.", films),
        Section(
            "One prompt, four seeds",
            "The prompt says who falls and what is written. All else is up to the noise.",
            tuple(Wish(sign, "t2va") for _ in range(4)),
        ),
        *(_given_sections(out, seed) if _knows_the_world(pipeline) else ()),
        Section("Sound alone", "", tuple(Wish(prompt, "t2a") for prompt in example_prompts(4, seed + 3, ("audio",)))),
        Section("Silent video", "", tuple(Wish(prompt, "t2v") for prompt in example_prompts(4, seed + 4, ("visual",)))),
        Section("Images", "", tuple(Wish(prompt, "t2i") for prompt in example_prompts(4, seed + 5, ("visual",)))),
    ]
    possible = [section for section in sections if can(pipeline, section.wishes[0].task)]
    if not possible:
        made = ", ".join(pipeline.model.config.modalities)
        raise UserError(f"a demo shows video, sound or images, and this model makes {made}")
    return possible


def can(pipeline: Pipeline, task: str) -> bool:
    """Whether a model has all that a task speaks of."""
    return set(Conditions.named(task).modalities) <= set(pipeline.model.config.modalities)


def _knows_the_world(pipeline: Pipeline) -> bool:
    """Whether a clip of the world is of the size that the model makes, so that it can be given."""
    size = Geometry(constants.FRAMES, constants.HEIGHT, constants.WIDTH, constants.FPS, constants.SAMPLES)
    return pipeline.geometry == size and can(pipeline, "t2va")


def _given_sections(out: Path, seed: int) -> list[Section]:
    sounds, films = [], []
    for number, clip in enumerate(_real_clips(seed, 2 * _GIVEN)):
        said = {caption.kind: caption.text for caption in clip.captions}
        if number < _GIVEN:
            given = out / f"real-{number}.mp4"
            given.write_bytes(encode_mp4(clip.video, clip.audio, crf=12, fast=True))
            sounds.append(Wish(said["visual"], "v2a", "sound made for this picture", given, "real picture, true sound"))
        else:
            given = out / f"frame-{number - _GIVEN}.png"
            write_image(given, Image(clip.video.frames[0]))
            films.append(Wish(said["full"], "i2va", "film made from it", given, "real first frame"))
    return [
        Section(
            "Sound for a given picture",
            "On the left a clip as it is, on the right its picture with a sound made anew. The prompt names no "
            "material: that is to be seen.",
            tuple(sounds),
        ),
        Section(
            "A film from a first frame",
            "The first frame is given, the rest and the sound are made.",
            tuple(films),
        ),
    ]


def _real_clips(seed: int, n: int) -> list[WorldClip]:
    """Test clips that begin with everything in sight and then sound more than once, worded as training is."""
    found: list[WorldClip] = []
    index = 0
    while len(found) < n:
        clip = make_clip(seed, index, "test")
        index += 1
        in_sight = all(thing["states"][0][3] > 0.9 for thing in clip.meta["objects"])
        blows = sum(event["kind"] == "contact" for event in clip.events)
        if clip.meta["novelty"] != "form" and in_sight and blows > 1:
            found.append(clip)
    return found
