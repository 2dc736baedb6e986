"""The pictures of robot episodes as a data set of stills or clips, which tokenizers and transformers train on.

The pictures are those that samples for a policy have (:mod:`selfflow_robotics.resizing`), and each carries the
episode's instruction as its caption. The bytes depend on the source and the options, not on the number of processes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfflow_mm.data.parallel import Crash, ordered_map
from selfflow_mm.data.shardwriter import ShardWriter
from selfflow_mm.data.writing import encode_mp4, encode_png
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Image, Video

from .episode import Pictures
from .files import BadEpisode
from .parts import quarantine_lines
from .resizing import Fit, resize
from .robot_episode import RobotEpisode
from .sources import RobotFiles
from .stream import Quarantined
from .targets import QUARANTINE

__all__ = ["ClipOptions", "Clips", "write_clips"]

_BLOCK = 32  # pictures of the stored size in memory at once


@dataclass(frozen=True)
class ClipOptions:
    """What is cut out of each episode: ``stills`` or ``frames``.

    Attributes:
        size: (height, width) of the pictures.
        fit: how they are brought to it, see :func:`selfflow_robotics.resizing.resize`.
        stills: so many pictures of each episode as PNG files, drawn without repeats; all where it has fewer.
        frames: of a clip, an MP4 file at the control rate.
        stride: steps between the starts of clips; 0 is ``frames``, so that none overlap.
        camera: which pictures; the episode's first camera unless given.
        seed: of the draw. It depends on the seed and the episode's id alone.
        crf: H.264 quality of clips, 0 (best) to 51.
    """

    size: tuple[int, int]
    fit: Fit = "pad"
    stills: int = 0
    frames: int = 0
    stride: int = 0
    camera: str | None = None
    seed: int = 0
    crf: int = 18

    def __post_init__(self) -> None:
        if (self.stills > 0) == (self.frames > 0) or min(self.stills, self.frames) < 0:
            raise UserError(
                f"say how many stills of each episode, or how many frames of a clip, at least 1; got {self.stills} "
                f"stills and {self.frames} frames"
            )
        if self.stride < 0 or (self.stride and not self.frames):
            raise UserError(f"a stride is at least 1 step and goes with frames, got {self.stride}")
        if min(self.size) < 1:
            raise UserError(f"pictures have at least 1 x 1 pixels, not {self.size[0]} x {self.size[1]}")
        if self.frames and (self.size[0] % 2 or self.size[1] % 2):
            raise UserError(f"H.264 clips need an even height and width, not {self.size[0]} x {self.size[1]}")
        if not 0 <= self.crf <= 51:
            raise UserError(f"crf (H.264 quality) goes from 0 to 51, got {self.crf}")
        if self.seed < 0:
            raise UserError(f"the seed is at least 0, got {self.seed}")

    def cuts(self, episode: RobotEpisode) -> list[range]:
        """The steps of each still or clip of an episode."""
        if self.frames:
            starts = range(0, len(episode) - self.frames + 1, self.stride or self.frames)
            return [range(start, start + self.frames) for start in starts]
        key = hashlib.blake2b(f"{self.seed}/{episode.id}".encode(), digest_size=16).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
        return [range(step, step + 1) for step in sorted(generator.permutation(len(episode))[: self.stills].tolist())]


@dataclass(frozen=True)
class Clips:
    """What was written.

    Attributes:
        folder: of the data set.
        episodes: that gave samples.
        samples: stills or clips.
        short: episodes that have fewer steps than a clip has frames, and gave none.
        quarantine: episodes that could not be read, which gave none either.
    """

    folder: Path
    episodes: int
    samples: int
    short: int
    quarantine: tuple[Quarantined, ...]


@dataclass(frozen=True)
class _Sample:
    key: str
    files: dict[str, bytes]
    meta: dict[str, Any]


def write_clips(
    source: RobotFiles,
    target: Path,
    options: ClipOptions,
    *,
    episodes: int | None = None,
    workers: int = 0,
    samples_per_shard: int = 500,
    progress: bool = True,
) -> Clips:
    """Write stills or clips of ``source`` as a data set of :mod:`selfflow_mm.data.shards`.

    Damaged episodes are left out, told in the result, and listed in ``quarantine.jsonl`` of the folder.

    Args:
        source: an opened data set with its layout.
        target: a folder that does not exist or is empty; it appears when it is complete.
        options: what to cut.
        episodes: only the first so many of the split.
        workers: processes; 0 is this one.
        samples_per_shard: at most so many in a tar.

    Raises:
        UserError: a target that is not empty, an episode without the camera, or not one sample.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"'{target}' exists and is not an empty folder; give another name or remove it")
    if workers < 0 or (episodes is not None and episodes < 1):
        raise UserError(f"workers are at least 0 and episodes at least 1, got {workers} and {episodes}")
    chosen = range(len(source) if episodes is None else min(episodes, len(source)))
    draft = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)  # of a run that was stopped
    try:
        with ShardWriter(draft, samples_per_shard=samples_per_shard, info=_about(source, options)) as writer:
            done = _write(source, writer, options, chosen, workers, progress)
            if not done.samples:
                raise UserError(_nothing(source, done, options))
            if done.quarantine:
                (draft / QUARANTINE).write_text(quarantine_lines(done.quarantine), encoding="utf-8")
        os.replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return replace(done, folder=target)


def _write(
    source: RobotFiles, writer: ShardWriter, options: ClipOptions, chosen: range, workers: int, progress: bool
) -> Clips:
    from tqdm import tqdm

    episodes = samples = short = 0
    quarantine: list[Quarantined] = []
    results = ordered_map(partial(_samples, source, options), chosen, min(workers, len(chosen)), preload=[__name__])
    with tqdm(total=len(chosen), unit="episode", disable=not progress) as bar:
        for result in results:
            if isinstance(result, Crash):
                raise UserError("a process that cut clips died, perhaps for lack of memory; try fewer --workers")
            if isinstance(result, Quarantined):
                quarantine.append(result)
            elif not result:
                short += 1
            else:
                for sample in result:
                    writer.add(sample.key, sample.files, sample.meta)
                episodes, samples = episodes + 1, samples + len(result)
            bar.update()
            bar.set_postfix(samples=samples, unreadable=len(quarantine), refresh=False)
    return Clips(writer.folder, episodes, samples, short, tuple(quarantine))


def _samples(source: RobotFiles, options: ClipOptions, number: int) -> list[_Sample] | Quarantined:
    """What episode ``number`` gives: nothing if it is too short."""
    shard, index = source.locate(number)
    try:
        episode = source.read(shard, index)
    except BadEpisode as error:
        return Quarantined(error.shard, error.index, error.reason)
    camera = _camera(episode, options.camera)
    cuts = options.cuts(episode)
    try:
        frames = _frames(camera, sorted({step for cut in cuts for step in cut}), options)
    except UserError as error:
        return Quarantined(source.files.shards[shard].name, index, str(error))
    samples = []
    for cut in cuts:
        pixels = torch.from_numpy(np.stack([frames[step] for step in cut]))
        if options.frames:
            files = {"mp4": encode_mp4(Video(pixels, episode.control_rate), crf=options.crf, fast=True)}
        else:
            files = {"png": encode_png(Image(pixels[0]))}
        captions = [episode.instruction] if episode.instruction else []
        meta = {"captions": captions, "episode": episode.id, "step": cut.start}
        samples.append(_Sample(f"{number:06d}-{cut.start:05d}", files, meta))
    return samples


def _camera(episode: RobotEpisode, name: str | None) -> Pictures:
    """A wrong name is a wrong setting and no damage: it stops everything."""
    if not episode.images:
        raise UserError(f"episode {episode.id} has no pictures")
    if name is not None and name not in episode.images:
        raise UserError(f"episode {episode.id} has no camera '{name}'; it has {', '.join(episode.images)}")
    return episode.images[next(iter(episode.images)) if name is None else name]


def _frames(camera: Pictures, steps: Sequence[int], options: ClipOptions) -> dict[int, np.ndarray]:
    """Step -> picture ``(H, W, 3)`` of the wanted size."""
    frames: dict[int, np.ndarray] = {}
    for start in range(0, len(steps), _BLOCK):
        block = steps[start : start + _BLOCK]
        frames.update(zip(block, resize(camera.read(block), options.size, options.fit), strict=True))
    return frames


def _about(source: RobotFiles, options: ClipOptions) -> dict[str, Any]:
    """What ``dataset.json`` says."""
    height, width = options.size
    video = {"frames": options.frames, "height": height, "width": width, "fps": source.control_rate}
    return {
        "modalities": ["video" if options.frames else "image"],
        "video": video if options.frames else None,
        "image": None if options.frames else {"height": height, "width": width},
        "created_by": f"selfflow-mm {version('selfflow-mm')} robot-data clips",
        "cut_from": {"name": source.files.name, "split": source.files.split, **asdict(options)},
    }


def _nothing(source: RobotFiles, done: Clips, options: ClipOptions) -> str:
    if done.short:
        return f"no readable episode of {source.files.folder} is as long as a clip of {options.frames} frames"
    reason = done.quarantine[0].reason if done.quarantine else "there is none"
    return f"not one episode of {source.files.folder} can be read: {reason}"
