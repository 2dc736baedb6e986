"""Data sets on stores are those on the disk, at few requests, through failures, from threads and processes."""

from __future__ import annotations

import functools
import http.server
import io
import json
import multiprocessing
import pickle
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_mm.cli.main import main
from selfflow_mm.data.prepare import prepare
from selfflow_mm.data.prepare_options import PrepareOptions
from selfflow_mm.data.retrying import Unreachable, retried
from selfflow_mm.data.shards import ShardDataset, ShardWriter
from selfflow_mm.data.stores import BlockReader, StorePath, is_url, place
from selfflow_mm.data.writing import encode_wav
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio

from .flaky_store import FlakyStore, upload

INFO = {"modalities": ["audio"], "audio": {"rate": 8000, "channels": 1}, "created_by": "a test"}


def sound(value: float, samples: int = 800) -> bytes:
    return encode_wav(Audio(torch.full((1, samples), value), 8000))


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFFLOW_CACHE", str(tmp_path / "cache"))
    FlakyStore.reset()
    return FlakyStore


@pytest.fixture
def folder(tmp_path) -> Path:
    with ShardWriter(tmp_path / "d", samples_per_shard=3, info=INFO) as writer:
        for i in range(7):
            writer.add(f"{i:04d}", {"wav": sound(i / 16)}, {"captions": [f"number {i}", "ü"], "n": i})
    return tmp_path / "d"


@pytest.fixture
def no_waiting(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    monkeypatch.setattr(retried, "__kwdefaults__", {**retried.__kwdefaults__, "sleep": waits.append})
    return waits


def assert_same(a: ShardDataset, b: ShardDataset) -> None:
    assert len(a) == len(b) > 0 and a.info == b.info
    for i in range(len(a)):
        left, right = a[i], b[i]
        assert (left.id, left.key, left.captions, left.meta) == (right.id, right.key, right.captions, right.meta)
        assert torch.equal(left.audio.waveform, right.audio.waveform)
        assert a.raw(i).files == b.raw(i).files and a.captions(i) == b.captions(i)
        assert a.members(i).places == b.members(i).places and a.members(i).shard.name == b.members(i).shard.name


def test_words_that_name_stores():
    assert is_url("s3://b/x") and is_url("simplecache::s3://b/x") and is_url("https://h/a.tar?x=1")
    assert not is_url("C:/data") and not is_url("data/x") and not is_url(Path("s3://b/x"))
    assert place("file:///a/b") == Path("/a/b") and place("x") == Path("x")
    path = StorePath("s3://b/c/a.tar?version=1")
    assert (path.name, path.suffix, str(path.parent), str(path.parent / "d")) == (
        "a.tar",
        ".tar",
        "s3://b/c",
        "s3://b/c/d",
    )


def test_every_form_of_a_data_set_is_as_on_the_disk(folder):
    here = ShardDataset(folder)
    there = ShardDataset(upload(folder, "flaky://bucket/d"))
    assert_same(there, here)
    assert str(there.folder) == "flaky://bucket/d" and there.raw(4).shard == "flaky://bucket/d/shard-000001.tar"
    assert_same(ShardDataset("flaky://bucket/d/"), here)
    assert_same(ShardDataset(f"file://{folder}"), here)
    (folder / "dataset.json").unlink()
    FlakyStore.reset()
    upload(folder, "flaky://bucket/d")
    plain = ShardDataset(folder)
    assert plain.info["format"] == "webdataset"
    for url in ("flaky://bucket/d", "flaky://bucket/d/*.tar", "flaky://bucket/d/shard-{000000..000002}.tar"):
        assert_same(ShardDataset(url), plain)
    assert_same(ShardDataset(str(folder / "shard-{000000..000002}.tar")), plain)
    assert_same(ShardDataset("flaky://bucket/d/shard-000001.tar"), ShardDataset(folder / "shard-000001.tar"))


def test_classes_are_named_on_a_store(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("a.wav", sound(0.5)), ("a.cls", b"1")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert ShardDataset(upload(tmp_path, "flaky://b/c"))[0].captions == ("dog",)


def test_a_second_start_reads_no_headers_and_a_changed_shard_is_read_anew(folder, tmp_path):
    upload(folder, "flaky://b/d")
    first = ShardDataset("flaky://b/d")
    assert FlakyStore.reads(".tar") == 3  # a request a shard: they are small
    FlakyStore.asked.clear()
    again = ShardDataset("flaky://b/d")
    assert FlakyStore.reads(".tar") == 0 and FlakyStore.reads() == 1  # dataset.json
    assert_same(again, first)
    for kept in (tmp_path / "cache/index").iterdir():  # a cache that is damaged is no cache
        kept.write_bytes(b"nothing")
    assert_same(ShardDataset("flaky://b/d"), first)

    other = tmp_path / "other"
    with ShardWriter(other, samples_per_shard=3, info=INFO) as writer:
        for i in range(7):
            writer.add(f"x{i:03d}", {"wav": sound(i / 16, 1600)}, {"captions": []})
    assert_same(ShardDataset(upload(other, "flaky://b/d")), ShardDataset(other))


def test_requests_are_few_whatever_the_members_sizes(tmp_path):
    small, large = 3000, 20
    with tarfile.open(tmp_path / "small.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for i in range(small):
            info = tarfile.TarInfo(f"{i:05d}.wav")
            info.size = 1500
            tar.addfile(info, io.BytesIO(bytes(1500)))
    with tarfile.open(tmp_path / "large.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for i in range(large):
            info = tarfile.TarInfo(f"{i:05d}.wav")
            info.size = 300_000
            tar.addfile(info, io.BytesIO(bytes(300_000)))
    upload(tmp_path, "flaky://b/s")
    assert len(ShardDataset("flaky://b/s/small.tar")) == small
    assert FlakyStore.reads("small.tar") <= 8  # 6.1 MB: 64 + 128 + ... KiB, up to 4 MiB
    assert len(ShardDataset("flaky://b/s/large.tar")) == large
    asked = [(a, b) for what, name, a, b in FlakyStore.asked if what == "read" and name == "large.tar"]
    assert len(asked) <= large + 1 and sum(b - a for a, b in asked) <= 1.5e6  # of 6 MB


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 400_000),
    st.lists(st.tuples(st.integers(0, 400_000), st.integers(-1, 150_000)), min_size=1, max_size=12),
)
def test_blocks_read_what_a_file_would(size, calls):
    data = torch.arange(size, dtype=torch.int64).mul(2654435761).bitwise_and(255).to(torch.uint8).numpy().tobytes()
    FlakyStore.reset()
    upload_bytes(data)
    remote, local = BlockReader(StorePath("flaky://b/x")), io.BytesIO(data)
    for offset, count in calls:
        assert remote.seek(offset) == local.seek(offset)
        assert remote.read(count) == local.read(count) and remote.tell() == local.tell()


def upload_bytes(data: bytes) -> None:
    import fsspec

    fsspec.filesystem("flaky").pipe_file("flaky://b/x", data)


def test_what_fails_for_a_while_is_tried_again(folder, store, no_waiting, capsys):
    upload(folder, "flaky://b/d")
    data = ShardDataset("flaky://b/d")
    store.failures += [ConnectionResetError("gone"), TimeoutError(), OSError("500")]
    assert data[3].key == "0003"
    assert no_waiting == [1, 2, 4]
    assert "shard-000001.tar' failed (ConnectionResetError: gone); again in 1 s" in capsys.readouterr().err


def test_giving_up_names_the_shard_and_is_no_fault_of_the_sample(folder, store):
    upload(folder, "flaky://b/d")
    data = ShardDataset("flaky://b/d", retry_seconds=0)
    store.failures += [OSError("the network is down")]
    with pytest.raises(Unreachable, match=r"flaky://b/d/shard-000002.tar' failed \(OSError: the network is down\)"):
        data[6]
    store.failures += [PermissionError("403")]
    with pytest.raises(Unreachable, match="shard-000002.tar' may not be read: the store says 403"):
        data[6]
    assert data[6].key == "0006"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 12), st.floats(0, 300))
def test_pauses_double_up_to_a_minute_and_end_in_time(failures, seconds):
    now, left = [0.0], [failures]

    def sleep(pause: float) -> None:
        now[0] += pause

    def work() -> str:
        if left[0]:
            left[0] -= 1
            raise OSError("no")
        return "yes"

    pauses = [min(2.0**n, 60) for n in range(failures)]
    try:
        assert retried(work, "it", seconds=seconds, sleep=sleep, clock=lambda: now[0]) == "yes"
        assert sum(pauses[:-1]) < seconds or not failures
        assert now[0] == pytest.approx(min(sum(pauses), seconds))
    except Unreachable:
        assert now[0] == pytest.approx(seconds) and sum(pauses) >= seconds


def test_what_lasts_is_not_tried_again(no_waiting):
    class Answer(Exception):
        def __init__(self, status):
            self.status = status

    for error in (FileNotFoundError("x"), PermissionError("x"), TypeError("x"), Answer(403), Answer(404)):
        with pytest.raises(type(error)):
            retried(lambda error=error: (_ for _ in ()).throw(error), "it")
    assert no_waiting == []
    for error in (Answer(429), Answer(503)):
        with pytest.raises(Unreachable):
            retried(lambda error=error: (_ for _ in ()).throw(error), "it", seconds=0)


def test_bad_places_are_one_sentence(folder, monkeypatch):
    upload(folder, "flaky://b/d")
    for url in ("flaky://b/nothing", "flaky://b/d/*.zip", "flaky://b/d/x-{0..1}"):
        with pytest.raises(UserError, match="no data set at"):
            ShardDataset(url)
    with pytest.raises(UserError, match="flaky://b/d/none.tar' is missing"):
        ShardDataset("flaky://b/d/none.tar")
    with pytest.raises(UserError, match="cannot be opened: Protocol not known: nostore"):
        ShardDataset("nostore://b/d")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match="not installed: pip install s3fs"):
        ShardDataset("s3://b/d")
    (folder / "shard-000001.tar").write_bytes((folder / "shard-000001.tar").read_bytes()[:700])
    upload(folder, "flaky://b/d")
    with pytest.raises(UserError, match="'flaky://b/d/shard-000001.tar' "):
        ShardDataset("flaky://b/d")
    FlakyStore.store.pop("/b/d/shard-000001.tar")
    with pytest.raises(UserError, match="flaky://b/d/shard-000001.tar' is missing"):
        ShardDataset("flaky://b/d")


def test_threads_share_one_and_a_pickle_has_no_connections(folder):
    upload(folder, "flaky://b/d")
    data = ShardDataset("flaky://b/d")
    alone = [data.raw(i).files for i in range(7)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: data.raw(i % 7).files, range(140)))
    assert together == alone * 20
    copy = pickle.loads(pickle.dumps(data))
    assert [copy.raw(i).files for i in range(7)] == alone


def _raw(data: ShardDataset, ids: list[int], results) -> None:
    results.put([data.raw(i).files for i in ids])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_forked_processes_make_file_systems_of_their_own(folder):
    upload(folder, "flaky://b/d")
    data = ShardDataset("flaky://b/d")
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=_raw, args=(data, [6, 0], results))
    child.start()
    assert results.get() == [data.raw(6).files, data.raw(0).files]
    child.join()


class Ranged(http.server.SimpleHTTPRequestHandler):
    """Python's file server, and the ranges that it lacks."""

    def send_head(self):
        file = super().send_head()
        wanted = self.headers.get("Range")
        if wanted and isinstance(file, io.BufferedReader):
            begin, _, end = wanted.removeprefix("bytes=").partition("-")
            data = file.read()[int(begin) : int(end) + 1]
            file.close()
            return io.BytesIO(data)
        return file

    def send_response(self, code, message=None):
        super().send_response(206 if code == 200 and self.headers.get("Range") else code, message)

    def send_header(self, keyword, value):
        if keyword == "Content-Length" and (wanted := self.headers.get("Range")):
            begin, _, end = wanted.removeprefix("bytes=").partition("-")
            value = str(min(int(end) + 1, int(value)) - int(begin))
        super().send_header(keyword, value)

    def log_message(self, *_):
        pass


class Whole(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.parametrize("handler", [Ranged, Whole])
def test_http(folder, handler):
    pytest.importorskip("aiohttp")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder.parent))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/d"
        if handler is Whole:
            with pytest.raises(UserError, match="sends whole files only"):
                ShardDataset(url).raw(0)
        else:
            assert_same(ShardDataset(url), ShardDataset(folder))
            assert len(ShardDataset(f"{url}/shard-{{000000..000002}}.tar")) == 7
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_prepare_reads_a_store(folder, tmp_path):
    upload(folder, "flaky://b/d")
    options = PrepareOptions(seconds=0.1, rate=8000, channels=1)
    prepare("flaky://b/d", tmp_path / "there", options, workers=0)
    prepare(folder, tmp_path / "here", options, workers=0)
    for name in ("shard-000000.tar", "dataset.json"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    FlakyStore.store.pop("/b/d/shard-000001.tar")
    with pytest.raises(UserError, match="shard-000001.tar' is missing"):
        prepare("flaky://b/d", tmp_path / "more", options, workers=0)
    assert not (tmp_path / "more").exists()


def test_inspect_reads_a_store(folder, capsys):
    upload(folder, "flaky://b/d")
    assert main(["inspect", "flaky://b/d"]) == 0
    said = capsys.readouterr().out
    assert "flaky://b/d: 7 samples of audio in 3 shards (selfflow-shards)" in said and "number 0" in said


def test_a_description_on_a_store_is_checked_like_one_on_the_disk(folder):
    about = folder / "dataset.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"version": 99}))
    with pytest.raises(UserError, match="flaky://b/d/dataset.json' has format selfflow-shards 99"):
        ShardDataset(upload(folder, "flaky://b/d"))
