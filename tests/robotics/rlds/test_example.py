from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_robotics.rlds.example import parse_example, serialise_example
from selfflow_robotics.rlds.framing import BadRecord, index_shard, read_record
from selfflow_robotics.rlds.varints import decode_varints, encode_varint, encode_varints, read_varint

INT64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 127),
    st.sampled_from([2**k - d for k in range(7, 63) for d in (0, 1)]),
)
FEATURE = st.one_of(
    st.none(),
    st.tuples(st.just("bytes"), st.lists(st.binary(max_size=300), max_size=5)),
    st.tuples(st.just("float"), st.lists(st.floats(width=32), max_size=9)),
    st.tuples(st.just("int64"), st.lists(INT64, max_size=9)),
)
FEATURES = st.dictionaries(st.text(max_size=40), FEATURE, max_size=6)


def plain(value: Any) -> tuple[str, list[Any]] | None:
    if value is None:
        return None
    if isinstance(value, list):
        return "bytes", value
    return ("float", value.view(np.int32).tolist()) if value.dtype.kind == "f" else ("int64", value.tolist())


def expected(given: tuple[str, list[Any]] | None) -> tuple[str, list[Any]] | None:
    if given is not None and given[0] == "float":
        return "float", np.array(given[1], np.float32).view(np.int32).tolist()
    return given


@settings(max_examples=80)
@given(features=FEATURES)
def test_protobuf_and_this_parser_agree_both_ways(protobuf: Any, features: dict[str, Any]) -> None:
    theirs = protobuf.build(features)
    parsed = parse_example(theirs)
    assert {name: plain(value) for name, value in parsed.items()} == {k: expected(v) for k, v in features.items()}
    assert serialise_example(parsed) == theirs or not features  # without features protobuf leaves the field out
    back = protobuf.example_class().FromString(serialise_example(parsed))
    assert back.SerializeToString(deterministic=True) == protobuf.build(features) or not features


@given(numbers=st.lists(INT64, max_size=20))
def test_varints_as_arrays_and_one_at_a_time(numbers: list[int]) -> None:
    data = b"".join(encode_varint(number % 2**64) for number in numbers)
    array = np.array(numbers, np.int64)
    assert encode_varints(array) == data
    assert decode_varints(data, 0, len(data)).tolist() == numbers
    at = 0
    for number in numbers:
        value, at = read_varint(data, at, len(data))
        assert value == number % 2**64


def test_lists_that_are_not_packed(protobuf: Any) -> None:
    floats, ints = [1.5, -2.0, 3.25], [1, -1, 300]
    loose_floats = b"".join(b"\x0d" + np.float32(x).tobytes() for x in floats)
    loose_ints = b"".join(b"\x08" + encode_varint(x % 2**64) for x in ints)
    mixed = b"\x0a\x08" + np.float32([7, 8]).tobytes() + loose_floats
    for tag, content in ((0x12, loose_floats), (0x1A, loose_ints), (0x12, mixed)):
        feature = bytes([tag]) + encode_varint(len(content)) + content
        entry = b"\x0a\x01k\x12" + encode_varint(len(feature)) + feature
        features = b"\x0a" + encode_varint(len(entry)) + entry
        message = b"\x0a" + encode_varint(len(features)) + features
        value = parse_example(message)["k"]
        theirs = protobuf.example_class().FromString(message).features.feature["k"]
        truth = theirs.float_list.value if tag == 0x12 else theirs.int64_list.value
        assert isinstance(value, np.ndarray) and value.tolist() == list(truth)


def test_unknown_fields_are_skipped(protobuf: Any) -> None:
    known = protobuf.build({"a": ("int64", [5])})
    extra = b"\x78\x96\x01" + b"\x7a\x03abc" + b"\x7d\x01\x02\x03\x04" + b"\x79" + bytes(8)
    value = parse_example(extra + known + extra)["a"]
    assert isinstance(value, np.ndarray) and value.tolist() == [5]


@settings(max_examples=80)
@given(data=st.data())
def test_damaged_messages_parse_or_say_why(protobuf: Any, data: st.DataObject) -> None:
    features = data.draw(FEATURES)
    raw = bytearray(protobuf.build(features))
    for _ in range(data.draw(st.integers(1, 4))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    try:
        parse_example(bytes(raw))
    except BadRecord as error:
        assert "malformed" in str(error)


@given(raw=st.binary(max_size=200))
def test_any_bytes_parse_or_say_why(raw: bytes) -> None:
    try:
        parse_example(raw)
    except BadRecord as error:
        assert "malformed" in str(error)


@pytest.mark.parametrize("size", [2**31, 2**40, 2**63 - 1, 2**64 - 1])
def test_hostile_lengths_allocate_nothing(size: int) -> None:
    message = b"\x0a" + encode_varint(size) + b"\x0a\x01"
    tracemalloc.start()
    with pytest.raises(BadRecord, match="longer than what holds it"):
        parse_example(message)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_a_number_that_never_ends() -> None:
    with pytest.raises(BadRecord, match="does not end"):
        parse_example(b"\xff" * 1000)
    packed = b"\xff" * 1000
    with pytest.raises(BadRecord, match="does not end"):
        decode_varints(packed, 0, 1000)
    with pytest.raises(BadRecord, match="more than 10 bytes"):
        decode_varints(packed + b"\x01", 0, 1001)


def test_the_real_records_come_out_the_same_and_as_protobuf_reads_them(bridge: Path, protobuf: Any) -> None:
    with open(next(bridge.glob("*.tfrecord*")), "rb", buffering=0) as file:
        index = index_shard(file)
        assert len(index) == 25 and not index.damage
        for offset in index.offsets:
            record = read_record(file, int(offset))
            assert serialise_example(parse_example(record)) == record
        theirs = protobuf.example_class().FromString(record).features.feature
        ours = parse_example(record)
        assert set(ours) == set(theirs)
        assert ours["steps/observation/image_0"] == list(theirs["steps/observation/image_0"].bytes_list.value)
        assert ours["steps/action"].tolist() == list(theirs["steps/action"].float_list.value)  # type: ignore[union-attr]
