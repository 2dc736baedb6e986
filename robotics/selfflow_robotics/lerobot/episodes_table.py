"""The tables of a v3.0 data set: a row per episode with its statistics, tasks as pandas stores them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..episode import Feature
from ..extras import require
from .columns import PURPOSE, to_arrow
from .numbered import Place
from .stats import Statistics

__all__ = ["EPISODES_PER_GROUP", "data_schema_note", "episode_row", "placed", "statistics_columns", "text_table"]

#: Rows of a row group.
EPISODES_PER_GROUP = 100


def episode_row(
    values: Mapping[str, Any],
    statistics: Mapping[str, Statistics],
    extras: Mapping[str, tuple[Any, Feature]],
) -> Any:
    """One row of ``meta/episodes``, a pyarrow Table.

    Args:
        values: LeRobot's own columns: numbers, and ``tasks``, a list of str.
        statistics: per column; they become ``stats/{column}/{name}``.
        extras: column -> value of the episode and what it is.
    """
    pa = require("pyarrow", PURPOSE)
    row: dict[str, Any] = {}
    for name, value in values.items():
        kind = pa.list_(pa.string()) if name == "tasks" else pa.float64() if isinstance(value, float) else pa.int64()
        row[name] = pa.array([value], kind)
    for name, (value, feature) in extras.items():
        if feature.kind == "text":
            row[name] = pa.array([value], pa.string())
        else:
            row[name] = to_arrow(value[None], value.shape, fixed=all(feature.shape))
    return pa.table(row | statistics_columns([statistics]))


def placed(rows: Any, place: Place) -> Any:
    """``rows`` with the columns that say in which file of ``meta/episodes`` they are."""
    pa = require("pyarrow", PURPOSE)
    count = rows.num_rows
    rows = rows.append_column("meta/episodes/chunk_index", pa.array([place.chunk] * count, pa.int64()))
    return rows.append_column("meta/episodes/file_index", pa.array([place.file] * count, pa.int64()))


def statistics_columns(episodes: Sequence[Mapping[str, Statistics]]) -> dict[str, Any]:
    """``stats/{column}/{name}`` of episodes with the same columns, each an Arrow array of one entry per episode."""
    return {
        f"stats/{name}/{key}": to_arrow(
            np.stack([_storable(each[name][key]) for each in episodes]), entries.shape, fixed=False
        )
        for name, one in episodes[0].items()
        for key, entries in one.items()
    }


def text_table(texts: Sequence[str], column: str) -> Any:
    """``meta/tasks.parquet``: what pandas writes for ``DataFrame({column: 0, 1, ...}, index=texts)``."""
    pa = require("pyarrow", PURPOSE)
    index = "__index_level_0__"
    word = {"field_name": index, "name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    number = {"field_name": column, "name": column, "pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    names = {
        "field_name": None,
        "name": None,
        "pandas_type": "unicode",
        "numpy_type": "object",
        "metadata": {"encoding": "UTF-8"},
    }
    note = {"index_columns": [index], "column_indexes": [names], "columns": [number, word], "creator": {}}
    table = pa.table({column: pa.array(range(len(texts)), pa.int64()), index: pa.array(texts, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(note)})


def data_schema_note(features: Mapping[str, Feature], videos: Sequence[str]) -> dict[str, str]:
    """What Hugging Face's datasets library reads from a parquet file's schema, so that it shows pictures as such."""
    entries: dict[str, Any] = {}
    for name, feature in features.items():
        if name in videos:
            continue
        if feature.kind == "picture":
            entries[name] = {"_type": "Image"}
            continue
        value = {"dtype": "string" if feature.kind == "text" else feature.dtype, "_type": "Value"}
        if feature.shape in ((), (1,)):
            entries[name] = value
        elif len(feature.shape) == 1:
            entries[name] = {"feature": value, "length": feature.shape[0], "_type": "Sequence"}
        else:
            shape, kind = list(feature.shape), f"Array{len(feature.shape)}D"
            entries[name] = {"shape": shape, "dtype": feature.dtype, "_type": kind}
    return {"huggingface": json.dumps({"info": {"features": entries}})}


def _storable(entries: np.ndarray) -> np.ndarray:
    """The types that LeRobot has in this table: bool, int64, double."""
    if entries.dtype.kind in "iu" and entries.dtype != np.uint64:
        return entries.astype(np.int64)
    return entries if entries.dtype.kind == "b" else entries.astype(np.float64)
