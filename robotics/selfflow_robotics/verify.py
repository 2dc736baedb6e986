"""A conversion held against its source: numbers by their bits, pictures by their PSNR."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .convert import Converted, TargetOptions
from .episode import EncodedPictures, Episode, Pictures
from .naming import lerobot_naming, rlds_naming
from .sources import RobotFiles, open_files

__all__ = ["Verification", "verify"]


@dataclass
class Verification:
    """What was compared and what differs.

    Attributes:
        episodes, columns, texts: how many were compared.
        differences: one line each; empty where all numbers and texts have kept their bits.
        exact_pictures: pictures whose encoded bytes are the source's.
        psnr: camera -> dB of each other picture, in RGB over uint8 values; inf for equal pictures.
    """

    episodes: int = 0
    columns: int = 0
    texts: int = 0
    exact_pictures: int = 0
    differences: list[str] = field(default_factory=list)
    psnr: dict[str, list[float]] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Numbers, texts and lengths are the same."""
        return not self.differences

    def text(self) -> str:
        """For a terminal."""
        lines = [
            f"{self.episodes} episodes read back: {self.columns} columns of numbers and {self.texts} of text "
            + ("are the same to the bit" if self.good else f"compared, {len(self.differences)} differences")
        ]
        lines += [f"  {line}" for line in self.differences[:10]]
        if self.exact_pictures:
            lines.append(f"{self.exact_pictures} pictures have the source's bytes")
        for camera, values in self.psnr.items():
            finite = [value for value in values if math.isfinite(value)]
            figure = f"mean {np.mean(finite):.1f} dB, worst {min(finite):.1f} dB" if finite else "equal"
            lines.append(f"{camera}: {len(values)} pictures, PSNR {figure}")
        return "\n".join(lines)


def verify(
    source: RobotFiles, done: Converted, options: TargetOptions, *, episodes: range | None = None
) -> Verification:
    """Read ``done`` back and compare it with what it was made from."""
    naming = lerobot_naming(source) if options.to == "lerobot" else rlds_naming(source)
    files = open_files(done.folder, source.files.split if options.to == "rlds" else None)
    places = ((shard, index) for shard, entry in enumerate(files.shards) for index in range(entry.episodes))
    lost = {(entry.shard, entry.index) for entry in done.quarantine}
    report = Verification()
    for number in range(len(source)) if episodes is None else episodes:
        shard, index = source.locate(number)
        if (source.files.shards[shard].name, index) in lost:
            continue
        place = next(places, None)
        if place is None:
            report.differences.append(f"episode {number} is missing")
            continue
        _compare(naming.translate(source.files.read(shard, index)), files.read(*place), report)
    report.differences += [f"there is one episode too many: {place}" for place in places]
    return report


def _compare(wanted: Episode, found: Episode, report: Verification) -> None:
    report.episodes += 1
    where = f"episode {wanted.id}"
    if wanted.length != found.length:
        report.differences.append(f"{where}: {found.length} steps instead of {wanted.length}")
        return
    for name, column in wanted.columns.items():
        report.columns += 1
        other = found.columns.get(name)
        if other is None or not _same_bits(column, other):
            report.differences.append(f"{where}: '{name}' " + ("is missing" if other is None else "has other numbers"))
    for name, words in wanted.texts.items():
        report.texts += 1
        if [_bytes(word) for word in words] != [_bytes(word) for word in found.texts.get(name, ())]:
            report.differences.append(f"{where}: '{name}' has other words")
    report.differences += [f"{where}: metadata '{name}' differ" for name in _metadata(wanted.metadata, found.metadata)]
    for name, pictures in wanted.pictures.items():
        if name not in found.pictures:
            report.differences.append(f"{where}: the pictures '{name}' are missing")
        else:
            _compare_pictures(where, name, pictures, found.pictures[name], report)


def _compare_pictures(where: str, name: str, wanted: Pictures, found: Pictures, report: Verification) -> None:
    if isinstance(wanted, EncodedPictures) and isinstance(found, EncodedPictures):
        if [bytes(data) for data in wanted.data] == [bytes(data) for data in found.data]:
            report.exact_pictures += len(wanted)
            return
    for start in range(0, len(wanted), 32):
        steps = range(start, min(start + 32, len(wanted)))
        before, after = wanted.read(steps), found.read(steps)
        if before.shape != after.shape:
            size = f"{after.shape[1:]} instead of {before.shape[1:]}"
            report.differences.append(f"{where}: the pictures '{name}' have the size {size}")
            return
        error = np.square(before.astype(np.float32) - after).mean(axis=(1, 2, 3))
        with np.errstate(divide="ignore"):
            report.psnr.setdefault(name, []).extend((10 * np.log10(255.0**2 / error)).tolist())


def _metadata(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Names whose values differ."""
    return [name for name, value in wanted.items() if name not in found or not _same_value(value, found[name])]


def _same_value(a: Any, b: Any) -> bool:
    if isinstance(a, str | bytes) or isinstance(b, str | bytes):
        return type(a) in (str, bytes) and type(b) in (str, bytes) and _bytes(a) == _bytes(b)
    return _same_bits(np.asarray(a), np.asarray(b))


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """NaN payloads and signed zeros included; a scalar per step may have become a list of one."""
    return (
        a.dtype == b.dtype
        and a.size == b.size
        and len(a.shape and a) == len(b.shape and b)
        and a.tobytes() == b.tobytes()
    )


def _bytes(word: str | bytes) -> bytes:
    return word.encode() if isinstance(word, str) else word
