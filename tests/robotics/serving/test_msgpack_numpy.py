"""openpi's wire format: bytes worked out by hand, anything back as it went in, and lies that cost nothing."""

from __future__ import annotations

import tracemalloc

import hypothesis.extra.numpy as hnp
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_robotics.serving.msgpack_numpy import MAX_DEPTH, MAX_ITEMS, pack, unpack

DTYPES = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(endianness="?"), hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"), hnp.unicode_string_dtypes(max_len=5), hnp.byte_string_dtypes(max_len=5),
)  # fmt: skip


def same(one: object, other: object) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray | np.generic):
        equal_nan = one.dtype.kind == "f"
        return type(one) is type(other) and one.dtype == other.dtype and np.array_equal(one, other, equal_nan=equal_nan)
    return type(one) is type(other) and one == other


def test_bytes_by_hand() -> None:
    """From msgpack's specification: fixmap 8x, bin8 c4, true c3, fixstr ax, fixarray 9x."""
    expected = (
        b"\x84" + b"\xc4\x0b__ndarray__" + b"\xc3" + b"\xc4\x04data" + b"\xc4\x04\x01\x00\x02\x00"
        b"\xc4\x05dtype" + b"\xa3<i2" + b"\xc4\x05shape" + b"\x91\x02"
    )  # fmt: skip
    assert pack(np.array([1, 2], "<i2")) == expected
    assert same(np.array([1, 2], "<i2"), unpack(expected))
    scalar = b"\x83" + b"\xc4\x0d__npgeneric__" + b"\xc3" + b"\xc4\x04data" + b"\x07" + b"\xc4\x05dtype" + b"\xa3|u1"
    assert pack(np.uint8(7)) == scalar
    assert same(np.uint8(7), unpack(scalar))


def test_text_keys_of_vla_eval() -> None:
    raw = msgpack.unpackb(pack(np.zeros(2, "<f4"), text_keys=True))
    assert raw == {"__ndarray__": True, "data": bytes(8), "dtype": "<f4", "shape": [2]}
    assert same(np.zeros(2, "<f4"), unpack(msgpack.packb(raw), text_keys=True))
    assert unpack(msgpack.packb(raw)) == raw, "in openpi's format those are a dictionary like any other"


@settings(max_examples=40)
@given(DTYPES.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))))
def test_arrays_come_back(array: np.ndarray) -> None:
    assert same({"a": array, "b": [array.T]}, unpack(pack({"a": array, "b": [array.T]})))


@settings(max_examples=40)
@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.builds(np.float32, st.floats(width=32)) | st.builds(np.int16, st.integers(-9, 9)) | st.builds(np.bool_),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.binary(), inner, max_size=4),
    max_leaves=9,
))  # fmt: skip
def test_anything_else_comes_back(value: object) -> None:
    assert same(value, unpack(pack(value)))


@pytest.mark.parametrize(
    "value",
    [
        np.array([None]),
        np.array([1j]),
        np.complex64(1),
        np.zeros(2, "i4,f4"),
        object(),
        2**64,
        {1, 2},
        np.longdouble(1),
    ],
    ids=lambda value: type(value).__name__,  # an address would be another in every process
)
def test_what_does_not_travel(value: object) -> None:
    with pytest.raises(UserError, match="cannot be packed"):
        pack({"x": value})


def array(**changed: object) -> dict:
    return {b"__ndarray__": True, b"data": bytes(12), b"dtype": "<f4", b"shape": [3], **_bytes(changed)}


def scalar(**changed: object) -> dict:
    return {b"__npgeneric__": True, b"data": 1, b"dtype": "<f4", **_bytes(changed)}


def _bytes(changed: dict) -> dict:
    return {key.encode(): value for key, value in changed.items()}


@pytest.mark.parametrize(
    "lie",
    [
        array(shape=[4]), array(shape=[2]), array(shape=[-1]), array(shape=[3, -1]), array(shape=[True, 3]),
        array(shape=[3.0]), array(shape="3"), array(shape=None), array(shape=[2**40, 0], data=b""),
        array(shape=[2**62, 4], data=bytes(16)), array(shape=[1] * 9 + [3]), array(shape=[]), array(shape={}),
        array(dtype="O"), array(dtype="|O8"), array(dtype="V4"), array(dtype="<c8"), array(dtype="i4,i4"),
        array(dtype="(3,)f4"), array(dtype="<U0", data=b"", shape=[10**9]), array(dtype="f" * 10**6), array(dtype=4),
        array(dtype=b"<f4"), array(dtype="<M8[xx]", data=bytes(8), shape=[1]), array(dtype=None), array(data="abc"),
        array(data=[0] * 12), array(data=None), {b"__ndarray__": True}, scalar(data="1"), scalar(data=None),
        scalar(data=[]), scalar(dtype="<i4", data=2**40), scalar(dtype="O"), scalar(dtype="<U2", data=1),
        scalar(dtype=1), array(data={b"__ndarray__": True, b"data": b"", b"dtype": "<f4", b"shape": [0]}),
    ],
    ids=lambda lie: str(lie)[:70],
)  # fmt: skip
def test_lies_about_arrays(lie: dict) -> None:
    with pytest.raises(UserError, match="array|scalar|numpy has no type"):
        unpack(msgpack.packb({"image": lie}))


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def test_depth_and_items_are_bounded() -> None:
    assert unpack(msgpack.packb(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(UserError, match="deeper than"):
        unpack(msgpack.packb(nested(MAX_DEPTH + 1)))
    rows = [[0] * 99] * 99
    assert unpack(msgpack.packb(rows)) == rows
    with pytest.raises(UserError, match=f"more than {MAX_ITEMS} items"):
        unpack(msgpack.packb([[0] * 150] * 150))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"\x93\x01", b"\x01\x01", b"\x91" * 10**6, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
        b"\xdc\x0f\xff" * 10**6, b"\xdc\x0f\xff" + b"\xdc\x0f\xff\x90" * 10**5, b"\xde\x0f\xff" * 10**5,
        b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xd4\x05a", b"\xa2\xff\xff", b"\x81\x90\x01",
        b"\x81\x01\x01", b"\x91" * 500 + b"\xdc\x0f\xff" * 20,
    ],
    ids=lambda data: data[:8].hex(),
)  # fmt: skip
def test_what_is_not_a_message_costs_nothing(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            unpack(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * 2**20, "the claims of a message are not believed"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_users_mistake(data: bytes) -> None:
    try:
        unpack(data)
    except UserError:
        pass


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_message_is_a_message_or_a_users_mistake(place: int, value: int) -> None:
    whole = pack({"image": np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "prompt": "x", "state": np.zeros(3)})
    damaged = bytearray(whole)
    damaged[place % len(whole)] = value
    for data in (bytes(damaged), whole[: place % len(whole)]):
        try:
            unpack(data)
        except UserError:
            pass


def test_arrays_are_views_and_cannot_be_written() -> None:
    image = unpack(pack(np.zeros((2, 2, 3), np.uint8)))
    assert not image.flags.writeable and not image.flags.owndata
