"""Where the clips come from that are measured: a model, a folder, the world itself, through tokenizers or not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from selfflow_mm.data.reading import read_media
from selfflow_mm.data.world.clip import make_clip
from selfflow_mm.data.world.grammar import parse
from selfflow_mm.data.writing import encode_mp4
from selfflow_mm.errors import UserError
from selfflow_mm.generation.pipeline import Pipeline
from selfflow_mm.models.joint import JointTransformer
from selfflow_tokenizers.media import Audio, Video

#: The world whose test split gives captions and real clips; never one to train on.
TEST_WORLD = 90_001
#: Clips generated at once.
_AT_ONCE = 8
CAPTIONS = "captions.json"


@dataclass(frozen=True)
class ClipFile:
    """A clip to measure: its name, its caption and its MP4, a file or bytes; what is new in a true one."""

    key: str
    caption: str
    media: Path | bytes
    novelty: str | None = None

    def read(self) -> tuple[Video, Audio]:
        """Picture and sound.

        Raises:
            UserError: the file has no picture or no sound.
        """
        clip = read_media(self.media)
        if clip.video is None or clip.audio is None:
            raise UserError(f"{self.key} has no {'picture' if clip.video is None else 'sound'}; clips need both")
        return clip.video, clip.audio


def real_clips(keys: Sequence[str], world: int = TEST_WORLD) -> Iterator[ClipFile]:
    """True clips of the test split as MP4, as a model's results are kept; a clip's key is its index."""
    for key in keys:
        clip = make_clip(world, int(key), "test")
        yield ClipFile(key, clip.captions[0].text, _mp4(clip.video, clip.audio), clip.meta["novelty"])


def coded_clips(keys: Sequence[str], tokenizers: Mapping[str, Any], world: int = TEST_WORLD) -> Iterator[ClipFile]:
    """The same after the tokenizers' round trip: no model that makes latents of theirs can do better."""
    for key in keys:
        clip = make_clip(world, int(key), "test")
        with torch.inference_mode():
            [video] = tokenizers["video"].decode(tokenizers["video"].encode([clip.video]))
            samples = clip.audio.waveform.shape[1]
            [audio] = tokenizers["audio"].decode(tokenizers["audio"].encode([clip.audio]), samples=samples)
        yield ClipFile(key, clip.captions[0].text, _mp4(video, audio), clip.meta["novelty"])


def generate(pipeline: Pipeline, folder: Path, n: int, seed: int, *, world: int = TEST_WORLD) -> None:
    """Make a clip for each of the first ``n`` captions of the test split into a folder, those that are not there yet.

    Eight are made at once; clip i has the noise ``i % 8`` of seed ``seed + i // 8``, whatever was there before. A file
    appears when it is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    captions = {f"{i:05d}.mp4": make_clip(world, i, "test").captions[0].text for i in range(n)}
    _place(folder / CAPTIONS, json.dumps(captions, indent=1).encode())
    names = list(captions)
    for start in tqdm(range(0, n, _AT_ONCE), desc=f"making {folder.name}", unit=f"{_AT_ONCE} clips"):
        group = names[start : start + _AT_ONCE]
        if all((folder / name).exists() for name in group):
            continue
        made = pipeline([captions[name] for name in group], "t2va", seed=seed + start // _AT_ONCE)
        for name, result in zip(group, made, strict=True):
            assert result.video is not None and result.audio is not None
            _place(folder / name, _mp4(result.video, result.audio))


def give_sound(pipeline: Pipeline, folder: Path, n: int, seed: int, *, world: int = TEST_WORLD) -> None:
    """Real clips of the test split whose sound a model made for their picture, into a folder as :func:`generate` does;
    clip i has the noise of seed ``seed + i``."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = [make_clip(world, i, "test") for i in range(n)]
    captions = {f"{i:05d}.mp4": clip.captions[0].text for i, clip in enumerate(clips)}
    _place(folder / CAPTIONS, json.dumps(captions, indent=1).encode())
    for i, (name, clip) in enumerate(tqdm(zip(captions, clips, strict=True), desc="sound for pictures", total=n)):
        if (folder / name).exists():
            continue
        [made] = pipeline([captions[name]], "v2a", seed=seed + i, given={"video": clip.video})
        assert made.audio is not None
        _place(folder / name, _mp4(clip.video, made.audio))


def untrained(pipeline: Pipeline, seed: int) -> Pipeline:
    """The same pipeline around a transformer of the same shape that has learned nothing."""
    torch.manual_seed(seed)
    model = JointTransformer(pipeline.model.config)
    parts = (pipeline.tokenizers, pipeline.geometry, pipeline.sampling, pipeline.text_level, pipeline.text_encoder)
    return Pipeline(model.to(pipeline.device), *parts)


def folder_clips(folder: Path, n: int = 0) -> list[ClipFile]:
    """The clips of a folder with ``captions.json``: {"file.mp4": "its caption", ...}; ``n`` at most, 0 for all.

    Raises:
        UserError: no captions, one that is none of the world's, or a file that they name is missing.
    """
    file = folder / CAPTIONS
    if not file.is_file():
        raise UserError(
            f'{folder} has no {CAPTIONS}; it says what each clip was to show: {{"0.mp4": "a red ball ..."}}'
        )
    try:
        captions = json.loads(file.read_text(encoding="utf-8"))
        named = [(str(name), text) for name, text in captions.items() if isinstance(text, str)]
    except (json.JSONDecodeError, AttributeError) as error:
        raise UserError(f"{file} is not an object of file names and captions: {error}") from None
    if not named:
        raise UserError(f"{file} names no clips")
    named = named[:n] if n else named
    for name, text in named:
        parse(text)
        if not (folder / name).is_file():
            raise UserError(f"{file} names {name}, which is not in {folder}")
    return [ClipFile(name, text, folder / name) for name, text in named]


def _place(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_bytes(content)
    beside.replace(path)


def _mp4(video: Video, audio: Audio) -> bytes:
    """As the world's own data sets are written."""
    return encode_mp4(video, audio, crf=12, fast=True)
