"""Against records that tensorflow_datasets 4.9.10 wrote, with one feature of every kind (see tfds_kinds/make.py)."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from selfflow_robotics.rlds import RldsFiles, RldsWriter, open_rlds

FOLDER = Path(__file__).parent / "tfds_kinds"


@pytest.fixture(scope="module")
def kinds() -> Any:
    spec = importlib.util.spec_from_file_location("tfds_kinds", FOLDER / "kinds.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files() -> RldsFiles:
    return open_rlds(FOLDER)


def flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}/")
        else:
            yield before + name, value


def same(mine: Any, given: Any) -> bool:
    if isinstance(given, str | bool | int):
        return bool(mine == given)
    if isinstance(given, list):
        return list(mine) == given
    return mine.dtype == given.dtype and np.array_equal(mine, given)


def test_every_kind_of_feature_is_read(files: RldsFiles, kinds: Any) -> None:
    assert not files.notes and files.splits == {"train": kinds.EPISODES}
    seen = set()
    for index in range(kinds.EPISODES):
        episode = files.read(0, index)
        number = int(episode.metadata["episode/name"][1:])  # TFDS shuffles what it writes
        seen.add(number)
        assert episode.length == number
        for k in range(number):
            given = dict(flat(kinds.step(number, k)))
            assert set(given) == {*episode.columns, *episode.texts, *episode.pictures}
            given["float64"] = given["float64"].astype(np.float32).astype(np.float64)  # all that TFDS keeps of it
            for name, value in given.items():
                if name == "observation/image":
                    error = episode.pictures[name].read([k])[0].astype(float) - value
                    assert 10 * np.log10(255**2 / (error**2).mean()) > 35
                elif name in episode.pictures:
                    assert same(episode.pictures[name].read([k])[0], value), name
                else:
                    mine = episode.texts[name][k] if name in episode.texts else episode.columns[name][k]
                    assert same(mine, value), name
        for name, value in flat(kinds.metadata(number), "episode/"):
            mine = episode.metadata[name]
            if name == "episode/film":
                mine = [np.asarray(Pillow.open(io.BytesIO(each))) for each in mine]
                assert len(mine) == number and all(np.array_equal(a, b) for a, b in zip(mine, value, strict=True))
            elif name == "episode/picture":
                assert np.array_equal(np.asarray(Pillow.open(io.BytesIO(mine))), value)
            else:
                assert same(mine, value), name
    assert seen == set(range(kinds.EPISODES))


def test_features_have_the_shapes_of_their_columns(files: RldsFiles) -> None:
    episode = max((files.read(0, index) for index in range(5)), key=len_of)
    for name, feature in files.features.items():
        if feature.kind == "array" and None not in feature.shape:
            assert episode.columns[name].shape[1:] == feature.shape, name
            assert feature.dtype == "str" or episode.columns[name].dtype == feature.dtype, name
    assert files.features["points"].shape == (None, 2) and files.features["three"].shape == (3,)
    assert files.features["words"].shape == (None,) and files.features["pair"].dtype == "str"


def len_of(episode: Any) -> int:
    return int(episode.length)


def test_records_come_out_bit_for_bit(files: RldsFiles, tmp_path: Path) -> None:
    with RldsWriter(tmp_path / "x", name="kinds", tree=files.tree) as writer:
        for index in range(5):
            writer.write(files.read(0, index))
    record = "kinds-train.tfrecord-00000-of-00001"
    assert (tmp_path / "x" / record).read_bytes() == (FOLDER / record).read_bytes()
