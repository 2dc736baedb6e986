"""Writing the world to disk: clips as MP4 and JSON in the shards that training reads."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from selfflow_mm.data.clip_writing import EncodedClip, write_clips
from selfflow_mm.data.writing import encode_mp4

from .clip import make_clip
from .constants import FPS, FRAMES, HEIGHT, RATE, WIDTH, WORLD_VERSION
from .holdout import Split, check_split

_INFO: dict[str, Any] = {
    "modalities": ["video", "audio"],
    "video": {"frames": FRAMES, "height": HEIGHT, "width": WIDTH, "fps": FPS},
    "audio": {"rate": RATE, "channels": 2},
}


def encode_clip(index: int, seed: int, split: Split) -> EncodedClip:
    """One clip as a shard sample: its key, its files by ending, and its JSON."""
    clip = make_clip(seed, index, split)
    files = {"mp4": encode_mp4(clip.video, clip.audio, crf=12, fast=True)}
    meta = {
        "captions": [caption.text for caption in clip.captions],
        "caption_kinds": [caption.kind for caption in clip.captions],
        "events": list(clip.events),
        **clip.meta,
    }
    return f"{index:06d}", files, meta


def write_world(
    folder: str | Path,
    clips: int,
    seed: int,
    *,
    split: Split = "train",
    workers: int = 1,
    start: int = 0,
    progress: bool = True,
) -> None:
    """Make clips ``start`` to ``start + clips - 1`` of the world ``seed`` into a new data set folder, see
    :func:`~selfflow_mm.data.clip_writing.write_clips`.

    Raises:
        UserError: the folder exists and is not empty, a number is out of range, or another split.
    """
    check_split(split)
    made_by = f"selfflow-mm make-world --clips {clips} --seed {seed} --split {split}"
    made_by += f" --start {start}" if start else ""
    info = {**_INFO, "created_by": made_by, "world": WORLD_VERSION, "seed": seed, "start": start, "split": split}
    make = partial(encode_clip, seed=seed, split=split)
    write_clips(folder, make, clips, seed=seed, start=start, workers=workers, info=info, progress=progress)
