"""What training needs to know of a data set beside its latents: how large its clips are, how many, what they say.

Both of raw media and of latents, so that a path in ``data.sources`` may be either.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .latents import LatentDataset, read_about
from .latents_copy import described_at, latents_at
from .retrying import Unreachable
from .shards import ShardDataset

#: Samples that are looked at.
_LOOK = 64


def sizes_of(
    data: ShardDataset, leave_out: Collection[int] = (), look_at: Sequence[int] | None = None
) -> dict[str, Any]:
    """``frames, height, width, fps`` of pictures and ``samples`` of sound, as far as there are any.

    The first sample with a modality speaks for all. One that cannot be decoded is passed over, and so are those of
    ``leave_out``.

    Args:
        data: the data set.
        leave_out: samples that are not looked at.
        look_at: those that are, in this order; None for the first ones.

    Where ``prepare`` made several sizes, its dataset.json says which is the most common, and no sample is looked at.
    """
    found: dict[str, Any] = {}
    if "buckets" in data.info:
        for bucket in stated_buckets(data.info):
            found.update({name: value for name, value in bucket.sizes.items() if name not in found})
        return found
    missing = set(data.info["modalities"] if look_at is None else ("video", "image", "audio"))
    for i in range(min(len(data), _LOOK)) if look_at is None else look_at[:_LOOK]:
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


@dataclass(frozen=True)
class Bucket:
    """Samples of one kind and size, as dataset.json states them.

    Attributes:
        modalities: what they hold; a frame of a video may be taken for an image.
        samples: how many there are.
        sizes: as :func:`sizes_of` gives them.
    """

    modalities: frozenset[str]
    samples: int
    sizes: dict[str, Any]


def stated_buckets(info: Mapping[str, Any]) -> list[Bucket]:
    """The buckets of a dataset.json, the most common of each modality first; none where all samples are alike."""
    found = []
    for stated in info.get("buckets", ()):
        modalities = set(stated["kind"].split("+"))
        sizes = {n: stated[n] for n in ("frames", "height", "width") if n in stated}
        if "video" in modalities:
            modalities.add("image")
            sizes["fps"] = info["video"]["fps"]
        if "audio" in modalities:  # a film's sound is as long as its picture
            seconds = sizes["frames"] / sizes["fps"] if "frames" in sizes else stated["seconds"]
            sizes["samples"] = round(seconds * info["audio"]["rate"])
        found.append(Bucket(frozenset(modalities), stated["samples"], sizes))
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
