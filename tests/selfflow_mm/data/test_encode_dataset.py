"""Encoding a data set: the same bytes after any stop and with any number of processes; damaged samples set aside."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_mm.cli.main import main
from selfflow_mm.data import latent_parts as module
from selfflow_mm.data.encode_dataset import encode_dataset
from selfflow_mm.data.latents import LatentDataset, is_latents
from selfflow_mm.data.shards import ShardDataset, ShardWriter
from selfflow_mm.data.writing import encode_png, encode_wav
from selfflow_mm.errors import UserError
from selfflow_tokenizers import TokenStream, load_tokenizer
from selfflow_tokenizers.media import Audio, Image


class Corner:
    """A tokenizer of one token: the first numbers of an image or a sound. 255 in a picture's corner is too much."""

    def __init__(self, modality: str) -> None:
        self.spec = SimpleNamespace(name=f"corner-{modality}", modality=modality)

    def encode(self, media: list[Any]) -> TokenStream:
        rows = [m.pixels[0, 0].float() if isinstance(m, Image) else m.waveform[0, :3] for m in media]
        if any(isinstance(m, Image) and int(m.pixels[0, 0, 0]) == 255 for m in media):
            raise UserError("too bright")
        return TokenStream.dense(torch.stack(rows)[:, None], torch.zeros(1, 4))


CORNERS = {"image": Corner("image"), "audio": Corner("audio")}
NAMES = {"image": "i", "audio": "a"}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def caption_of(index: int) -> str:
    """A caption with what breaks lines elsewhere."""
    return f"sample {index}:\u2028 \u00fcber\x85 two\nlines"


def write(folder: Path, kinds: list[str]) -> ShardDataset:
    """A data set of samples that are an ``image``, a sound (``audio``), ``both``, ``damaged`` or ``bright``."""
    with ShardWriter(folder, samples_per_shard=5, info={"modalities": ["image", "audio"]}) as writer:
        for i, kind in enumerate(kinds):
            pixels = torch.full((2, 2, 3), 255 if kind == "bright" else i, dtype=torch.uint8)
            image = b"nothing" if kind == "damaged" else encode_png(Image(pixels))
            sound = encode_wav(Audio(torch.full((1, 40), i / 100), 8000))
            content = {"png": image, "wav": sound}
            if kind in ("image", "audio"):
                content = {"png": image} if kind == "image" else {"wav": sound}
            writer.add(f"{i:04d}", content, {"captions": [caption_of(i)] * (i % 3)})
    return ShardDataset(folder)


class Row:
    """A tokenizer of pictures that makes a token of each pixel: its colour, at its row and column."""

    spec = SimpleNamespace(name="row", modality="image")

    def encode(self, media: list[Image]) -> TokenStream:
        if any(int(m.pixels[0, 0, 0]) == 255 for m in media):
            raise UserError("too bright")
        rows = []
        for m in media:
            height, width, _ = m.pixels.shape
            axes = (torch.zeros(1), torch.arange(height).float(), torch.arange(width).float(), torch.zeros(1))
            places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 4)
            rows.append(TokenStream.dense(m.pixels.view(1, -1, 3).float(), places))
        return TokenStream.pad(rows)


class Killed(BaseException):
    """As good as a kill: nothing of ours catches it."""


@settings(max_examples=12)
@given(
    kinds=st.lists(st.sampled_from(["image", "audio", "both", "damaged", "bright"]), min_size=2, max_size=14),
    part=st.integers(1, 6),
    batch=st.integers(1, 4),
    stops=st.lists(st.integers(0, 12), max_size=2),
)
def test_any_samples_any_stops_the_same_bytes(tmp_path_factory, kinds, part, batch, stops):
    """The job dies before a file gets its name, several times, and ends as if it had not."""
    root = tmp_path_factory.mktemp("any")
    kinds[0] = "both"
    data = write(root / "data", kinds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PART", part)
        patch.setattr(module, "BATCH", batch)
        whole = encode_dataset(data, CORNERS, NAMES, root / "whole")
        for stop in stops:
            real, left = module._put, [stop]

            def dies(beside: Path, path: Path, real: Any = real, left: list[int] = left) -> None:
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                real(beside, path)

            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(module, "_put", dies)
                with suppress(Killed):
                    encode_dataset(data, CORNERS, NAMES, root / "cut")
                if is_latents(root / "cut") and not (root / "cut/latents.json").exists():
                    with pytest.raises(UserError, match="is not encoded to its end"):
                        LatentDataset(root / "cut")
        encode_dataset(data, CORNERS, NAMES, root / "cut")
    assert files(root / "whole") == files(root / "cut")
    good = [i for i, kind in enumerate(kinds) if kind not in ("damaged", "bright")]
    assert whole.samples == len(kinds)
    assert whole.having(("image",)) == [i for i in good if kinds[i] != "audio"]
    assert whole.having(("audio",)) == [i for i in good if kinds[i] != "image"]
    assert [item.id for item in whole.left_out] == [i for i in range(len(kinds)) if i not in good]
    for i in whole.having(("image",)):
        assert whole.stream("image", [i]).values.unique().tolist() == [i]
    assert whole.captions == [(caption_of(i),) * (i % 3) if i in good else () for i in range(len(kinds))]


@settings(max_examples=15)
@given(
    sizes=st.lists(st.sampled_from([(1, 4), (4, 1), (2, 2), (2, 3), "bright"]), min_size=1, max_size=14),
    part=st.integers(1, 6),
    batch=st.integers(1, 4),
    stop=st.integers(0, 8),
)
def test_any_sizes_any_stop_the_same_bytes(tmp_path_factory, sizes, part, batch, stop):
    """Every picture has its own pixels at their own places, whatever others were encoded with it."""
    root = tmp_path_factory.mktemp("sizes")
    sizes[0] = (2, 2)
    with ShardWriter(root / "data", info={"modalities": ["image"]}) as writer:
        for i, size in enumerate(sizes):
            height, width = (1, 1) if size == "bright" else size
            pixels = torch.arange(i, i + 3 * height * width).view(height, width, 3)
            pixels = pixels if size != "bright" else torch.full_like(pixels, 255)
            writer.add(f"{i}", {"png": encode_png(Image(pixels.to(torch.uint8)))}, {"captions": []})
    data = ShardDataset(root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PART", part)
        patch.setattr(module, "BATCH", batch)
        whole = encode_dataset(data, {"image": Row()}, {"image": "r"}, root / "whole")
        real, left = module._put, [stop]

        def dies(beside: Path, path: Path) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            real(beside, path)

        with pytest.MonkeyPatch.context() as inner, suppress(Killed):
            inner.setattr(module, "_put", dies)
            encode_dataset(data, {"image": Row()}, {"image": "r"}, root / "cut")
        encode_dataset(data, {"image": Row()}, {"image": "r"}, root / "cut")
    assert files(root / "whole") == files(root / "cut")
    good = {i: size for i, size in enumerate(sizes) if size != "bright"}
    assert whole.having(("image",)) == list(good)
    for i, (height, width) in good.items():
        stream = whole.stream("image", [i])
        assert whole.tokens("image", i) == height * width and torch.equal(stream.positions[0], whole.place("image", i))
        assert stream.values.flatten().tolist() == list(range(i, i + 3 * height * width))
        assert stream.positions[0, :, 1:3].tolist() == [[y, x] for y in range(height) for x in range(width)]
    buckets = whole.buckets(("image",))
    assert [ids for ids in buckets.values()] == [
        [i for i in good if good[i] == size] for size in dict.fromkeys(good.values())
    ]
    about = json.loads((root / "whole/latents.json").read_text())
    most = max(dict.fromkeys(good.values()), key=list(good.values()).count)
    if len(buckets) == 1:
        assert about["version"] == 1 and "shapes" not in about
    else:
        assert about["version"] == 2 and sum(shape["samples"] for shape in about["shapes"]["image"]) == len(good)
        a, b = (ids[0] for ids in list(buckets.values())[:2])
        with pytest.raises(UserError, match="differ in shape"):
            whole.stream("image", [a, b])
    assert (about["sizes"]["height"], about["sizes"]["width"]) == most


def test_what_a_stop_at_the_very_end_leaves_is_swept(tmp_path, monkeypatch):
    data = write(tmp_path / "data", ["both"] * 3)
    encode_dataset(data, CORNERS, NAMES, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module, "sweep", lambda _: (_ for _ in ()).throw(Killed))
        encode_dataset(data, CORNERS, NAMES, tmp_path / "cut")
    assert (tmp_path / "cut/draft.json").exists() and LatentDataset(tmp_path / "cut").samples == 3
    encode_dataset(data, CORNERS, NAMES, tmp_path / "cut")
    assert files(tmp_path / "whole") == files(tmp_path / "cut")


def test_what_is_damaged_is_listed_with_shard_key_and_reason(tmp_path, capsys):
    data = write(tmp_path / "data", ["both"] * 6 + ["damaged", "bright"])
    encode_dataset(data, CORNERS, NAMES, tmp_path / "x")
    rows = [json.loads(line) for line in (tmp_path / "x/quarantine.jsonl").read_text().splitlines()]
    assert [(r["id"], r["shard"], r["key"]) for r in rows] == [
        (6, "shard-000001.tar", "0006"),
        (7, "shard-000001.tar", "0007"),
    ]
    assert "is damaged" in rows[0]["reason"] and rows[1]["reason"] == "its image cannot be encoded: too bright"
    assert main(["inspect", str(tmp_path / "x")]) == 0
    said = capsys.readouterr().out
    assert "left out  2 samples" in said and "shard-000001.tar 0007: its image cannot be encoded" in said
    assert "tokenizer corner-image (hash i)" in said


def test_a_data_set_of_which_nothing_can_be_encoded_is_an_error(tmp_path):
    data = write(tmp_path / "data", ["bright"] * 5)
    with pytest.raises(UserError, match="none of the first 5 samples .*: its image cannot be encoded: too bright"):
        encode_dataset(data, CORNERS, NAMES, tmp_path / "x")


def test_latents_that_are_not_finite_are_set_aside(tmp_path, monkeypatch):
    data = write(tmp_path / "data", ["both"] * 4)
    real = Corner.encode

    def spoils(self: Corner, media: list[Any]) -> TokenStream:
        stream = real(self, media)
        return TokenStream.dense(torch.where(stream.values == 2, 1e6, stream.values), stream.positions)

    monkeypatch.setattr(Corner, "encode", spoils)  # 1e6 is too large for float16
    found = encode_dataset(data, CORNERS, NAMES, tmp_path / "x")
    assert found.having(("image",)) == found.having(("audio",)) == [0, 1, 3]
    assert found.left_out[0].reason == "its image latents are not finite"


def test_samples_of_another_place_in_time_are_another_shape(tmp_path, monkeypatch):
    """As many tokens at other seconds: a clip of another rate."""
    data = write(tmp_path / "data", ["both"] * 4)
    real = Corner.encode

    def later(self: Corner, media: list[Any]) -> TokenStream:
        stream = real(self, media)
        places = stream.values[..., :1].round().clamp(max=1).expand(-1, -1, 4) * (self.spec.modality == "image")
        return TokenStream.dense(stream.values, places)

    monkeypatch.setattr(Corner, "encode", later)
    found = encode_dataset(data, CORNERS, NAMES, tmp_path / "x")
    assert found.buckets(("image",)) == {"image 1": [0], "image@1 1": [1, 2, 3]}
    assert found.buckets(("audio",)) == {"audio 1": [0, 1, 2, 3]}
    assert [found.place("image", i).tolist() for i in (0, 3)] == [[[0.0] * 4], [[1.0] * 4]]


def test_another_data_set_of_the_same_name_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART", 2)
    data = write(tmp_path / "data", ["both"] * 4)
    monkeypatch.setattr(module, "_put", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        encode_dataset(data, CORNERS, NAMES, tmp_path / "x")
    monkeypatch.undo()
    encode_dataset(data, CORNERS, NAMES, tmp_path / "x")
    for file in (tmp_path / "data").iterdir():
        file.unlink()
    other = write(tmp_path / "data", ["both"] * 3 + ["image"])
    with pytest.raises(UserError, match="holds latents of another contents"):
        encode_dataset(other, CORNERS, NAMES, tmp_path / "x")


def test_a_part_that_was_cut_short_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART", 2)
    data = write(tmp_path / "data", ["both"] * 4)
    encode_dataset(data, CORNERS, NAMES, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module.LatentParts, "close", lambda *_: (_ for _ in ()).throw(Killed))
        encode_dataset(data, CORNERS, NAMES, tmp_path / "cut")
    part = tmp_path / "cut/part-00001.safetensors"
    part.write_bytes(part.read_bytes()[:-8])
    encode_dataset(data, CORNERS, NAMES, tmp_path / "cut")
    assert files(tmp_path / "whole") == files(tmp_path / "cut")


def test_a_full_disk_is_a_sentence_and_no_end(small_clips, small_tokenizers, tmp_path, monkeypatch, capsys):
    command = ["encode", str(small_clips), str(tmp_path / "x"), "--audio", small_tokenizers["audio"], "--workers", "0"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_save", full)
        assert main(command) == 2
    assert "stopped: [Errno 28] No space left on device; the same command goes on" in capsys.readouterr().err
    assert main(command) == 0


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    data = write(tmp_path / "data", ["both"] * 2)
    (tmp_path / "x").mkdir()
    (tmp_path / "x/letter.txt").write_text("dear")
    with pytest.raises(UserError, match="is not empty and holds no latents, but letter.txt"):
        encode_dataset(data, CORNERS, NAMES, tmp_path / "x")
    assert files(tmp_path / "x") == {"letter.txt": b"dear"}


def test_processes_write_what_one_writes(small_clips, small_tokenizers, tmp_path, monkeypatch):
    """Three processes, one, and none, with parts and batches that do not divide the ten samples."""
    monkeypatch.setattr(module, "PART", 6)
    monkeypatch.setattr(module, "BATCH", 2)
    data = ShardDataset(small_clips)
    loaded = {m: load_tokenizer(small_tokenizers[m]) for m in ("image", "video", "audio")}
    hashes = dict.fromkeys(loaded, "h")
    for workers in (0, 1, 3):
        folder = tmp_path / str(workers)
        encode_dataset(data, loaded, hashes, folder, workers=workers, sources=small_tokenizers, load=load_tokenizer)
    assert files(tmp_path / "0") == files(tmp_path / "1") == files(tmp_path / "3")
    assert LatentDataset(tmp_path / "3").having(("video", "audio")) == list(range(8))


def test_processes_write_several_sizes_as_one_does(mixed_clips, small_tokenizers, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART", 5)
    monkeypatch.setattr(module, "BATCH", 3)
    command = ["encode", str(mixed_clips), "--video", small_tokenizers["video"], "--audio", small_tokenizers["audio"]]
    for workers in ("0", "2"):
        assert main([*command, "--out", str(tmp_path / workers), "--workers", workers, "--device", "cpu"]) == 0
    assert files(tmp_path / "0") == files(tmp_path / "2")
    assert len(LatentDataset(tmp_path / "2").buckets(("video",))) == 3


#: A tokenizer, as an expression, whose process ends at clip 3 (its rectangle has 75 in red).
DEADLY = """(lambda real: type("Deadly", (), {"spec": real.spec, "encode": lambda self, media:
__import__("os")._exit(3) if any(abs(int(m.frames[0, 4, 12, 0]) - 75) < 10 for m in media)
else real.encode(media)})())(__import__("selfflow_tokenizers").load_tokenizer(PATH))"""


def test_a_sample_that_kills_its_process_costs_itself(small_clips, small_tokenizers, tmp_path):
    loaded = {"video": load_tokenizer(small_tokenizers["video"])}
    source = {"video": DEADLY.replace("PATH", repr(small_tokenizers["video"]))}
    arguments: dict[str, Any] = {"workers": 1, "load": eval}
    data = ShardDataset(small_clips)
    found = encode_dataset(data, loaded, {"video": "h"}, tmp_path / "x", sources=source, **arguments)
    assert found.having(("video",)) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert [item.key for item in found.left_out] == ["000003"] and "died" in found.left_out[0].reason


KILLED = """
import os, signal, sys
from selfflow_mm.cli.main import main
from selfflow_mm.data import latent_parts as module
module.PART, module.BATCH = 4, 2
real, left = module._put, [int(sys.argv[1])]
def dies(beside, path):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    real(beside, path)
module._put = dies
sys.exit(main(sys.argv[2:]))
"""


def test_the_command_goes_on_after_a_real_kill(small_clips, small_tokenizers, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "PART", 4)
    monkeypatch.setattr(module, "BATCH", 2)
    named = ["--video", small_tokenizers["video"], "--audio", small_tokenizers["audio"], "--workers", "0"]
    command = ["encode", str(small_clips), str(tmp_path / "cut"), *named, "--device", "cpu"]
    # Names are given to the draft, the first part, its json; the second part is on the disk and has none.
    killed = subprocess.run([sys.executable, "-c", KILLED, "3", *command], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert sorted(files(tmp_path / "cut")) == [
        "draft.json",
        "part-00000.json",
        "part-00000.safetensors",
        "part-00001.safetensors.tmp",
    ]
    assert main(["inspect", str(tmp_path / "cut")]) == 0
    assert "unfinished latents of 10 samples" in capsys.readouterr().out
    kept = (tmp_path / "cut/part-00000.safetensors").stat().st_mtime_ns
    assert main(command) == 0
    assert (tmp_path / "cut/part-00000.safetensors").stat().st_mtime_ns == kept
    whole = ["encode", str(small_clips), str(tmp_path / "whole"), *named, "--device", "cpu"]
    assert main(whole) == 0
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    capsys.readouterr()
    assert main(command) == 0  # done already
    assert "latents of 10 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{data}", "x"], "name a tokenizer with --video"),
        (["{data}", "--video", "tiny/video"], "say once where the result goes"),
        (["{data}", "x", "--out", "y", "--video", "tiny/video"], "say once where the result goes"),
        (["{data}", "x", "--video", "tiny/video", "--size", "32"], "--size is for media files"),
        (["{data}", "x", "--video", "tiny/video", "--workers", "-1"], "--workers is 0 or more"),
        (["{data}", "x", "--video", "tiny/video", "--text", "bytes"], "needs no stored embeddings"),
        (["{data}", "x", "--video", "tiny/video", "--text-tokens", "9"], "--text-tokens is for the encoder"),
        (["{data}", "x", "--video", "tiny/video", "--tokenizer", "small"], "there is no tokenizer 'small'"),
        (["{data}", "x", "--video", "tiny/audio"], "is a tokenizer of audio"),
        (
            ["{data}/dataset.json", "x.safetensors", "--video", "tiny/video", "--workers", "2"],
            "--workers is for data sets",
        ),
        (["{data}", "{data}/dataset.json", "--video", "tiny/video"], "is a file; the latents"),
        (["none.tar", "x", "--video", "tiny/video"], "no data set at 'none.tar'"),
    ],
)
def test_what_the_command_refuses(
    small_clips: Path,
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["encode", *(a.format(data=small_clips) for a in arguments)]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def of_kinds(folder: Path) -> ShardDataset:
    """Pictures whose captions' kinds are told, as a list or a word; are not; are too few; or that are damaged."""
    stories: list[dict[str, Any]] = [
        {"captions": ["a", "b"], "caption_kinds": ["full", "short"]},
        {"captions": ["c"], "caption_kinds": "short"},
        {"captions": ["d"]},
        {"captions": ["e", "f"], "caption_kinds": ["full"]},
        {"captions": ["damaged"], "caption_kinds": ["full"]},
        {"captions": [], "caption_kinds": []},
        {"captions": ["g", "h"], "caption_kinds": ["full", "short"]},
    ]
    with ShardWriter(folder, info={"modalities": ["image"]}) as writer:
        for i, story in enumerate(stories):
            image = encode_png(Image(torch.full((2, 2, 3), i, dtype=torch.uint8)))
            writer.add(f"{i}", {"png": b"nothing" if story.get("captions") == ["damaged"] else image}, story)
    return ShardDataset(folder)


IMAGE = {"image": CORNERS["image"]}
#: Of these samples.
KINDS = [("full", "short"), ("short",), (), (), (), (), ("full", "short")]


def test_kinds_of_captions_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "PART", 3)
    data = of_kinds(tmp_path / "data")
    assert [data[i].caption_kinds for i in (0, 1, 2, 3, 5, 6)] == [KINDS[i] for i in (0, 1, 2, 3, 5, 6)]
    latents = encode_dataset(data, IMAGE, {"image": "i"}, tmp_path / "x")
    assert latents.caption_kinds == LatentDataset(tmp_path / "x").caption_kinds == KINDS
    assert latents.captions[1] == ("c",) and latents.captions[4] == ()
    assert LatentDataset(tmp_path / "x", max_samples=2).caption_kinds == KINDS[:2]
    assert latents.about["caption_kinds"] == {"full": 2, "short": 3}
    assert main(["inspect", str(tmp_path / "x")]) == 0
    assert "captions  8 wordings for 5 samples (2 full, 3 short)" in capsys.readouterr().out
    (tmp_path / "x/caption_kinds.jsonl").unlink()
    with pytest.raises(UserError, match="caption_kinds.jsonl is missing; copy"):
        LatentDataset(tmp_path / "x")


def test_a_data_set_without_kinds_is_encoded_as_in_earlier_releases(tmp_path):
    encode_dataset(write(tmp_path / "data", ["both"] * 3), CORNERS, NAMES, tmp_path / "x")
    assert "caption_kinds.jsonl" not in files(tmp_path / "x")
    assert "caption_kinds" not in json.loads((tmp_path / "x/latents.json").read_text())
    assert LatentDataset(tmp_path / "x").caption_kinds == [(), (), ()]


def test_a_job_that_an_earlier_release_began_goes_on(tmp_path, monkeypatch):
    """Its parts have no kinds; those that follow have."""
    monkeypatch.setattr(module, "PART", 2)
    monkeypatch.setattr(module, "BATCH", 2)
    data, real = of_kinds(tmp_path / "data"), module._put

    def dies_at_the_second_part(beside: Path, path: Path) -> None:
        if path.name.startswith("part-00001"):
            raise Killed
        real(beside, path)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module, "_put", dies_at_the_second_part)
        encode_dataset(data, IMAGE, {"image": "i"}, tmp_path / "x")
    side = tmp_path / "x/part-00000.json"
    old = {k: v for k, v in json.loads(side.read_text()).items() if k != "caption_kinds"}
    side.write_text(json.dumps(old))
    assert encode_dataset(data, IMAGE, {"image": "i"}, tmp_path / "x").caption_kinds == [(), (), *KINDS[2:]]
