"""A clip of the world: everything about it follows from (seed, index, split)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Video

from .captions import Caption, make_captions
from .constants import FPS, RATE, WORLD_VERSION
from .events import list_events
from .holdout import NOVELTIES, Novelty, Split, check_split
from .physics import Motion
from .picture import render_picture
from .scene import Scene
from .sound import render_sound
from .stories import draw_clip, draw_story


@dataclass(frozen=True)
class WorldClip:
    """A video with sound and everything there is to know about it.

    Attributes:
        video: ``(33, 64, 64, 3)`` at 16 frames per second.
        audio: ``(2, 33000)`` at 16 kHz; sample 0 is at the instant of frame 0.
        captions: one of each kind, the full one first; all are true of the clip.
        events: contacts, rolls and hidden times in order, as in docs/world.md; ready for JSON.
        meta: the rest of the sample's JSON, as in docs/world.md.
    """

    video: Video
    audio: Audio
    captions: tuple[Caption, ...]
    events: tuple[dict[str, Any], ...]
    meta: dict[str, Any]


@dataclass(frozen=True)
class Tale:
    """A clip before it is seen and heard, which is most of the work: what happens in it, and what is said of it.

    Attributes:
        novelty: what of the held-out things it shows; None in the split "train".
        scene, motion: the objects and where they go.
        captions: as in :class:`WorldClip`.
    """

    novelty: Novelty | None
    scene: Scene
    motion: Motion
    captions: tuple[Caption, ...]


def tell_clip(seed: int, index: int, split: Split = "train") -> Tale:
    """What happens in a clip; arguments and errors as of :func:`make_clip`."""
    rng = _generator(seed, index, split)
    novelty = _draw_novelty(rng, split)
    scene, motion = draw_clip(rng, novelty)
    return Tale(novelty, scene, motion, make_captions(rng, scene, motion, held_out=novelty == "form"))


def story_of(seed: int, index: int, split: Split = "train") -> tuple[str, Novelty | None]:
    """The story and the novelty of a clip, for nearly nothing; arguments and errors as of :func:`make_clip`."""
    rng = _generator(seed, index, split)
    novelty = _draw_novelty(rng, split)
    return draw_story(rng, novelty)[0], novelty


def make_clip(seed: int, index: int, split: Split = "train") -> WorldClip:
    """Clip number ``index`` of the world ``seed``; the same arguments always give the same clip.

    Args:
        split: "train" never shows what is held out (``holdout``), each clip of "test" shows one kind of it.

    Raises:
        UserError: a number out of range, or another split.
    """
    tale = tell_clip(seed, index, split)
    scene, motion = tale.scene, tale.motion
    frames, seen = render_picture(scene, motion)
    return WorldClip(
        video=Video(torch.from_numpy(frames), FPS),
        audio=Audio(torch.from_numpy(render_sound(scene, motion)), RATE),
        captions=tale.captions,
        events=tuple(list_events(scene, motion)),
        meta={
            "world": WORLD_VERSION,
            "seed": seed,
            "index": index,
            "split": split,
            "novelty": tale.novelty,
            "story": scene.kind,
            "objects": _objects(scene, motion, seen),
            "room": _room(scene),
        },
    )


def _generator(seed: int, index: int, split: str) -> np.random.Generator:
    """The random numbers of one clip: Philox keyed by (seed, index), its counter starting elsewhere for each split."""
    check_split(split)
    if not (0 <= seed < 2**64 and 0 <= index < 2**64):
        raise UserError(f"a world's seed and a clip's index lie in 0 ... 2**64 - 1, got seed={seed}, index={index}")
    key = np.array([seed, index], dtype=np.uint64)
    counter = np.array([0, 0, 0, split == "test"], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _draw_novelty(rng: np.random.Generator, split: Split) -> Novelty | None:
    return NOVELTIES[int(rng.integers(len(NOVELTIES)))] if split == "test" else None


def _objects(scene: Scene, motion: Motion, seen: np.ndarray) -> list[dict[str, Any]]:
    return [
        {
            "shape": thing.shape,
            "colour": thing.colour,
            "material": thing.material,
            "size": round(thing.size, 3),
            "word": thing.word or None,
            "states": [[*state, share] for state, share in zip(path.round(3).tolist(), shares, strict=True)],
        }
        for thing, path, shares in zip(scene.things, motion.states, seen.round(3).tolist(), strict=True)
    ]


def _room(scene: Scene) -> dict[str, Any]:
    sides = [side for side, there in zip(("left", "right"), scene.walls, strict=True) if there]
    return {
        "walls": sides,
        "ramp": None if scene.ramp is None else [round(value, 3) for value in scene.ramp],
        "shelf": None if scene.shelf is None else [round(value, 3) for value in scene.shelf],
        "screen": None if scene.screen is None else list(scene.screen),
        "sign": None if scene.sign is None else {"word": scene.sign.word, "box": list(scene.sign.box)},
    }
