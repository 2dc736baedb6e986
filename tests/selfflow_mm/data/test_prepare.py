"""Every odd file gets its stated treatment and a row in the report; the clips are what the sources say."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from selfflow_mm.cli import main
from selfflow_mm.data.parallel import Crash, ordered_map
from selfflow_mm.data.prepare import prepare
from selfflow_mm.data.prepare_buckets import aspect_buckets, nearest_bucket
from selfflow_mm.data.prepare_clips import fit
from selfflow_mm.data.prepare_options import PrepareOptions
from selfflow_mm.data.prepare_sources import words_of
from selfflow_mm.data.shards import ShardDataset
from selfflow_mm.data.sizes import sizes_at
from selfflow_mm.data.writing import encode_mp4, write_audio, write_image, write_video
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Image, Video

SMALL = PrepareOptions(frames=5, fps=10, height=32, width=32)  # clips of 0.5 s


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, ramp, clicks, make_file, set_display_matrix):
    """One file of every kind that ``prepare`` treats."""
    folder = tmp_path_factory.mktemp("zoo")
    tone = Audio(torch.sin(torch.arange(16_000) / 5).expand(2, -1) * 0.5, 16_000)
    write_video(folder / "good.mp4", ramp(12, fps=10), tone)
    (folder / "good.txt").write_text("a grey ramp\nit gets brighter\n")
    write_video(folder / "sub/silent_film.mp4", ramp(5, fps=10), Audio(torch.zeros(2, 8000), 16_000))
    write_video(folder / "mute.mp4", ramp(5, fps=10))
    write_video(folder / "short.mp4", ramp(3, fps=10))
    write_video(folder / "turned.mp4", Video(_left_bright(), 10))
    set_display_matrix(folder / "turned.mp4", (0, 1, -1, 0))
    make_file(folder / "vfr.mkv", [100] * 8, [0, 40, 240, 260, 300, 560, 600, 800])
    data = encode_mp4(ramp(60, 64, 64))
    (folder / "broken.mp4").write_bytes(data[: len(data) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    make_file(folder / "early_end.mkv", [50] * 25, audio=Audio(tone.waveform[:, :9600], 16_000), audio_codec="flac")
    write_audio(folder / "short.wav", Audio(tone.waveform[:, :4000], 16_000))
    write_audio(folder / "long.wav", Audio(tone.waveform[:, :1].expand(2, 1) + torch.ones(2, 20_000) / 4, 16_000))
    write_audio(folder / "hush.wav", Audio(torch.zeros(1, 8000), 16_000))
    write_image(folder / "tiny.png", Image(torch.full((8, 16, 3), 200, dtype=torch.uint8)))
    (folder / "tiny.json").write_text('{"caption": "small", "licence": "CC0"}')
    (folder / "notes.md").write_text("hello")
    (folder / ".hidden.mp4").write_bytes(b"x")
    return folder


def _left_bright() -> torch.Tensor:
    pixels = torch.zeros(5, 32, 32, 3, dtype=torch.uint8)
    pixels[:, :, :16] = 220
    return pixels


@pytest.fixture(scope="module")
def prepared(zoo, tmp_path_factory):
    target = tmp_path_factory.mktemp("out") / "data"
    report = prepare(zoo, target, SMALL, workers=0)
    return target, {row["source"]: row for row in report.rows}


#: file -> samples, modalities of the first one, what a note says
TREATMENTS = {
    "good.mp4": (2, "va", "left over"),
    "sub/silent_film.mp4": (1, "v", "silent: 1 of 1 clips, kept as picture only"),
    "mute.mp4": (1, "v", "without sound"),
    "short.mp4": (0, "", "too short: 0.30 s of picture"),
    "turned.mp4": (1, "v", "rotated: turned upright"),
    "vfr.mkv": (1, "v", "variable frame rate: resampled to 10"),
    "broken.mp4": (0, "", "unreadable: it is damaged"),
    "empty.mp4": (0, "", "unreadable"),
    "early_end.mkv": (2, "va", "sound too short: it ends before 1 of 2 clips do"),
    "short.wav": (1, "a", "padded: 0.25 s"),
    "long.wav": (3, "a", "padded: 0.25 s"),
    "hush.wav": (0, "", "silent: nothing to hear"),
    "tiny.png": (1, "i", "enlarged"),
    "notes.md": (0, "", "not a media file"),
}


@pytest.mark.parametrize("name", TREATMENTS)
def test_treatment(prepared, name):
    target, rows = prepared
    clips, kinds, note = TREATMENTS[name]
    assert rows[name]["clips"] == clips
    assert any(n.startswith(note) for n in rows[name]["notes"]), rows[name]["notes"]
    samples = [s for s in ShardDataset(target) if s.meta["source"] == name]
    assert len(samples) == clips
    if clips:
        first = samples[0]
        assert "".join(k[0] for k in ("video", "audio", "image") if getattr(first, k) is not None) == kinds
        if first.video is not None:
            assert first.video.frames.shape == (5, 32, 32, 3) and first.video.fps == 10
        if first.audio is not None:
            assert first.audio.waveform.shape == (2, 8000) and first.audio.rate == 16_000
        if first.image is not None:
            assert first.image.pixels.shape == (32, 32, 3)


def test_every_file_has_a_row(prepared, zoo):
    target, rows = prepared
    assert set(rows) == set(TREATMENTS)
    saved = json.loads((target / "report.json").read_text())
    assert {r["source"] for r in saved["rows"]} == set(rows) and saved["skipped"] == 5
    assert not list(target.parent.glob(".*"))
    info = ShardDataset(target).info
    assert info["modalities"] == ["video", "audio", "image"]
    assert info["video"] == {"frames": 5, "height": 32, "width": 32, "fps": 10}


def test_content(prepared):
    """Captions, order in time, direction of turning, sound in step."""
    target, _ = prepared
    samples = {(s.meta["source"], s.meta.get("clip", 0)): s for s in ShardDataset(target)}
    first, second = samples["good.mp4", 0], samples["good.mp4", 1]
    assert first.captions == ("a grey ramp", "it gets brighter") and second.meta["start"] == 0.5
    levels = torch.cat([first.video.frames, second.video.frames]).float().mean((1, 2, 3))
    assert (levels - (10 + 6 * torch.arange(10))).abs().max() < 3
    tone = torch.sin(torch.arange(16_000) / 5) * 0.5
    both = torch.cat([first.audio.waveform[0], second.audio.waveform[0]])
    assert (both - tone)[1500:7500].abs().max() < 0.05 and (both - tone)[9000:15_000].abs().max() < 0.05
    turned = samples["turned.mp4", 0].video.frames
    assert (turned[:, :12] > 190).all() and (turned[:, 20:] < 40).all()  # left becomes top
    assert samples["sub/silent_film.mp4", 0].captions == ("silent film",)
    assert samples["tiny.png", 0].captions == ("small",) and samples["tiny.png", 0].meta["licence"] == "CC0"
    assert samples["long.wav", 2].audio.waveform[:, 4001:].abs().max() == 0


def test_workers_do_not_matter(prepared, zoo, tmp_path):
    prepare(zoo, tmp_path / "data", SMALL, workers=2)
    for path in prepared[0].iterdir():
        assert path.read_bytes() == (tmp_path / "data" / path.name).read_bytes()


def test_tables(tmp_path, ramp, clicks, click_error):
    write_video(tmp_path / "films/a.mp4", ramp(30, fps=10), clicks(3, [1.3]))
    (tmp_path / "list.csv").write_text(
        "path,caption,start,end,licence\nfilms/a.mp4,middle,1.0,2.0,CC0\nfilms/a.mp4,,2.5,,\nnone.mp4,x,,,\n"
        "films/a.mp4,x,2,1,\nfilms/a.mp4,x,soon,,\n"
    )
    report = prepare(tmp_path / "list.csv", tmp_path / "csv", SMALL, workers=0)
    assert [row["clips"] for row in report.rows] == [2, 1, 0, 0, 0]
    middle, _, last = ShardDataset(tmp_path / "csv")
    assert middle.captions == ("middle",) and middle.meta["licence"] == "CC0" and middle.meta["start"] == 1.0
    levels = torch.cat([middle.video.frames, last.video.frames]).float().mean((1, 2, 3))
    expected = torch.tensor([10 + 6.0 * k for k in (*range(10, 15), *range(25, 30))])
    assert (levels - expected).abs().max() < 3
    assert abs(click_error(middle.audio, 0.3)) <= 0.001
    rows = [{"file": "films/a.mp4", "text": "all"}, {"file": "films/a.mp4", "captions": ["one", "two"], "end": 0.5}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prepare(tmp_path / "list.jsonl", tmp_path / "jsonl", SMALL, workers=0)
    dataset = ShardDataset(tmp_path / "jsonl")
    assert [dataset.captions(i) for i in range(len(dataset))] == [("all",)] * 6 + [("one", "two")]
    (tmp_path / "bad.csv").write_text("name,caption\na,b\n")
    with pytest.raises(UserError, match="column 'path' or 'file'"):
        prepare(tmp_path / "bad.csv", tmp_path / "bad", SMALL, workers=0)


def test_tars_and_our_own_shards(prepared, tmp_path, zoo):
    target, _ = prepared
    report = prepare(target, tmp_path / "again", SMALL, workers=0)
    assert not report.skipped
    one, two = ShardDataset(target), ShardDataset(tmp_path / "again")
    assert len(one) == len(two) and [s.captions for s in one] == [s.captions for s in two]
    with tarfile.open(tmp_path / "foreign.tar", "w") as tar:
        tar.add(zoo / "good.mp4", "x.mp4")
        tar.add(zoo / "tiny.png", "x.png")
    several = prepare(tmp_path / "foreign.tar", tmp_path / "foreign", SMALL, workers=0)
    assert any(note.startswith("several media") for note in several.rows[0]["notes"])


def test_modalities(zoo, tmp_path):
    options = PrepareOptions(frames=5, fps=10, height=32, width=32, modalities=("audio",))
    report = prepare(zoo, tmp_path / "sounds", options, workers=0)
    rows = {row["source"]: row for row in report.rows}
    assert rows["mute.mp4"]["clips"] == rows["tiny.png"]["clips"] == 0
    assert "not wanted: it is an image" in rows["tiny.png"]["notes"]
    assert rows["good.mp4"]["clips"] == 2  # 1.2 s: the last 0.2 s are less than half a clip
    dataset = ShardDataset(tmp_path / "sounds")
    assert all(s.video is None and s.audio is not None for s in dataset) and dataset.info["video"] is None


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([16, 48]), st.sampled_from([16, 64]), st.booleans())
def test_fitting(height, width, want_height, want_width, letterbox):
    """Any picture gets the wanted size; its whole is there with a letterbox, and no black without."""
    options = PrepareOptions(height=want_height, width=want_width, letterbox=letterbox)
    new_height, new_width = options.scale(height, width)
    scaled = np.full((new_height, new_width, 3), 7, np.uint8)
    out = fit(scaled, options)
    assert out.shape == (want_height, want_width, 3)
    if letterbox:
        assert new_height <= want_height and new_width <= want_width and (out == 7).sum() == scaled.size
    else:
        assert (out == 7).all()


def test_letterbox(tmp_path):
    write_image(tmp_path / "in/wide.png", Image(torch.full((32, 64, 3), 255, dtype=torch.uint8)))
    options = PrepareOptions(height=32, width=32, letterbox=True)
    prepare(tmp_path / "in", tmp_path / "out", options, workers=0)
    pixels = ShardDataset(tmp_path / "out")[0].image.pixels
    assert pixels[8:24].eq(255).all() and pixels[:8].eq(0).all() and pixels[24:].eq(0).all()


@pytest.fixture(scope="module")
def several(tmp_path_factory, ramp):
    """Films, sounds and pictures of several sizes and lengths, in buckets by the command."""
    root = tmp_path_factory.mktemp("several")
    tone = Audio(torch.sin(torch.arange(16_000) / 5).expand(2, -1) * 0.5, 16_000)
    write_video(root / "in/wide.mp4", ramp(20, 32, 64, fps=10), tone)  # 2 clips of 9 frames, 2 frames left
    write_video(root / "in/tall.mp4", ramp(8, 64, 32, fps=10))  # one of 5 frames
    write_video(root / "in/square.mp4", ramp(5, 40, 44, fps=10))
    write_video(root / "in/short.mp4", ramp(4, 32, 32, fps=10))
    write_audio(root / "in/long.wav", Audio(tone.waveform[:, :15_000], 16_000))  # one of 0.75 s
    write_audio(root / "in/half.wav", Audio(tone.waveform[:, :8_100], 16_000))  # two of 0.25 s
    write_audio(root / "in/little.wav", Audio(tone.waveform[:, :3_000], 16_000))  # filled up to 0.25 s
    for i, (height, width) in enumerate([(30, 90), (100, 40), (64, 64)]):
        write_image(root / f"in/{i}.png", Image(torch.full((height, width, 3), 200, dtype=torch.uint8)))
    options = ["--frames", "9,5", "--seconds", "0.25,0.75", "--fps", "10", "--buckets", "32x32,16x48,48x16"]
    assert main.main(["prepare", str(root / "in"), str(root / "out"), "--workers", "0", *options]) == 0
    return root / "out"


#: file -> what its samples are: frames, height and width of pictures, samples of sounds
SEVERAL = {
    "wide.mp4": [(9, 16, 48)] * 2,
    "tall.mp4": [(5, 48, 16)],
    "square.mp4": [(5, 32, 32)],
    "long.wav": [(12_000,)],
    "half.wav": [(4_000,)] * 2,
    "little.wav": [(4_000,)],
    "0.png": [(16, 48)],
    "1.png": [(48, 16)],
    "2.png": [(32, 32)],
}


def test_each_medium_takes_the_nearest_size_and_the_longest_length(several):
    found: dict[str, list[tuple[int, ...]]] = {}
    for sample in ShardDataset(several):
        if sample.video is not None:
            shape = sample.video.frames.shape[:3]
        elif sample.image is not None:
            shape = sample.image.pixels.shape[:2]
            assert sample.image.pixels.eq(200).all()  # nothing black around it
        else:
            shape = sample.audio.waveform.shape[1:]
        found.setdefault(sample.meta["source"], []).append(tuple(shape))
    assert found == SEVERAL
    rows = {row["source"]: row for row in json.loads((several / "report.json").read_text())["rows"]}
    assert "too short: 0.40 s of picture, a clip is 0.50 s" in rows["short.mp4"]["notes"]
    assert "left over: 0.20 s at its end do not fill a clip" in rows["wide.mp4"]["notes"]
    # A film's clips go on where the last one ended.
    wide = [s for s in ShardDataset(several) if s.meta["source"] == "wide.mp4"]
    levels = torch.cat([s.video.frames for s in wide]).float().mean((1, 2, 3))
    assert (levels - (10 + 6 * torch.arange(18))).abs().max() < 4 and wide[1].meta["start"] == pytest.approx(0.9)


def test_dataset_json_and_the_report_count_the_buckets(several, capsys):
    info = json.loads((several / "dataset.json").read_text())
    counts = {tuple(bucket[n] for n in bucket if n != "samples"): bucket["samples"] for bucket in info["buckets"]}
    assert counts == {
        ("video+audio", 9, 16, 48): 2,
        ("video", 5, 32, 32): 1,
        ("video", 5, 48, 16): 1,
        ("audio", 0.25): 3,
        ("audio", 0.75): 1,
        ("image", 16, 48): 1,
        ("image", 32, 32): 1,
        ("image", 48, 16): 1,
    }
    assert info["version"] == 1 and info["video"] == {"frames": 9, "height": 16, "width": 48, "fps": 10}
    assert json.loads((several / "report.json").read_text())["buckets"] == info["buckets"]
    assert "video with audio, 9 frames of 16 x 48" in (several / "report.html").read_text()
    assert main.main(["inspect", str(several)]) == 0
    assert "bucket  audio, 0.25 s: 3 samples" in capsys.readouterr().out
    # What generation takes for its own: the most common clip, and its sound.
    assert sizes_at(several) == {"frames": 9, "height": 16, "width": 48, "fps": 10, "samples": 14_400}


def test_one_size_is_said_as_before(prepared):
    target, _ = prepared
    assert "buckets" not in ShardDataset(target).info


@given(st.integers(1, 40), st.integers(1, 40))
def test_buckets_of_an_area(rows, columns):
    """No larger than asked, no side over twice the other, the asked size among them, and every side that fits."""
    height, width = 16 * rows, 16 * columns
    found = aspect_buckets(height, width)
    assert (height, width) in found and len(set(found)) == len(found)
    others = set(found) - {(height, width)}
    assert all(h % 16 == w % 16 == 0 and h * w <= height * width and h <= 2 * w and w <= 2 * h for h, w in others)
    # The widest for a height cannot be exceeded: brute force.
    for h in range(16, 16 * 60, 16):
        widest = max((w for w in range(16, 16 * 120, 16) if h * w <= height * width), default=0)
        if widest and h <= 2 * widest and widest <= 2 * h:
            assert (h, widest) in found and (widest, h) in found


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_the_nearest_bucket_keeps_most_of_a_picture(height, width):
    """With sizes of equal area, the nearest in aspect ratio is that which cuts least off."""

    def kept(bucket: tuple[int, int]) -> float:
        ratio = (bucket[1] / bucket[0]) / (width / height)
        return min(ratio, 1 / ratio)

    buckets = aspect_buckets(256, 256)
    assert kept(nearest_bucket(buckets, height, width)) == pytest.approx(max(map(kept, buckets)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--buckets", "60x64"], "a size of --buckets is a multiple of 16 pixels both ways, got 60x64"),
        (["--buckets", "64x64,x"], "a size of --buckets is a number of pixels or HEIGHTxWIDTH, got 'x'"),
        (["--buckets", "64x64,48x80", "--size", "64"], "--size goes with --buckets auto"),
        (["--frames", "5,8"], "--frames 8 is not one of them, 5 and 9 are"),
        (["--frames", "5;9"], "--frames takes a number, or several with commas between them, got '5;9'"),
        (["--seconds", "1,0"], "--seconds goes from 0.05 to 3600, got 0"),
    ],
)
def test_impossible_buckets(zoo, tmp_path, arguments, message, capsys):
    assert main.main(["prepare", str(zoo), str(tmp_path / "x"), *arguments]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 32}, "29 and 33"),
        ({"frames": 0}, "1 and 5"),
        ({"height": 60}, "multiple of 16"),
        ({"rate": 20_000}, "AAC"),
        ({"channels": 6}, "1 or 2"),
        ({"fps": 0}, "fps"),
        ({"seconds": 0}, "seconds"),
        ({"modalities": ("smell",)}, "smell"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=message):
        PrepareOptions(**options)


def test_refusals(tmp_path, zoo, prepared):
    with pytest.raises(UserError, match="not an empty folder"):
        prepare(zoo, prepared[0], SMALL)
    with pytest.raises(UserError, match="there is no"):
        prepare(tmp_path / "nowhere", tmp_path / "out", SMALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        prepare(tmp_path / "empty", tmp_path / "out", SMALL)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.mp4").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"none of the 1 files(.|\n)*a.mp4"):
        prepare(tmp_path / "bad", tmp_path / "out", SMALL, workers=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad", "empty"]


def test_words_of():
    assert words_of("flipping_a_pancake-2") == "flipping a pancake"
    assert words_of("BigDog03") == "Big Dog" and words_of("0001") == "" and words_of("größe") == "größe"


def test_a_process_that_dies_costs_one_item():
    """``eval`` in other processes: some of them end their process, in one and the same place."""
    die = "__import__('os')._exit(3)"
    items = ["1 + 1", die, *["2 + 2"] * 20, die, die, "3 + 3"]
    assert list(ordered_map(eval, items, 2)) == [2, Crash(), *[4] * 20, Crash(), Crash(), 6]
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(eval, ["1 / 0"], 1))


def test_command(tmp_path, zoo, capsys):
    arguments = ["prepare", str(zoo), str(tmp_path / "d"), "--workers", "0", "--seconds", "0.5", "--fps", "10"]
    assert main.main([*arguments, "--size", "32"]) == 0
    out = capsys.readouterr().out
    assert "14 files: 9 kept, 5 skipped" in out and "broken.mp4" in out
    page = (tmp_path / "d/report.html").read_text()
    assert all(name in page for name in TREATMENTS)
    assert main.main([*arguments, "--size", "32"]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert main.main([*arguments[:2], str(tmp_path / "e"), "--frames", "32"]) == 2


def test_real_clips(shared, tmp_path):
    report = prepare(shared("clips"), tmp_path / "d", PrepareOptions(), workers=0)
    clips = {row["source"]: row["clips"] for row in report.rows}
    assert clips == {
        "corrupted.mp4": 0,
        "dog.wav": 1,
        "flipping_a_pancake.mkv": 5,  # 10.33 s of 2.0625 s each
        "rotated_90_no_audio.mov": 0,  # three frames
        "talk_1.mp4": 2,
        "talk_2.mp4": 2,
    }
    sample = next(s for s in ShardDataset(tmp_path / "d") if s.meta["source"] == "flipping_a_pancake.mkv")
    assert sample.captions == ("flipping a pancake",)
    # The same frame by Pillow from decord's: centre crop, 64 x 64.
    import decord

    frame = decord.VideoReader(str(shared("clips/flipping_a_pancake.mkv")))[30].asnumpy()  # 1 s = clip frame 16
    height, width = frame.shape[:2]
    left = (width - height) // 2
    square = PillowImage.fromarray(frame[:, left : left + height]).resize((64, 64), PillowImage.Resampling.BICUBIC)
    assert np.abs(np.array(square).astype(float) - sample.video.frames[16].numpy()).mean() < 4


def test_kinds_of_captions_go_along(tmp_path):
    """From a json beside the medium, from a table, and from shards again."""
    write_image(tmp_path / "in/a.png", Image(torch.zeros(32, 32, 3, dtype=torch.uint8)))
    (tmp_path / "in/a.json").write_text('{"captions": ["a dark square", "dark"], "caption_kinds": ["full", "short"]}')
    (tmp_path / "in.jsonl").write_text('{"path": "in/a.png", "caption": "dark", "caption_kinds": "short"}\n')
    prepare(tmp_path / "in", tmp_path / "folder", SMALL, workers=0)
    prepare(tmp_path / "in.jsonl", tmp_path / "table", SMALL, workers=0)
    prepare(tmp_path / "folder", tmp_path / "shards", SMALL, workers=0)
    for name in ("folder", "shards"):
        sample = ShardDataset(tmp_path / name)[0]
        assert sample.captions == ("a dark square", "dark") and sample.caption_kinds == ("full", "short")
    assert ShardDataset(tmp_path / "table")[0].caption_kinds == ("short",)
