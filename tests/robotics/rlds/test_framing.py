from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfflow_robotics.rlds.framing import BadRecord, index_shard, masked_crc, read_record, write_record

# RFC 3720, appendix B.4
VECTORS = {
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(range(31, -1, -1)): 0x113FDB5C,
    b"123456789": 0xE3069283,
}


@pytest.mark.parametrize("data, crc", VECTORS.items())
def test_checksums_are_the_published_ones_rotated_and_shifted(data: bytes, crc: int) -> None:
    rotated = int(f"{crc:032b}"[-15:] + f"{crc:032b}"[:-15], 2)
    assert masked_crc(data) == (rotated + 0xA282EAD8) % 2**32


def test_a_record_is_framed_as_the_format_says() -> None:
    out = io.BytesIO()
    assert write_record(out, b"123456789") == len(out.getvalue()) == 25
    head = struct.pack("<Q", 9)
    assert out.getvalue()[:8] == head and out.getvalue()[12:21] == b"123456789"
    assert struct.unpack("<I", out.getvalue()[21:])[0] == masked_crc(b"123456789")


def shard(path: Path, records: list[bytes]) -> Path:
    with open(path, "wb") as file:
        for record in records:
            write_record(file, record)
    return path


def read_all(path: Path) -> tuple[dict[int, bytes], str, list[str]]:
    """Every record by number, the index's damage, and the errors of records."""
    with open(path, "rb", buffering=0) as file:
        index = index_shard(file)
        found, errors = {}, []
        for number, offset in enumerate(index.offsets):
            try:
                found[number] = read_record(file, int(offset))
            except BadRecord as error:
                errors.append(str(error))
    return found, index.damage, errors


def test_tfrecord_reads_what_is_written_and_the_other_way_round(tmp_path: Path) -> None:
    tfrecord = pytest.importorskip("tfrecord")
    records = [b"", b"a", bytes(range(256)) * 30]
    path = shard(tmp_path / "ours", records)
    assert [bytes(each) for each in tfrecord.tfrecord_iterator(str(path))] == records
    writer = tfrecord.TFRecordWriter(str(tmp_path / "theirs"))
    writer.write({"x": ([1, -5, 2**40], "int")})
    writer.write({"y": ([b"abc", b""], "byte")})
    writer.close()
    theirs = [bytes(each) for each in tfrecord.tfrecord_iterator(str(tmp_path / "theirs"))]
    assert list(read_all(tmp_path / "theirs")[0].values()) == theirs and len(theirs) == 2


RECORDS = [b"first record", b"", b"the third, a little longer than the others"]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bit_passes(tmp_path: Path, data: st.DataObject) -> None:
    path = shard(tmp_path / "shard", RECORDS)
    raw = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    found, damage, errors = read_all(path)
    starts = np.cumsum([0, *(16 + len(record) for record in RECORDS)])
    hit = int(np.searchsorted(starts, place, side="right")) - 1
    in_header = place < starts[hit] + 12
    # a damaged header loses the rest of the file, a damaged body one record; what is left is right
    kept = set(range(hit)) if in_header else set(range(3)) - {hit}
    assert found == {number: RECORDS[number] for number in kept}
    assert bool(damage) == in_header and len(errors) == (not in_header)
    message = damage or errors[0]
    assert f"{starts[hit] if in_header else starts[hit] + 12}" in message
    assert ("length" in message) == in_header


@given(cut=st.integers(0, sum(16 + len(record) for record in RECORDS) - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_is_cut_off_keeps_what_is_whole(tmp_path: Path, cut: int) -> None:
    path = shard(tmp_path / "shard", RECORDS)
    path.write_bytes(path.read_bytes()[:cut])
    found, damage, errors = read_all(path)
    ends = np.cumsum([16 + len(record) for record in RECORDS])
    assert list(found.values()) == RECORDS[: int((ends <= cut).sum())] and not errors
    at_a_boundary = cut in (0, *ends)
    assert bool(damage) != at_a_boundary and ("cut off" in damage) != at_a_boundary


def test_a_length_that_lies_allocates_nothing(tmp_path: Path) -> None:
    head = struct.pack("<Q", 2**62)
    (tmp_path / "x").write_bytes(head + struct.pack("<I", masked_crc(head)) + bytes(100))
    found, damage, _ = read_all(tmp_path / "x")
    assert not found and "cut off" in damage


def test_compressed_files_say_so(tmp_path: Path) -> None:
    plain = shard(tmp_path / "shard", RECORDS).read_bytes()
    (tmp_path / "x").write_bytes(gzip.compress(plain))
    assert "gzip" in read_all(tmp_path / "x")[1]
    # a plain record whose length begins with gzip's two bytes is none
    long = shard(tmp_path / "long", [bytes(0x8B1F)])
    assert long.read_bytes()[:2] == b"\x1f\x8b" and read_all(long)[0] == {0: bytes(0x8B1F)}


def test_indexing_reads_no_data(tmp_path: Path) -> None:
    path = shard(tmp_path / "shard", [bytes(10**6)] * 3)

    class Counting(io.FileIO):
        taken = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            Counting.taken += len(data or b"")
            return data or b""

    with Counting(path, "rb") as file:
        assert len(index_shard(file)) == 3 and Counting.taken == 36
