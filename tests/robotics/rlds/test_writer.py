from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from selfflow_mm.errors import UserError
from selfflow_robotics.episode import EncodedPictures, Episode, Feature, RawPictures
from selfflow_robotics.rlds import FRACTAL_FEATURES, FRACTAL_METADATA, FRACTAL_TREE, RldsWriter, open_rlds

FEATURES = {
    "observation/image": Feature("picture", (16, 24, 3), "uint8", "jpeg"),
    "observation/mask": Feature("picture", (16, 24, 1), "uint8", "png"),
    "observation/state": Feature("array", (3,), "float64"),
    "action": Feature("array", (7,), "float32"),
    "points": Feature("array", (None, 2), "float32"),
    "is_last": Feature("array", (), "bool"),
    "instruction": Feature("text", (), "str"),
}
METADATA = {"episode_metadata/file": Feature("text", (), "str"), "success": Feature("array", (), "bool")}


def episode(seed: int, steps: int = 4) -> Episode:
    rng = np.random.default_rng(seed)
    points = np.empty(steps, object)
    for step in range(steps):
        points[step] = rng.normal(size=(step, 2)).astype(np.float32)
    y, x = np.mgrid[:16, :24]
    smooth = np.stack([x * 10, y * 15, (x + y) * 5], -1)[None] + rng.integers(0, 20, (steps, 1, 1, 1))
    return Episode(
        str(seed),
        steps,
        {
            "observation/state": rng.normal(size=(steps, 3)),
            "action": rng.normal(size=(steps, 7)).astype(np.float32),
            "points": points,
            "is_last": np.arange(steps) == steps - 1,
        },
        {"instruction": ["öffne die Schublade"] * steps},
        {
            "observation/image": RawPictures(smooth.clip(0, 255).astype(np.uint8)),
            "observation/mask": RawPictures(rng.integers(0, 2, (steps, 16, 24, 1), np.uint8)),
        },
        {"episode_metadata/file": f"/{seed}", "success": bool(seed % 2), "not declared": 3},
    )


def write(folder: Path, seeds: range, **more: Any) -> Path:
    with RldsWriter(folder, name="toy", features=FEATURES, metadata_features=METADATA, **more) as writer:
        for seed in seeds:
            writer.write(episode(seed))
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_real_records_are_written_again_bit_for_bit(bridge: Path, tmp_path: Path) -> None:
    files = open_rlds(bridge)
    with RldsWriter(tmp_path / "x", name=files.name, tree=files.tree) as writer:
        for index in range(25):
            writer.write(files.read(0, index))
    record = "bridge_dataset-train.tfrecord-00000-of-00001"
    assert (tmp_path / "x" / record).read_bytes() == (bridge / record).read_bytes()
    described = json.loads((tmp_path / "x" / "features.json").read_text())
    assert described == json.loads((bridge / "features.json").read_text())
    ours, theirs = (json.loads((f / "dataset_info.json").read_text()) for f in (tmp_path / "x", bridge))
    for key in ("name", "version", "fileFormat"):
        assert ours[key] == theirs[key]
    assert ours["splits"][0] == theirs["splits"][0]


def test_values_come_back(tmp_path: Path) -> None:
    files = open_rlds(write(tmp_path / "x", range(5), episodes_per_shard=2))
    assert [shard.name for shard in files.shards] == [f"toy-train.tfrecord-{k:05d}-of-00003" for k in range(3)]
    assert {name: (f.kind, f.shape, f.dtype) for name, f in files.features.items()} == {
        name: (f.kind, f.shape, f.dtype) for name, f in FEATURES.items()
    }
    for seed in range(5):
        back, given = files.read(seed // 2, seed % 2), episode(seed)
        for name in ("observation/state", "action", "is_last"):
            assert back.columns[name].dtype == given.columns[name].dtype
            assert back.columns[name].tobytes() == given.columns[name].tobytes()
        for mine, theirs in zip(back.columns["points"], given.columns["points"], strict=True):
            assert mine.dtype == np.float32 and np.array_equal(mine, theirs)
        assert back.texts == given.texts
        assert back.metadata == {"episode_metadata/file": f"/{seed}", "success": bool(seed % 2)}
        masks = given.pictures["observation/mask"].read()
        assert np.array_equal(back.pictures["observation/mask"].read(), masks)
        error = back.pictures["observation/image"].read().astype(float) - given.pictures["observation/image"].read()
        assert 10 * np.log10(255**2 / (error**2).mean()) > 35


def test_tfrecord_reads_it(tmp_path: Path) -> None:
    tfrecord = pytest.importorskip("tfrecord")
    folder = write(tmp_path / "x", range(2))
    found = list(tfrecord.tfrecord_loader(str(next(folder.glob("*.tfrecord*"))), None))
    for seed, record in enumerate(found):
        given = episode(seed)
        assert np.array_equal(record["steps/action"].reshape(4, 7), given.columns["action"])
        assert record["steps/is_last"].tolist() == [0, 0, 0, 1]
        assert record["steps/points/ragged_row_lengths_0"].tolist() == [0, 1, 2, 3]
        assert bytes(record["episode_metadata/file"]) == b"/%d" % seed
        assert (
            np.frombuffer(record["steps/observation/state"][0]).tobytes()
            == given.columns["observation/state"][0].tobytes()
        )
    assert len(found) == 2


def test_encoded_pictures_keep_their_bytes_and_raw_ones_obey_the_quality(tmp_path: Path) -> None:
    out = io.BytesIO()
    Pillow.fromarray(np.zeros((16, 24, 3), np.uint8)).save(out, "JPEG", quality=30)
    files = [out.getvalue(), out.getvalue() + b"\0\0", b""]
    feature = {"image": Feature("picture", (16, 24, 3), "uint8", "jpeg")}
    with RldsWriter(tmp_path / "x", name="toy", features=feature) as writer:
        writer.write(Episode("0", 3, pictures={"image": EncodedPictures(files)}))
    kept: Any = open_rlds(tmp_path / "x").read(0, 0).pictures["image"]
    assert kept.data == files
    sizes = {}
    for quality in (50, 95):
        folder = write(tmp_path / f"q{quality}", range(1), quality=quality)
        pictures: Any = open_rlds(folder).read(0, 0).pictures["observation/image"]
        sizes[quality] = len(pictures.data[0])
        assert pictures.data[0][:2] == b"\xff\xd8"
    assert sizes[50] < sizes[95]


def test_the_same_episodes_give_the_same_bytes(tmp_path: Path) -> None:
    assert hashes(write(tmp_path / "x", range(3))) == hashes(write(tmp_path / "y", range(3)))


def test_a_second_split_joins(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", range(3))
    first = hashes(folder)
    write(folder, range(3, 5), split="val")
    assert open_rlds(folder).splits == {"train": 3, "val": 2}
    assert open_rlds(folder, "val").read(0, 1).metadata["episode_metadata/file"] == "/4"
    record = "toy-train.tfrecord-00000-of-00001"
    assert hashes(folder)[record] == first[record] and hashes(folder)["features.json"] == first["features.json"]
    with pytest.raises(UserError, match="already has a split 'val'"):
        write(folder, range(1), split="val")
    with pytest.raises(UserError, match="another name, version or other features"):
        write(folder, range(1), split="test", version="2.0.0")
    with pytest.raises(UserError, match="another name, version or other features"):
        RldsWriter(folder, name="toy", split="test", features={"action": FEATURES["action"]})


def test_overwriting_leaves_no_old_shards(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", range(5), episodes_per_shard=1)
    write(folder, range(2), split="val")
    write(folder, range(2), episodes_per_shard=2, overwrite=True)
    names = sorted(path.name for path in folder.glob("*.tfrecord*"))
    assert names == ["toy-train.tfrecord-00000-of-00001", "toy-val.tfrecord-00000-of-00001"]
    assert open_rlds(folder).splits == {"train": 2, "val": 2}
    (folder / "dataset_info.json").unlink()
    with pytest.raises(UserError, match="without a dataset_info.json"):
        write(folder, range(1))


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), RldsWriter(tmp_path / "x", name="toy", features=FEATURES) as writer:
        writer._next_shard()
        raise RuntimeError
    assert not (tmp_path / "x").exists()
    folder = write(tmp_path / "y", range(3))
    before = hashes(folder)
    for more in ({"split": "val"}, {"overwrite": True}):
        with pytest.raises(UserError, match="episode 9: it has no 'episode_metadata/file'"):
            options: dict[str, Any] = {"features": FEATURES, "metadata_features": METADATA, **more}
            with RldsWriter(folder, name="toy", **options) as writer:
                writer.write(episode(7))
                writer.write(Episode("9", 0))
        assert hashes(folder) == before


def test_no_episodes_make_an_empty_split(tmp_path: Path) -> None:
    files = open_rlds(write(tmp_path / "x", range(0)))
    assert files.splits == {"train": 0} and files.episodes_in(0) == 0 and files.tree.order == ()


@pytest.mark.parametrize(
    "column, reason",
    [
        ({"columns": {"a": np.zeros((2, 3))}}, "'a' is float64, where float32 is declared"),
        ({"columns": {"a": np.zeros((2, 2), np.float32)}}, r"'a' has shape \(2,\), where \(3,\) is declared"),
        ({"columns": {"b": np.zeros(2)}}, "not declared: b"),
        ({}, "has no 'a'"),
        ({"texts": {"a": ["x", "y"]}}, "'a' is declared as array, and the episode has it as text"),
        ({"columns": {"a": np.zeros((2, 3), np.int64)}}, "'a' is int64"),
    ],
)
def test_columns_that_are_not_declared(tmp_path: Path, column: Any, reason: str) -> None:
    features = {"a": Feature("array", (3,), "float32")}
    with pytest.raises(UserError, match=reason), RldsWriter(tmp_path / "x", name="toy", features=features) as writer:
        writer.write(Episode("0", 2, **column))


def test_numbers_that_the_record_would_round_are_refused(tmp_path: Path) -> None:
    """TFDS' own float64 is stored as float32; a tree that asks for it must not lose digits without a word."""
    from selfflow_robotics.rlds import Tree

    json_tree = json.loads(
        json.dumps(RldsWriter(tmp_path, name="t", features={"a": Feature("array", (), "float64")}).tree.json)
    )
    tensor = json_tree["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]["a"][
        "tensor"
    ]
    assert tensor["encoding"] == "bytes"
    tensor["encoding"] = "none"
    with RldsWriter(tmp_path / "x", name="toy", tree=Tree(json_tree)) as writer:
        writer.write(Episode("0", 2, {"a": np.array([0.5, np.nan])}))
        with pytest.raises(UserError, match="does not hold exactly"):
            writer.write(Episode("1", 1, {"a": np.array([0.1])}))
    assert open_rlds(tmp_path / "x").read(0, 0).columns["a"].dtype == np.float64


@pytest.mark.parametrize(
    "options",
    [{"name": "A b"}, {"version": "1"}, {"split": "a/b"}, {"split": "all"}, {"episodes_per_shard": 0}, {"quality": 0}],
)
def test_settings_are_checked_first(tmp_path: Path, options: Any) -> None:
    with pytest.raises(UserError):
        RldsWriter(tmp_path / "x", **({"name": "toy", "features": FEATURES} | options))


def test_the_layout_of_rt1(tmp_path: Path) -> None:
    """Names and types of the catalogue: 24 features of steps, 17 of episodes."""
    assert len(FRACTAL_FEATURES) == 24 and len(FRACTAL_METADATA) == 17
    rng = np.random.default_rng(0)
    steps = 3
    columns = {
        name: (rng.normal(size=(steps, *f.shape)) > 0).astype(f.dtype)  # type: ignore[arg-type]
        for name, f in FRACTAL_FEATURES.items()
        if f.kind == "array"
    }
    texts = {"observation/natural_language_instruction": ["pick coke can"] * steps}
    frames = np.zeros((steps, 256, 320, 3), np.uint8)
    metadata = {name: "" if f.kind == "text" else np.zeros((), f.dtype)[()] for name, f in FRACTAL_METADATA.items()}
    given = Episode("0", steps, columns, texts, {"observation/image": RawPictures(frames)}, metadata)
    with RldsWriter(tmp_path / "x", name="fractal20220817_data", version="0.1.0", tree=FRACTAL_TREE) as writer:
        writer.write(given)
    back = open_rlds(tmp_path / "x").read(0, 0)
    assert set(back.columns) == set(columns) and back.texts == texts and set(back.metadata) == set(metadata)
    assert back.columns["action/terminate_episode"].dtype == np.int32
    assert back.columns["observation/orientation_box"].shape == (steps, 2, 3)
    assert all(np.array_equal(back.columns[name], columns[name]) for name in columns)
    assert back.pictures["observation/image"].read().shape == (steps, 256, 320, 3)
