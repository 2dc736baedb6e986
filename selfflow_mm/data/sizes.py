"""What training needs to know of a data set beside its latents: how large its clips are, how many, what they say.

Both of raw media and of latents, so that a path in ``data.sources`` may be either.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..errors import UserError
from .latents import LatentDataset, read_about
from .latents_copy import described_at, latents_at
from .retrying import Unreachable
from .shards import ShardDataset

#: Samples that are looked at; those of a data set are cut alike.
_LOOK = 64


def sizes_of(data: ShardDataset, leave_out: Collection[int] = ()) -> dict[str, Any]:
    """``frames, height, width, fps`` of pictures and ``samples`` of sound, as far as there are any.

    The first sample with a modality speaks for all. One that cannot be decoded is passed over, and so are those of
    ``leave_out``.
    """
    found: dict[str, Any] = {}
    missing = set(data.info["modalities"])
    for i in range(min(len(data), _LOOK)):
        if not missing:
            break
        if i in leave_out:
            continue
        try:
            sample = data[i]
        except Unreachable:
            raise
        except UserError:
            continue
        if "video" in missing and sample.video is not None:
            frames, height, width, _ = sample.video.frames.shape
            found |= {"frames": frames, "height": height, "width": width, "fps": sample.video.fps}
            missing -= {"video", "image"}
        if "image" in missing and sample.image is not None:
            found |= {"height": sample.image.pixels.shape[0], "width": sample.image.pixels.shape[1]}
            missing -= {"image"}
        if "audio" in missing and sample.audio is not None:
            found["samples"] = sample.audio.waveform.shape[1]
            missing -= {"audio"}
    return found


def sizes_at(path: str | Path) -> dict[str, Any]:
    """:func:`sizes_of` the data set at ``path``, raw or latents.

    Raises:
        UserError: there is none, or latents of an earlier release, which do not tell.
    """
    latents = described_at(path)
    if latents is None:
        return sizes_of(ShardDataset(path))
    about = read_about(latents)
    if "sizes" not in about:
        raise UserError(
            f"{path}/latents.json does not say how large the clips are; encode them anew with `selfflow-mm encode`"
        )
    return about["sizes"]


def samples_at(path: str | Path) -> int:
    """How many samples the data set at ``path`` has, raw or latents."""
    latents = described_at(path)
    return int(read_about(latents)["samples"]) if latents else len(ShardDataset(path))


def captions_at(path: str | Path, first: int) -> list[str]:
    """Every wording of the first so many samples of the data set at ``path``, raw or latents."""
    if latents := latents_at(path):
        return [caption for wordings in LatentDataset(latents).captions[:first] for caption in wordings]
    data = ShardDataset(path)
    return [caption for i in range(min(len(data), first)) for caption in data.captions(i)]
