from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from selfflow_mm.errors import UserError
from selfflow_robotics.rlds import Tree, make_tree, read_tree
from selfflow_robotics.rlds.columns import decode_metadata, decode_step, episode_length
from selfflow_robotics.rlds.encoding import encode_leaf
from selfflow_robotics.rlds.example import parse_example, serialise_example
from selfflow_robotics.rlds.features import Leaf
from selfflow_robotics.rlds.framing import BadRecord

CORE = "tensorflow_datasets.core.features."


def old(kind: str, content: Any = None, **more: Any) -> dict[str, Any]:
    module = {"Dataset": "dataset_feature", "Tensor": "tensor_feature", "Image": "image_feature"}.get(kind, "x")
    return {"type": f"{CORE}{module}.{kind}", "content": {} if content is None else content, **more}


# The older form, as TFDS 4.0 to 4.5 wrote it, with each kind of feature.
OLD = old(
    "FeaturesDict",
    {
        "steps": old(
            "Dataset",
            {
                "feature": old(
                    "FeaturesDict",
                    {
                        "observation": old(
                            "FeaturesDict",
                            {
                                "image": old(
                                    "Image", {"shape": [None, None, 3], "dtype": "uint8", "encoding_format": "png"}
                                ),
                                "text": old("Text"),
                                "box": old("BBoxFeature", {"shape": [4], "dtype": "float32"}),
                            },
                        ),
                        "action": old("Tensor", {"shape": [2, 3], "dtype": "float64", "encoding": "none"}),
                        "label": old("ClassLabel", {"num_classes": 3}),
                        "points": old(
                            "Sequence", {"feature": old("Tensor", {"shape": [2], "dtype": "float32"}), "length": None}
                        ),
                        "pairs": old(
                            "Sequence", {"feature": old("Tensor", {"shape": [], "dtype": "int32"}), "length": 2}
                        ),
                        "film": old("Video", {"shape": [None, 4, 4, 3], "encoding_format": "jpeg"}),
                        "depth": old("Tensor", {"shape": [2], "dtype": "uint16", "encoding": "zlib"}),
                        "is_last": old("Scalar", {"dtype": "bool", "shape": []}),
                        "features": old("Tensor", {"shape": [], "dtype": "uint8"}),
                        "words": old("Translation", {"languages": ["de"]}),
                    },
                ),
                "length": None,
            },
        ),
        "success": old("Tensor", {"shape": [], "dtype": "bool"}),
        "sound": old("Audio", {"shape": [None], "dtype": "int64"}),
        "proto": old("Text", "{}", proto_cls="tensorflow_datasets.TextFeature"),
    },
)


def by_name(tree: Tree) -> dict[str, Leaf]:
    return {leaf.name: leaf for leaf in tree.leaves}


def test_the_older_form() -> None:
    leaves = by_name(Tree(OLD))
    seen = {
        name: (leaf.key, leaf.kind, leaf.lists, leaf.shape, leaf.dtype, leaf.encoding) for name, leaf in leaves.items()
    }
    assert seen == {
        "observation/image": ("steps/observation/image", "picture", (None,), (None, None, 3), "uint8", "png"),
        "observation/text": ("steps/observation/text", "text", (None,), (), "str", ""),
        "observation/box": ("steps/observation/box", "array", (None,), (4,), "float32", ""),
        "action": ("steps/action", "array", (None,), (2, 3), "float64", ""),
        "label": ("steps/label", "array", (None,), (), "int64", ""),
        "points": ("steps/points", "array", (None, None), (2,), "float32", ""),
        "pairs": ("steps/pairs", "array", (None, 2), (), "int32", ""),
        "film": ("steps/film", "picture", (None, None), (4, 4, 3), "uint8", "jpeg"),
        "depth": ("steps/depth", "array", (None,), (2,), "uint16", "zlib"),
        "is_last": ("steps/is_last", "array", (None,), (), "bool", ""),
        "features": ("steps/features", "array", (None,), (), "uint8", ""),
        "words": ("steps/words", "unknown", (None,), (), "float32", ""),
        "success": ("success", "array", (), (), "bool", ""),
        "sound": ("sound", "array", (), (None,), "int64", ""),
        "proto": ("proto", "text", (), (), "str", ""),
    }
    assert Tree(OLD).notes == ("'steps/words': features of class 'Translation' are kept as they are stored",)
    assert Tree(OLD).features["points"].shape == (None, 2) and "words" not in Tree(OLD).features


def test_the_real_description(bridge: Path) -> None:
    tree = read_tree(bridge / "features.json")
    assert len(tree.features) == 13 and len(tree.metadata_features) == 7 and not tree.notes
    image = tree.features["observation/image_0"]
    assert (image.kind, image.shape, image.encoding) == ("picture", (64, 64, 3), "jpeg")
    assert image.description == "Main camera RGB observation."
    assert tree.metadata_features["episode_metadata/episode_id"].dtype == "int32"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"featuresDict": 3}', '{"featuresDict": {"features": {"a": 1}}}']
)
def test_what_is_no_description_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "features.json").write_text(text)
    with pytest.raises(UserError, match="features.json"):
        read_tree(tmp_path / "features.json")


def test_a_data_set_without_steps_is_no_rlds(tmp_path: Path) -> None:
    (tmp_path / "features.json").write_text(json.dumps(old("FeaturesDict", {"image": old("Image", {"shape": None})})))
    with pytest.raises(UserError, match="without steps"):
        read_tree(tmp_path / "features.json")


def leaf(kind: str = "array", shape: Any = (), dtype: str = "float32", lists: Any = (None,), **more: Any) -> Leaf:
    return Leaf("steps/x", "x", kind, True, lists, shape, dtype, **more)  # type: ignore[arg-type]


DTYPES = ["bool", "int8", "int32", "int64", "uint8", "uint16", "uint64", "float16", "float32"]


@given(
    dtype=st.sampled_from([*DTYPES, "float64"]),
    steps=st.integers(0, 4),
    shape=st.lists(st.integers(0, 3), max_size=3),
    encoding=st.sampled_from(["", "bytes", "zlib"]),
    data=st.data(),
)
def test_columns_come_back(dtype: str, steps: int, shape: list[int], encoding: str, data: st.DataObject) -> None:
    raw = np.frombuffer(data.draw(st.binary(min_size=2000, max_size=2000)), np.uint8)
    count = steps * int(np.prod(shape))
    item = np.dtype(dtype)
    column = (raw[:count] > 100) if dtype == "bool" else raw[: count * item.itemsize].view(item)
    if dtype == "float64" and not encoding:
        column = raw[: count * 4].view(np.float32).astype(np.float64)  # what TFDS keeps of them
    if dtype == "float16" and not encoding:
        column = np.nan_to_num(column)  # which NaN is not kept
    column = column.reshape(steps, *shape)
    which = leaf(shape=tuple(shape), dtype=dtype, encoding=encoding)
    record = parse_example(serialise_example(encode_leaf(which, column, 95)))
    assert episode_length([which], record) == (steps if count or encoding else 0)
    back = decode_step(which, record, steps)
    assert isinstance(back, np.ndarray) and back.dtype == column.dtype and back.shape == column.shape
    assert back.tobytes() == column.tobytes() and back.flags.writeable


def test_how_tfds_stores_lists_within_steps() -> None:
    """The example of tensorflow_datasets/core/example_serializer.py: [[0, 1, 2], [], [3, 4]]."""
    which = leaf(dtype="int64", lists=(None, None))
    record = {"steps/x/ragged_flat_values": np.arange(5), "steps/x/ragged_row_lengths_0": np.array([3, 0, 2])}
    assert episode_length([which], record) == 3
    column = decode_step(which, record, 3)
    assert [each.tolist() for each in column] == [[0, 1, 2], [], [3, 4]]  # type: ignore[union-attr]
    back = encode_leaf(which, column, 95)
    assert {key: np.asarray(value).tolist() for key, value in back.items()} == {
        "steps/x/ragged_flat_values": [0, 1, 2, 3, 4],
        "steps/x/ragged_row_lengths_0": [3, 0, 2],
    }


def test_lists_of_lists_and_of_fixed_length() -> None:
    deep = leaf(dtype="int32", shape=(2,), lists=(None, None, None))
    nested = np.empty(2, object)
    nested[:] = [[np.array([[1, 2]], np.int32), np.zeros((0, 2), np.int32)], [np.array([[3, 4], [5, 6]], np.int32)]]
    record = encode_leaf(deep, nested, 95)
    assert record["steps/x/ragged_row_lengths_0"].tolist() == [2, 1]  # type: ignore[union-attr]
    assert record["steps/x/ragged_row_lengths_1"].tolist() == [1, 0, 2]  # type: ignore[union-attr]
    column: Any = decode_step(deep, record, 2)
    assert [[part.tolist() for part in step] for step in column] == [[[[1, 2]], []], [[[3, 4], [5, 6]]]]
    fixed = leaf(dtype="int32", lists=(None, 2))
    dense = np.arange(6, dtype=np.int32).reshape(3, 2)
    assert np.array_equal(decode_step(fixed, encode_leaf(fixed, dense, 95), 3), dense)
    words = leaf("text", dtype="str", lists=(None, None))
    said: Any = decode_step(words, encode_leaf(words, [["a", "bc"], []], 95), 2)
    assert [list(each) for each in said] == [["a", "bc"], []]


def test_tensors_with_several_open_sizes_carry_their_shapes() -> None:
    which = leaf(shape=(None, None), dtype="uint8", encoding="zlib")
    items = np.empty(2, object)
    items[:] = [np.arange(6, dtype=np.uint8).reshape(2, 3), np.zeros((0, 5), np.uint8)]
    record = encode_leaf(which, items, 95)
    assert record["steps/x/shape"].tolist() == [2, 3, 0, 5]  # type: ignore[union-attr]
    back: Any = decode_step(which, record, 2)
    assert episode_length([which], record) == 2 and [each.shape for each in back] == [(2, 3), (0, 5)]
    assert np.array_equal(back[0], items[0])


def test_text_that_is_not_utf8_stays_bytes() -> None:
    which = leaf("text", dtype="str")
    stored = {"steps/x": ["grüße".encode(), b"\xff\xfe", b"", b"nul\0"]}
    column: Any = decode_step(which, stored, 4)
    assert column == ["grüße", b"\xff\xfe", "", "nul\0"]
    assert encode_leaf(which, column, 95) == stored


def test_depth_pictures_are_float_bits_in_a_png() -> None:
    which = leaf("picture", shape=(4, 5, 1), dtype="float32", encoding="png")
    depth = np.random.default_rng(0).normal(size=(4, 5, 1)).astype(np.float32)
    out = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(depth).view(np.uint8), "RGBA").save(out, "PNG")
    pictures: Any = decode_step(which, {"steps/x": [out.getvalue(), b""]}, 2)
    back = pictures.read()
    assert back.dtype == np.float32 and np.array_equal(back[0], depth) and not back[1].any()


@pytest.mark.parametrize(
    "which, record, steps, reason",
    [
        (leaf(), {}, 2, "has no 'steps/x'"),
        (leaf(), {"steps/x": np.zeros(2, np.int64)}, 2, "holds integers where the description says float32"),
        (leaf(dtype="int32"), {"steps/x": [b""]}, 1, "holds strings"),
        (leaf("text", dtype="str"), {"steps/x": np.zeros(2, np.float32)}, 2, "holds numbers"),
        (leaf(shape=(3,)), {"steps/x": np.zeros(7, np.float32)}, 2, "7 values, which are not 2 times 3"),
        (leaf(dtype="uint8"), {"steps/x": np.array([256])}, 1, "numbers that uint8 cannot"),
        (leaf(dtype="int32"), {"steps/x": np.array([2**31])}, 1, "numbers that int32 cannot"),
        (leaf("picture", shape=(2, 2, 3)), {"steps/x": [b""]}, 2, "1 values where others have 2"),
        (leaf(encoding="bytes"), {"steps/x": [b"abc"]}, 1, "3 bytes"),
        (leaf(encoding="zlib"), {"steps/x": [b"abc"]}, 1, "not zlib"),
        (leaf(encoding="zlib"), {"steps/x": [zlib.compress(bytes(10**8))]}, 1, "5 bytes"),
        (
            leaf(shape=(None, None), encoding="bytes"),
            {"steps/x/value": [b""], "steps/x/shape": np.array([2**40, 2**40])},
            1,
            "claims",
        ),
        (
            leaf(shape=(None, None), encoding="bytes"),
            {"steps/x/value": [b""], "steps/x/shape": np.array([-1, 4])},
            1,
            "claims",
        ),
        (
            leaf(shape=(None, None), encoding="bytes"),
            {"steps/x/value": [b""], "steps/x/shape": np.array([1])},
            1,
            "shapes",
        ),
        (leaf(lists=(None, None)), {"steps/x/ragged_row_lengths_0": np.array([-1, 1])}, 2, "lengths of lists"),
        (leaf(lists=(None, None)), {"steps/x/ragged_row_lengths_0": np.array([2**62, 1])}, 2, "lengths of lists"),
        (leaf(lists=(None, None)), {"steps/x/ragged_row_lengths_0": np.array([1, 1])}, 2, "0 values"),
        (leaf(lists=(None, 3)), {"steps/x/ragged_row_lengths_0": np.array([1])}, 1, "not 3 long"),
        (leaf(lists=(None, None)), {"steps/x/ragged_row_lengths_0": np.array([1])}, 2, "1 lists"),
    ],
)
def test_what_does_not_fit_the_description_is_refused(which: Leaf, record: Any, steps: int, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        decode_step(which, record, steps)


def test_missing_values() -> None:
    """An absent list is an empty one (allow_missing in TFDS); an optional value takes TFDS' default."""
    assert np.shape(decode_step(leaf(shape=(3,)), {}, 0)) == (0, 3)  # type: ignore[arg-type]
    optional = leaf(dtype="int32", optional=True)
    assert np.array_equal(decode_step(optional, {}, 2), [-(2**31)] * 2)  # type: ignore[arg-type]
    whole = Leaf("s", "s", "text", False, dtype="str", optional=True)
    assert decode_metadata(whole, {}) == ""
    with pytest.raises(BadRecord, match="has no 's'"):
        decode_metadata(Leaf("s", "s", "text", False, dtype="str"), {})


def test_metadata_of_each_kind() -> None:
    def whole(kind: str, dtype: str = "float32", shape: Any = (), lists: Any = ()) -> Leaf:
        return Leaf("m", "m", kind, False, lists, shape, dtype)  # type: ignore[arg-type]

    flag = decode_metadata(whole("array", "bool"), {"m": np.array([1])})
    assert flag is True
    number = decode_metadata(whole("array", "int32"), {"m": np.array([7])})
    assert number == 7 and number.dtype == np.int32
    assert decode_metadata(whole("text", "str"), {"m": [b"hi"]}) == "hi"
    assert decode_metadata(whole("picture", "uint8", (2, 2, 3)), {"m": [b"png"]}) == b"png"
    assert decode_metadata(whole("array", shape=(2,)), {"m": np.float32([1, 2])}).tolist() == [1, 2]
    assert decode_metadata(whole("array", lists=(None,)), {"m": np.float32([1, 2, 3])}).tolist() == [1, 2, 3]
    assert decode_metadata(whole("text", "str", lists=(None,)), {"m": [b"a", b"b"]}).tolist() == ["a", "b"]
    for each, value in ((whole("array", "bool"), True), (whole("text", "str"), "x"), (whole("array", "int32"), 5)):
        assert decode_metadata(each, encode_leaf(each, value, 95)) == value


def test_a_made_description_is_understood() -> None:
    from selfflow_robotics.episode import Feature

    features = {
        "observation/image": Feature("picture", (8, 8, 3), "uint8", "jpeg", description="seen"),
        "observation/depth": Feature("picture", (8, 8, 1), "uint16", "jpeg"),
        "observation/state": Feature("array", (3,), "float64", names=("x", "y", "z")),
        "action": Feature("array", (2, 2), "float32"),
        "points": Feature("array", (None, 3), "float32"),
        "instruction": Feature("text", (), "str"),
        "is_last": Feature("array", (), "bool"),
    }
    tree = make_tree(features, {"episode_metadata/file": Feature("text", (), "str")})
    assert {name: (each.kind, each.shape, each.dtype) for name, each in tree.features.items()} == {
        name: (each.kind, each.shape, each.dtype) for name, each in features.items()
    }
    leaves = by_name(tree)
    assert leaves["observation/depth"].encoding == "png" and leaves["observation/state"].encoding == "bytes"
    assert leaves["observation/state"].about == "x, y, z" and list(tree.metadata_features) == ["episode_metadata/file"]
    with pytest.raises(UserError, match="'a' cannot be a feature and hold others"):
        make_tree({"a": features["action"], "a/b": features["action"]})
    with pytest.raises(UserError, match="complex64"):
        make_tree({"a": Feature("array", (), "complex64")})
