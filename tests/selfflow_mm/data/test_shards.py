"""Shards are read by the webdataset library and by tarfile as by us; foreign shards open directly."""

from __future__ import annotations

import io
import json
import multiprocessing
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from selfflow_mm.data.shards import ShardDataset, ShardWriter
from selfflow_mm.data.tarindex import index_tar
from selfflow_mm.data.writing import encode_mp4, encode_png, encode_wav
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Image

INFO = {"modalities": ["audio"], "audio": {"rate": 8000, "channels": 1}, "created_by": "a test"}


def sound(value: float) -> Audio:
    return Audio(torch.full((1, 80), value), 8000)


def write(folder, samples=7, per_shard=3):
    with ShardWriter(folder, samples_per_shard=per_shard, info=INFO) as writer:
        for i in range(samples):
            writer.add(f"{i:04d}", {"wav": encode_wav(sound(i / 16))}, {"captions": [f"number {i}", "ü"], "n": i})
    return folder


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def test_round_trip(tmp_path):
    dataset = ShardDataset(write(tmp_path / "d"))
    assert len(dataset) == 7 and dataset.info["samples"] == 7 and dataset.info["audio"] == INFO["audio"]
    assert [s["samples"] for s in dataset.info["shards"]] == [3, 3, 1]
    for i in (6, 0, 4, -1):
        sample, n = dataset[i], i % 7
        assert (sample.id, sample.key, sample.captions, sample.meta["n"]) == (n, f"{n:04d}", (f"number {n}", "ü"), n)
        assert torch.equal(sample.audio.waveform, sound(n / 16).waveform)
        assert sample.video is None and sample.image is None
        assert dataset.captions(i) == sample.captions
    with pytest.raises(IndexError):
        dataset[7]
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["dataset.json"] + [
        f"shard-{i:06d}.tar" for i in range(3)
    ]


def test_webdataset_reads_ours(tmp_path):
    import webdataset

    folder = write(tmp_path / "d")
    urls = [str(p) for p in sorted(folder.glob("*.tar"))]
    found = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [s["__key__"] for s in found] == [f"{i:04d}" for i in range(7)]
    assert json.loads(found[3]["json"]) == {"version": 1, "captions": ["number 3", "ü"], "n": 3}
    assert found[3]["wav"] == encode_wav(sound(3 / 16))


def test_same_samples_same_bytes(tmp_path):
    one, two = (write(tmp_path / name) for name in ("a", "b"))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_nothing_half_written(tmp_path):
    with pytest.raises(RuntimeError), ShardWriter(tmp_path / "d", info=INFO) as writer:
        writer.add("0", {"wav": b"x"}, {"captions": []})
        raise RuntimeError
    assert list((tmp_path / "d").iterdir()) == []
    write(tmp_path / "e")
    with pytest.raises(UserError, match="already holds"):
        ShardWriter(tmp_path / "e", info=INFO)


@pytest.mark.parametrize(
    ("key", "files", "meta"),
    [
        ("a.b", {"wav": b""}, {"captions": []}),
        ("taken", {"wav": b""}, {"captions": []}),
        ("a", {}, {"captions": []}),
        ("a", {"json": b""}, {"captions": []}),
        ("a", {"wav": b""}, {}),
        ("a", {"wav": b""}, {"captions": "text"}),
    ],
)
def test_writer_refuses(tmp_path, key, files, meta):
    with ShardWriter(tmp_path / "d", info=INFO) as writer:
        writer.add("taken", {"wav": b""}, {"captions": []})
        with pytest.raises(UserError):
            writer.add(key, files, meta)


def _sum(dataset, index):
    return float(dataset[index].audio.waveform.sum())


def test_threads_forks_and_pickles(tmp_path):
    dataset = ShardDataset(write(tmp_path / "d"))
    expected = [_sum(dataset, i) for i in range(7)]
    order = np.random.default_rng(0).integers(0, 7, 200).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: _sum(dataset, i), order)) == [expected[i] for i in order]
    copy = pickle.loads(pickle.dumps(dataset))
    assert [_sum(copy, i) for i in range(7)] == expected
    # Forked readers share the open files: interleaved reads must not disturb each other.
    fork = multiprocessing.get_context("fork")
    wrong = fork.Value("i", 0)

    def read_all(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, 7, 300).tolist():
            if json.loads(dataset.raw(i).files["json"])["n"] != i:
                wrong.value += 1

    children = [fork.Process(target=read_all, args=(seed,)) for seed in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [c.exitcode for c in children] == [0, 0, 0] and wrong.value == 0


def test_every_kind_of_medium(tmp_path, ramp, clicks):
    video, image = ramp(5), Image(torch.randint(0, 256, (6, 8, 3), dtype=torch.uint8))
    jpeg = io.BytesIO()
    PillowImage.fromarray(image.pixels.numpy()).save(jpeg, "JPEG")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "dir.v1/a.mp4", encode_mp4(video, clicks(1, [0.1])))
        add(tar, "dir.v1/a.txt", b"  a caption\n")
        add(tar, "dir.v1/b.png", encode_png(image))
        add(tar, "dir.v1/b.cls", b"1")
        add(tar, "dir.v1/c.left.wav", encode_wav(sound(0.5)))
        add(tar, "dir.v1/c.json", b'{"caption": "one", "more": 2}')
        add(tar, "dir.v1/d.JPG", jpeg.getvalue())
        add(tar, "dir.v1/d.cls", b"7")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    dataset = ShardDataset(tmp_path)
    a, b, c, d = (dataset[i] for i in range(4))
    assert a.video.frames.shape == video.frames.shape and a.audio.rate == 16_000 and a.captions == ("a caption",)
    assert torch.equal(b.image.pixels, image.pixels) and b.captions == ("dog",)
    assert torch.equal(c.audio.waveform, sound(0.5).waveform) and c.captions == ("one",) and c.meta["more"] == 2
    assert np.array_equal(d.image.pixels.numpy(), np.array(PillowImage.open(jpeg))) and d.captions == ("7",)
    assert [s.key for s in (a, b, c, d)] == [f"dir.v1/{k}" for k in "abcd"]
    assert dataset.info["modalities"] == ["video", "audio", "image"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.text("abcäé/", min_size=1, max_size=120), st.binary(max_size=1100)), min_size=1, max_size=6),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_index_agrees_with_tarfile(tmp_path_factory, members, form):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    names = [f"{i}{name.strip('/') or 'x'}.bin" for i, (name, _) in enumerate(members)]
    try:
        with tarfile.open(path, "w", format=form) as tar:
            for name, (_, data) in zip(names, members, strict=True):
                add(tar, name, data)
    except ValueError:  # too long a name for ustar
        return
    groups = index_tar(path)
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, ending = member.name.rpartition(".")
            offset, size = groups[key][ending]
            assert content[offset : offset + size] == tar.extractfile(member).read()
    assert len(groups) == len(members)


def test_bad_samples_name_shard_and_key(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        add(tar, "broken.wav", b"no sound")
        add(tar, "odd.wav", encode_wav(sound(0.1)))
        add(tar, "odd.json", b"{")
    dataset = ShardDataset(tmp_path)
    for index, key in ((0, "broken"), (1, "odd")):
        with pytest.raises(UserError, match=f"'{key}' of .*s.tar"):
            dataset[index]


def test_bad_data_sets(tmp_path):
    for name in ("missing", "*.tar"):
        with pytest.raises(UserError, match="no data set"):
            ShardDataset(tmp_path / name)
    folder = write(tmp_path / "d")
    about = folder / "dataset.json"
    text = about.read_text()
    about.write_text(text.replace('"version": 1', '"version": 99'))
    with pytest.raises(UserError, match="99"):
        ShardDataset(folder)
    about.write_text("{")
    with pytest.raises(UserError, match="dataset.json"):
        ShardDataset(folder)
    about.write_text(text)
    shard = folder / "shard-000001.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[:700])
    with pytest.raises(UserError, match="shard-000001"):
        ShardDataset(folder)
    shard.write_bytes(b"not a tar at all")
    with pytest.raises(UserError, match="shard-000001"):
        ShardDataset(folder)
    shard.unlink()
    with pytest.raises(UserError, match="missing"):
        ShardDataset(folder)


def test_fsdd(shared):
    import scipy.io.wavfile

    path = shared("fsdd/fsdd-test-00000.tar")
    dataset = ShardDataset(path.parent / "fsdd-test-*.tar")
    with tarfile.open(path) as tar:
        names = [m.name for m in tar if m.name.endswith(".wav")]
        assert len(dataset) == len(names) == 300
        for index in (0, 150, 299):
            rate, pcm = scipy.io.wavfile.read(io.BytesIO(tar.extractfile(names[index]).read()))
            about = json.loads(tar.extractfile(names[index].replace(".wav", ".json")).read())
            sample = dataset[index]
            assert sample.audio.rate == rate == 8000 and sample.captions == (about["text"],)
            assert np.allclose(sample.audio.waveform[0].numpy(), pcm / 32768, atol=1e-7)


def test_cifar10(shared):
    path = shared("cifar10/cifar10-test-00000.tar")
    dataset = ShardDataset(str(path))
    classes = shared("cifar10/classes.txt").read_text().split()
    assert len(dataset) == 10_000 and dataset.info["modalities"] == ["image"]
    for index in (0, 5000, 9999):
        sample, raw = dataset[index], dataset.raw(index)
        assert np.array_equal(sample.image.pixels.numpy(), np.array(PillowImage.open(io.BytesIO(raw.files["jpg"]))))
        assert sample.captions == (classes[int(raw.files["cls"])],)
        assert sample.captions[0] in sample.key  # the file names carry the class, too
