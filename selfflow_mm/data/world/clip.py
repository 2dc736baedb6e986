"""A clip of the world: everything about it follows from (seed, index)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Video

from .constants import FPS, RATE, WORLD_VERSION
from .physics import Contact, Motion, simulate
from .picture import render_picture
from .prompts import captions
from .scene import Scene, draw_scene
from .sound import render_sound

#: Upward speed at the start (pixels per second) from which a clip is called a throw upwards.
_SEEN_TOSS = 25.0


@dataclass(frozen=True)
class WorldClip:
    """A video with sound and everything there is to know about it.

    Attributes:
        video: ``(33, 64, 64, 3)`` at 16 frames per second.
        audio: ``(2, 33000)`` at 16 kHz; sample 0 is at the instant of frame 0.
        captions: three sentences that are true of the clip; the first is always
            "a {colour} {shape} falls and bounces on {material}".
        events: contacts in order of time, each ``{"time", "kind", "place", "material", "impact", "who"}`` as in
            docs/world.md; ready for JSON.
        meta: ``{"world", "seed", "index", "material", "objects"}``, ready for JSON; ``objects`` lists ``{"shape",
            "colour", "size", "states"}`` with states ``[x, y, angle]`` for each frame (pixels, radians).
    """

    video: Video
    audio: Audio
    captions: tuple[str, ...]
    events: tuple[dict[str, Any], ...]
    meta: dict[str, Any]


def clip_generator(seed: int, index: int) -> np.random.Generator:
    """The random numbers of one clip: Philox keyed by (seed, index), both in [0, 2**64)."""
    if not (0 <= seed < 2**64 and 0 <= index < 2**64):
        raise UserError(f"a world's seed and a clip's index lie in 0 ... 2**64 - 1, got seed={seed}, index={index}")
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))


def make_clip(seed: int, index: int) -> WorldClip:
    """Clip number ``index`` of the world ``seed``; the same arguments always give the same clip."""
    rng = clip_generator(seed, index)
    scene = draw_scene(rng)
    motion = simulate(scene)
    first = scene.bodies[0]
    tossed = first.velocity[1] <= -_SEEN_TOSS
    texts = captions(rng, first.shape, first.colour, scene.material, tossed)
    return WorldClip(
        video=Video(torch.from_numpy(render_picture(scene, motion)), FPS),
        audio=Audio(torch.from_numpy(render_sound(scene, motion.contacts)), RATE),
        captions=texts,
        events=tuple(_event(contact, scene) for contact in motion.contacts),
        meta={
            "world": WORLD_VERSION,
            "seed": seed,
            "index": index,
            "material": scene.material,
            "objects": _objects(scene, motion),
        },
    )


def _event(contact: Contact, scene: Scene) -> dict[str, Any]:
    body = scene.bodies[contact.body]
    return {
        "time": round(contact.time, 6),
        "kind": "contact",
        "place": [round(value, 3) for value in contact.place],
        "material": scene.material,
        "impact": round(contact.impact, 4),
        "who": [f"{body.colour} {body.shape}", contact.other],
    }


def _objects(scene: Scene, motion: Motion) -> list[dict[str, Any]]:
    return [
        {
            "shape": body.shape,
            "colour": body.colour,
            "size": round(body.size, 3),
            "states": np.round(states, 3).tolist(),
        }
        for body, states in zip(scene.bodies, motion.states, strict=True)
    ]
