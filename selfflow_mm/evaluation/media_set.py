"""The media that a comparison runs on: samples of shards, or plain files, of one kind."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from selfflow_tokenizers.media import Audio, Media

from ..config_yaml import parse_yaml
from ..data.prepare_sources import MEDIA_ENDINGS, list_items
from ..data.reading import AUDIO_ENDINGS, IMAGE_ENDINGS, read_media
from ..data.shards import ShardDataset
from ..data.stores import is_url
from ..errors import UserError


@dataclass(frozen=True)
class Named:
    """A medium with the name of its sample or file, and its caption (or the name again)."""

    key: str
    caption: str
    medium: Media


class MediaSet:
    """Pictures or sounds of shards, files and folders, decoded when asked for.

    Args:
        sources: folders, globs or tars of shards (``selfflow-mm prepare`` makes them), media files, folders of them.
        kind: ``picture`` takes a sample's video, else its image; ``sound`` its sound. Samples without are left out.
        split: ``all``, or ``run:FOLDER``: the samples that the tokenizer's training run in FOLDER held out.
        most: at most so many samples, evenly spread; 0 takes all.

    Raises:
        UserError: no such source, nothing of that kind in it.
    """

    def __init__(self, sources: Sequence[str], kind: str, split: str = "all", most: int = 0) -> None:
        self.kind = kind
        self.left_out: list[str] = []
        self._shards: list[ShardDataset] = []
        self._places: list[tuple[ShardDataset, int] | tuple[Path, str]] = []
        for source in sources:
            self._places += self._list(source)
        if split != "all":
            self._places = self._held_out(split)
        if most and most < len(self._places):
            self._places = [self._places[i * len(self._places) // most] for i in range(most)]

    def __len__(self) -> int:
        """Samples and files listed; those without the medium count until they are read."""
        return len(self._places)

    def __iter__(self) -> Iterator[Named | None]:
        """Each in turn; None for one that lacks the medium (its name goes to ``left_out``)."""
        self.left_out = []
        for place in self._places:
            found = self._read(place)
            if found is None:
                self.left_out.append(self._name(place))
            yield found

    def first(self, count: int) -> list[Named]:
        """The first few that have the medium.

        Raises:
            UserError: there is none at all.
        """
        found: list[Named] = []
        for item in self:
            if item is not None:
                found.append(item)
            if len(found) == count:
                break
        if not found:
            what = "video or image" if self.kind == "picture" else "sound"
            raise UserError(f"none of the {len(self)} samples has a {what}, which the tokenizers named take")
        return found

    def _list(self, source: str) -> list[tuple[ShardDataset, int] | tuple[Path, str]]:
        path = Path(source)
        if path.is_file() and path.suffix.lower().lstrip(".") in MEDIA_ENDINGS:
            return [(path, path.stem)]
        if is_url(source) or _is_shards(path, source):
            data = ShardDataset(source)
            self._shards.append(data)
            return [(data, i) for i in range(len(data))]
        if not path.is_dir():
            raise UserError(f"there is no '{source}'; give shards, media files or folders of media")
        items = [i for i in list_items(path) if i.problem is None]
        if not items:
            raise UserError(f"'{source}' holds no videos, images or sounds")
        return [(i.path, i.captions[0] if i.captions else i.name) for i in items if isinstance(i.path, Path)]

    def _held_out(self, split: str) -> list[tuple[ShardDataset, int] | tuple[Path, str]]:
        word, _, run = split.partition(":")
        if word != "run" or not run:
            raise UserError(
                f"--split is 'all' or 'run:FOLDER' with the folder of a tokenizer's training, got '{split}'"
            )
        if len(self._shards) != 1 or len(self._places) != len(self._shards[0]):
            raise UserError("--split run: needs exactly the shards that the run was trained on, as the only --data")
        data, (most, held_out) = self._shards[0], _settings(Path(run))
        places = tqdm(spread(len(data), most), desc="finding what the run held out", unit="sample")
        usable = [place for place in places if self._has(data, place)]
        if len(usable) < 2:
            raise UserError(f"'{data.source}' is not what {run} was trained on: it has {len(usable)} {self.kind}s")
        return [(data, usable[i]) for i in held_out_places(len(usable), held_out)]

    def _has(self, data: ShardDataset, place: int) -> bool:
        """Whether a sample has the medium; a file of its own tells without being decoded, a video's sound does not."""
        known = IMAGE_ENDINGS if self.kind == "picture" else AUDIO_ENDINGS
        endings = {ending.rpartition(".")[2] for ending in data.members(place).places}
        return bool(endings & known) or self._read((data, place)) is not None

    def _read(self, place: tuple[ShardDataset, int] | tuple[Path, str]) -> Named | None:
        if isinstance(place[0], ShardDataset):
            sample = place[0][place[1]]
            key, caption = sample.key, sample.captions[0] if sample.captions else sample.key
            video, image, audio = sample.video, sample.image, sample.audio
        else:
            clip = read_media(place[0])
            key, caption = place[0].name, str(place[1])
            video, image, audio = clip.video, clip.image, clip.audio
        medium = audio if self.kind == "sound" else (video if video is not None else image)
        if medium is None:
            return None
        if isinstance(medium, Audio) and not bool(torch.isfinite(medium.waveform).all()):
            raise UserError(f"the sound of '{key}' has NaN or infinite samples; repair or leave it out")
        return Named(key, caption, medium)

    def _name(self, place: tuple[ShardDataset, int] | tuple[Path, str]) -> str:
        return place[0].key(place[1]) if isinstance(place[0], ShardDataset) else place[0].name


def spread(samples: int, most: int) -> list[int]:
    """The samples of a data set that a tokenizer's training decodes: at most ``most``, evenly spread."""
    count = min(most, samples)
    return [i * samples // count for i in range(count)]


def held_out_places(count: int, held_out: int) -> list[int]:
    """Which of ``count`` usable samples a tokenizer's training only evaluates on, in order."""
    held_out = max(1, min(held_out, count // 4))
    return [i * count // held_out + count // (2 * held_out) for i in range(held_out)]


def _settings(run: Path) -> tuple[int, int]:
    """``data.max_clips`` and ``data.held_out`` of a run folder."""
    file = run / "config.yaml"
    if not file.is_file():
        raise UserError(f"{run} is no folder of a training run: it has no config.yaml")
    data = (parse_yaml(file.read_text(encoding="utf-8"), str(file)) or {}).get("data", {})
    try:
        return int(data["max_clips"]), int(data["held_out"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{file} is not that of a tokenizer's training: it lacks data.max_clips and held_out") from None


def _is_shards(path: Path, source: str) -> bool:
    if path.is_dir():
        return (path / "dataset.json").is_file() or any(path.glob("*.tar"))
    return source.endswith(".tar") and bool(glob.glob(source))
