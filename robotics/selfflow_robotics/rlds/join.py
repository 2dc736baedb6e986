"""Several RLDS data sets of one shard each as one data set of several: files are renamed, nothing is copied."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .info import TEMPLATE, fill_template, read_data_set
from .writer import RldsWriter

__all__ = ["join_rlds"]


def join_rlds(writer: RldsWriter, parts: Sequence[Path], joined: Path) -> None:
    """Move the shards of ``parts`` into ``joined`` under their final names, and describe them there.

    May be repeated after it was cut off.

    Args:
        writer: for the final folder; it knows name, split and structure, and the splits that are there already.
        parts: data sets of one shard each, written with the same settings.
        joined: an empty folder, or what an earlier attempt left.
    """
    lengths, size = [], 0
    for number, part in enumerate(parts):
        whole = fill_template(TEMPLATE, writer.name, writer.split, number, len(parts))
        shard = part / fill_template(TEMPLATE, writer.name, writer.split, 0, 1)
        if shard.exists():
            os.replace(shard, joined / whole)
        description = read_data_set(part).info
        (split,) = description["splits"]
        lengths.append(int(split["shardLengths"][0]))
        size += int(split["numBytes"])
    writer.describe(joined, lengths, size)
