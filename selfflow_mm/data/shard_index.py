"""Where the samples of one shard lie, in a few arrays: some 60 bytes a sample, where dictionaries would take 600."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

#: Of the files in which indexes are kept.
FORMAT = "selfflow-shard-index 1"


@dataclass(frozen=True)
class ShardIndex:
    """The members of a shard, grouped into ``n`` samples.

    Attributes:
        names: the samples' keys in UTF-8, one after the other.
        name_ends: ``(n,)`` where each key ends in ``names``.
        kinds: ``(n,)`` which of ``endings`` a sample has.
        endings: every combination of endings in the shard, in the order of their members.
        first: ``(n,)`` the sample's first row in ``places``.
        places: ``(members, 2)`` offset and size of each member's data in bytes.
    """

    names: np.ndarray
    name_ends: np.ndarray
    kinds: np.ndarray
    endings: tuple[tuple[str, ...], ...]
    first: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, groups: Mapping[str, Mapping[str, tuple[int, int]]]) -> ShardIndex:
        """Key -> ending -> (offset, size), as arrays."""
        names = [key.encode("utf-8", "surrogateescape") for key in groups]
        numbers: dict[tuple[str, ...], int] = {}
        kinds = [numbers.setdefault(tuple(members), len(numbers)) for members in groups.values()]
        counts = np.array([len(members) for members in groups.values()], np.int64)
        places = [place for members in groups.values() for place in members.values()]
        return cls(
            np.frombuffer(b"".join(names), np.uint8),
            np.cumsum([len(name) for name in names], dtype=np.int64),
            np.array(kinds, np.uint16 if len(numbers) < 1 << 16 else np.int64),
            tuple(numbers),
            np.cumsum(counts) - counts,
            np.array(places, np.int64).reshape(-1, 2),
        )

    def __len__(self) -> int:
        return len(self.first)

    def key(self, row: int) -> str:
        begin = int(self.name_ends[row - 1]) if row else 0
        return self.names[begin : int(self.name_ends[row])].tobytes().decode("utf-8", "surrogateescape")

    def members(self, row: int) -> dict[str, tuple[int, int]]:
        """Ending -> (offset, size)."""
        endings, first = self.endings[self.kinds[row]], int(self.first[row])
        rows = self.places[first : first + len(endings)].tolist()
        return {ending: (offset, size) for ending, (offset, size) in zip(endings, rows, strict=True)}

    def save(self, path: Path) -> None:
        """Keep it; written beside and renamed. A folder that cannot be written to keeps nothing."""
        arrays = {n: getattr(self, n) for n in ("names", "name_ends", "kinds", "first", "places")}
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(arrays, beside, {"format": FORMAT, "endings": json.dumps(self.endings)})
            os.replace(beside, path)
        except (OSError, SafetensorError):
            beside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> ShardIndex | None:
        """What was kept; None where there is nothing of this format, or it is damaged."""
        try:
            with safe_open(path, "numpy") as file:
                about = file.metadata() or {}
                if about.get("format") != FORMAT:
                    return None
                arrays = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError):
            return None
        return cls(endings=tuple(tuple(e) for e in json.loads(about["endings"])), **arrays)
