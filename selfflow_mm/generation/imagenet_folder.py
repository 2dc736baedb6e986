"""A folder of samples: made in parts by any number of processes, stopped and gone on with, merged into one file.

settings.json        what determines the images; a rerun must agree with it
parts/               000000-000063.npz, ...: finished blocks of images; gone after the merge
images/000000.png    where PNGs are asked for
contact.png          the first 64 images
run.json             settings, software, speed
samples_50000.npz    arr_0 uint8 (N, H, W, 3), arr_1 int64 (N,) class labels: the file that ADM's evaluator reads;
latents_50000.npz    or, without a decoder, arr_0 float32 (N, C, H, W)

Processes need no connection, only the folder: process r of w makes the blocks r, r + w, ..., and process 0 waits for
all parts and merges them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image as PillowImage

from selfflow_tokenizers.media import Image

from ..data.writing import write_image
from ..errors import UserError
from .imagenet import ImageNetSampling

FORMAT, VERSION = "selfflow-imagenet-samples", 1
SHEET = 64


@dataclass(frozen=True)
class SampleSettings:
    """Everything that determines the images.

    Attributes:
        checkpoint: SHA-256 of the weights' file.
        num_images: how many.
        classes: see :func:`imagenet.parse_classes`.
        seed: of all images.
        sampling: method, steps, guidance, precision.
        decoder: its name, see ``decoders.py``.
        png: whether every image is written as a PNG too.
    """

    checkpoint: str
    num_images: int
    classes: str
    seed: int
    sampling: ImageNetSampling
    decoder: str
    png: bool

    def __post_init__(self) -> None:
        if not 1 <= self.num_images <= 2**32:
            raise UserError(f"the number of images is at least 1, got {self.num_images}")
        if not 0 <= self.seed < 2**64:
            raise UserError(f"a seed is at least 0 and below 2^64, got {self.seed}")


class SampleFolder:
    """See the module's docstring.

    Args:
        path: the folder; made if missing.
        settings: of this run.
        block: images per part; that of the run's start counts, when it is gone on with.
        rank, world: this process among those that share the folder; process 0 makes it.

    Raises:
        UserError: the folder holds samples with other settings, or files that would be overwritten.
    """

    def __init__(self, path: Path | str, settings: SampleSettings, block: int, rank: int = 0, world: int = 1) -> None:
        self.path, self.settings, self.rank, self.world = Path(path), settings, rank, world
        kind = "latents" if settings.decoder == "latents" else "samples"
        self.result = self.path / f"{kind}_{settings.num_images}.npz"
        self.parts = self.path / "parts"
        about = self.path / "settings.json"
        if rank == 0 and not about.exists():
            taken = [p.name for p in (self.parts, self.path / "images", self.result) if p.exists()]
            if taken:
                raise UserError(
                    f"{self.path} holds {taken[0]} but no settings.json to say of what; give another folder"
                )
            try:
                self.parts.mkdir(parents=True)
            except OSError as error:
                raise UserError(f"{self.path} cannot be written: {error}") from error
            write_json(about, {"format": FORMAT, "version": VERSION, "block": block, "settings": _plain(settings)})
        record = _read_settings(about, wait=0.0 if rank == 0 else 600.0)
        differing = _differences(record["settings"], _plain(settings))
        if differing:
            raise UserError(
                f"{self.path} holds samples with other settings ({differing}); go on with those, or give another folder"
            )
        self.block: int = record["block"]

    @property
    def complete(self) -> bool:
        return self.result.exists()

    @property
    def blocks(self) -> list[range]:
        """The image numbers of each part."""
        n = self.settings.num_images
        return [range(i, min(i + self.block, n)) for i in range(0, n, self.block)]

    def part(self, block: range) -> Path:
        return self.parts / f"{block.start:06d}-{block.stop - 1:06d}.npz"

    def missing(self) -> list[range]:
        """This process's blocks that are not there yet."""
        return [b for b in self.blocks[self.rank :: self.world] if not self.part(b).exists()]

    def done(self) -> int:
        """Images in finished parts, of all processes."""
        finished = set(os.listdir(self.parts)) if self.parts.exists() else set()
        return sum(len(b) for b in self.blocks if self.part(b).name in finished)

    def write(self, block: range, images: np.ndarray, labels: np.ndarray) -> None:
        """Write one part, after its PNGs, so that a part that is there is whole."""
        if self.settings.png:
            folder = self.path / "images"
            folder.mkdir(exist_ok=True)
            for number, pixels in zip(block, images, strict=True):
                write_image(folder / f"{number:06d}.png", Image(torch.from_numpy(pixels)))
        _write_beside(self.part(block), lambda file: np.savez(file, arr_0=images, arr_1=labels))

    def wait(self, on_progress: Callable[[int], object] = lambda _: None, every: float = 1.0) -> None:
        """Wait for the parts of the other processes."""
        while (done := self.done()) < self.settings.num_images:
            on_progress(done)
            time.sleep(every)
        on_progress(done)

    def merge(self, about: Mapping[str, Any]) -> Path:
        """Make the contact sheet, run.json and the one file of all images, then take the parts away.

        Raises:
            UserError: a part is missing or broken.
        """
        first = next(self._arrays("arr_0"))
        if first.dtype == np.uint8:
            self._contact_sheet()
        record = {"format": FORMAT, "version": VERSION, "settings": _plain(self.settings), **about}
        write_json(self.path / "run.json", record)
        n = self.settings.num_images

        def pack(file: IO[bytes]) -> None:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                for name, like in (("arr_0", first), ("arr_1", np.zeros(1, np.int64))):
                    shape, dtype = (n, *like.shape[1:]), like.dtype
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                        np.lib.format.write_array_header_1_0(entry, header)
                        for part in self._arrays(name):
                            entry.write(part.astype(dtype).tobytes())

        _write_beside(self.result, pack)
        self.clean()
        return self.result

    def clean(self) -> None:
        """Take the parts away once the result is there."""
        if self.complete:
            shutil.rmtree(self.parts, ignore_errors=True)

    def _arrays(self, name: str) -> Iterator[np.ndarray]:
        """One array of every part in order, one at a time."""
        for block in self.blocks:
            path = self.part(block)
            try:
                with np.load(path) as file:
                    array = file[name]
            except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise UserError(f"{path} cannot be read ({error}); delete it and run the command again") from error
            if len(array) != len(block):
                raise UserError(f"{path} holds {len(array)} images instead of {len(block)}; delete it and run again")
            yield array

    def _contact_sheet(self) -> None:
        images: list[np.ndarray] = []
        for part in self._arrays("arr_0"):
            images += list(part[: SHEET - len(images)])
            if len(images) == SHEET:
                break
        columns = math.ceil(math.sqrt(len(images)))
        height, width = images[0].shape[:2]
        sheet = np.zeros((math.ceil(len(images) / columns) * height, columns * width, 3), np.uint8)
        for i, image in enumerate(images):
            y, x = i // columns * height, i % columns * width
            sheet[y : y + height, x : x + width] = image
        _write_beside(self.path / "contact.png", lambda file: PillowImage.fromarray(sheet).save(file, "PNG"))


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    _write_beside(path, lambda file: file.write((json.dumps(record, indent=1) + "\n").encode()))


def _plain(settings: SampleSettings) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(settings)))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    flat = [{**{k: v for k, v in s.items() if k != "sampling"}, **s.get("sampling", {})} for s in (before, now)]
    names = [k for k in flat[1] if flat[0].get(k) != flat[1][k]]
    return ", ".join(f"{k} {_short(flat[0].get(k))}, now {_short(flat[1][k])}" for k in names)


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def _read_settings(path: Path, wait: float) -> dict[str, Any]:
    end = time.monotonic() + wait
    while not path.exists():
        if time.monotonic() > end:
            raise UserError(f"process 0 has not made {path}; is the folder on a file system that all processes see?")
        time.sleep(0.2)
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is broken: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{path} does not describe samples: its format is not '{FORMAT}'")
    if record.get("version") != VERSION:
        raise UserError(f"{path}: samples of version {record.get('version')}; this release goes on with {VERSION}")
    return record


def _write_beside(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}") from error
    finally:
        beside.unlink(missing_ok=True)
