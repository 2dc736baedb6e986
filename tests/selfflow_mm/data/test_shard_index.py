"""The arrays hold what the dictionaries did, in a tenth of the memory, and come back from a file."""

from __future__ import annotations

import io
import tarfile
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_mm.data.shard_index import ShardIndex
from selfflow_mm.data.tarindex import index_tar

PLACES = st.tuples(st.integers(0, 2**62), st.integers(0, 2**62))
GROUPS = st.dictionaries(
    st.text("abcäé/\udcff", min_size=1),
    st.dictionaries(st.sampled_from(["mp4", "json", "txt", "wav"]), PLACES),
    max_size=9,
)


def as_dictionaries(index: ShardIndex) -> dict:
    return {index.key(row): index.members(row) for row in range(len(index))}


@settings(max_examples=80, deadline=None)
@given(GROUPS)
def test_arrays_hold_what_dictionaries_did(tmp_path_factory, groups):
    index = ShardIndex.of(groups)
    found = as_dictionaries(index)
    assert found == groups and list(found) == list(groups)
    assert [list(m) for m in found.values()] == [list(m) for m in groups.values()]
    path = tmp_path_factory.mktemp("index") / "folder" / "a.safetensors"
    index.save(path)
    loaded = ShardIndex.load(path)
    assert loaded is not None and as_dictionaries(loaded) == groups
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_is_no_index_is_not_loaded(tmp_path):
    assert ShardIndex.load(tmp_path / "none") is None
    (tmp_path / "x").write_bytes(b"\1\0\0\0\0\0\0\0{")
    assert ShardIndex.load(tmp_path / "x") is None


def test_a_sample_takes_less_than_a_hundred_bytes():
    groups = {f"{i:09d}": {"mp4": (2048 * i, 1000), "json": (2048 * i + 1024, 100)} for i in range(20_000)}
    tracemalloc.start()
    index = ShardIndex.of(groups)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == 20_000 and held < 100 * 20_000


def test_times_in_fractions_of_a_second_are_read_without_tarfile(tmp_path, monkeypatch):
    """The webdataset library writes them: each member has a PAX header."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for i in range(5):
            info = tarfile.TarInfo(f"{i}{'x' * 60 * i}/é.wav")
            info.mtime, info.size = 1.5, 700 * i
            tar.addfile(info, io.BytesIO(bytes([i]) * 700 * i))
    with tarfile.open(path) as tar:
        expected = {m.name.removesuffix(".wav"): {"wav": (m.offset_data, m.size)} for m in tar}
    monkeypatch.setattr(tarfile, "open", None)
    assert index_tar(path) == expected
