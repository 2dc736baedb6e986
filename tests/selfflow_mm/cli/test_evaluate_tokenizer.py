"""``evaluate-tokenizer`` on the command line: its figures are those of the Python API, its page shows everything."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from selfflow_mm.bench import tokenizer_child
from selfflow_mm.bench import tokenizers as bench
from selfflow_mm.cli.main import main
from selfflow_mm.data.shards import ShardDataset
from selfflow_mm.data.writing import write_audio, write_image
from selfflow_mm.evaluation.reconstruction import psnr, si_sdr
from selfflow_mm.evaluation.ssim import ssim
from selfflow_tokenizers import Audio, Image, load_tokenizer


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed and memory are measured here: a process for each costs seconds to start."""
    monkeypatch.setattr(bench, "measure_in_child", tokenizer_child.measure)


def read(out: Path) -> tuple[dict, list[dict]]:
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return json.loads((out / "results.json").read_text()), rows


@pytest.mark.usefixtures("in_process")
def test_two_of_pictures_side_by_side(
    small_tokenizers: dict[str, str], small_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "out", small_tokenizers["video"]
    options = ["--max-samples", "3", "--batch", "2", "--rounds", "1", "--shown", "2", "--device", "cpu"]
    assert main(["evaluate-tokenizer", folder, "jpeg:50", "--data", str(small_clips), "--out", str(out), *options]) == 0
    results, rows = read(out)
    plain, data = load_tokenizer(folder), ShardDataset(small_clips)
    truth = []
    for place in (0, 3, 6):
        video = data[place].video
        (back,) = plain.decode(plain.encode([video]))
        truth.append((psnr(back.frames, video.frames), ssim(back.frames, video.frames)))
    ours = [(row["psnr"], row["ssim"]) for row in rows if row["tokenizer"] == folder]
    assert ours == [pytest.approx(pair, rel=1e-4) for pair in truth]
    first, jpeg = results["tokenizers"]
    assert first["scores"]["psnr"]["mean"] == pytest.approx(sum(p for p, _ in truth) / 3, rel=1e-4)
    assert first["scores"]["psnr"]["n"] == 3 and first["scores"]["psnr"]["low"] <= first["scores"]["psnr"]["mean"]
    seconds = 3 * 9 / 16
    assert first["tokens"] == 3 * 3 * 2 * 2 and first["tokens_per_second"] == pytest.approx(36 / seconds)
    assert first["values"] == first["tokens"] * plain.spec.channels
    assert first["inputs"] == 3 * 9 * 32 * 32 * 3
    assert len(first["moments"]["mean"]) == plain.spec.channels and jpeg["moments"] is None
    assert first["encode_real_time"] > 0 and first["speed"]["encode_bytes"] >= 0
    assert jpeg["bytes"] > 0 and jpeg["scores"]["psnr"]["mean"] > 25
    assert results["format"] == "selfflow-tokenizer-comparison" and "torch" in results["versions"]
    said = capsys.readouterr().out
    assert "PSNR, dB" in said and "jpeg:50" in said and "x real time" in said
    page = (out / "report.html").read_text()
    media = sorted(p.name for p in (out / "media").iterdir())
    assert len(media) == 6 and all(f"media/{name}" in page for name in media) and page.count("<video") == 6


@pytest.mark.usefixtures("in_process")
def test_sound_at_the_datas_own_rate_beside_griffin_lim(small_tokenizers: dict[str, str], tmp_path: Path) -> None:
    data, out = tmp_path / "sounds", tmp_path / "out"
    time = torch.arange(4000) / 8000
    for i in range(2):
        write_audio(data / f"{i}.wav", Audio(0.5 * torch.sin(2 * math.pi * (300 + 200 * i) * time)[None], 8000))
    write_audio(data / "2.wav", Audio(torch.zeros(1, 4000), 8000))
    names = [small_tokenizers["audio"], "griffin-lim:4"]
    options = ["--rounds", "1", "--device", "cpu"]
    assert main(["evaluate-tokenizer", *names, "--data", str(data), "--out", str(out), *options]) == 0
    results, rows = read(out)
    ours, lim = results["tokenizers"]
    assert ours["scores"]["mel"]["n"] == 3 and ours["scores"]["si_sdr"]["n"] == 2
    assert any("SI-SDR is not defined for 1 of 3" in note for note in ours["notes"])
    assert any("takes 16000 Hz" in note for note in ours["notes"]) and lim["notes"][0].startswith("SI-SDR")
    assert ours["tokens_per_second"] == pytest.approx(3 * 13 / 1.5)
    assert lim["values_per_second"] == pytest.approx(80 * 48 / 0.5)
    assert lim["scores"]["mel"]["mean"] < ours["scores"]["mel"]["mean"]  # the other has random weights
    row = next(r for r in rows if r["tokenizer"] == "griffin-lim:4" and r["key"] == "0.wav")
    assert row["si_sdr"] is not None and next(r for r in rows if r["key"] == "2.wav")["si_sdr"] is None
    assert (out / "report.html").read_text().count("<audio") == 9
    assert si_sdr(torch.ones(1, 4), torch.ones(1, 4)) == 100.0


@pytest.mark.usefixtures("in_process")
def test_stills_are_counted_by_the_image(small_tokenizers: dict[str, str], tmp_path: Path) -> None:
    for i in range(2):
        picture = torch.randint(0, 256, (32, 16 + 16 * i, 3), dtype=torch.uint8)
        write_image(tmp_path / "stills" / f"{i}.png", Image(picture))
    out = tmp_path / "out"
    arguments = [small_tokenizers["video"], "--data", str(tmp_path / "stills"), "--rounds", "1", "--device", "cpu"]
    assert main(["evaluate-tokenizer", *arguments, "--out", str(out)]) == 0
    (found,) = read(out)[0]["tokenizers"]
    assert found["tokens_per_second"] == (2 + 4) / 2 and found["seconds"] is None
    assert "flicker" not in found["scores"]
    assert "tokens/image" in (out / "report.html").read_text()


def test_speed_and_memory_in_a_process_of_its_own(small_tokenizers: dict[str, str]) -> None:
    media = [Image(torch.randint(0, 256, (256, 256, 3), dtype=torch.uint8))]
    request = tokenizer_child.Request(small_tokenizers["video"], media, "cpu", 1, 2, 0, False)
    speed = tokenizer_child.measure_in_child(request)
    assert len(speed.encode) == len(speed.decode) == 2 and min(*speed.encode, *speed.decode) > 0
    # 256 x 256 pixels as floats are 0.8 MB, and each layer makes a copy or more of an eighth to several times that.
    assert 0.8e6 < speed.encode_bytes < 2e8 and speed.total_bytes > 5e7


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tiny/audio", "tiny/video"], "tiny/audio is for sounds, tiny/video is for pictures"),
        (["tiny/video", "tiny/video"], "named twice"),
        (["tiny/video", "--batch", "0"], "batch and rounds are at least 1"),
        (["nowhere"], "there is no tokenizer 'nowhere'"),
        (["tiny/audio", "--split", "run:{tmp}"], "no folder of a training run"),
    ],
)
def test_what_cannot_be_compared(
    arguments: list[str], sentence: str, small_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [a.format(tmp=tmp_path) for a in arguments]
    assert main(["evaluate-tokenizer", *words, "--data", str(small_clips), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert sentence in said.splitlines()[-1] and not (tmp_path / "out").exists()


def test_a_folder_that_is_taken_is_left_alone(
    small_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text("mine")
    assert main(["evaluate-tokenizer", "tiny/video", "--data", str(small_clips), "--out", str(tmp_path)]) == 2
    assert "is taken" in capsys.readouterr().err and (tmp_path / "results.json").read_text() == "mine"
