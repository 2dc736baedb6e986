"""Evaluations from beginning to end: a folder of clips, going on, refusals; the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfflow_mm.cli.main import main
from selfflow_mm.data.world.clip import make_clip
from selfflow_mm.data.writing import encode_mp4
from selfflow_mm.errors import UserError
from selfflow_mm.evaluation.world.run import WorldPlan, evaluate
from selfflow_mm.evaluation.world.sources import TEST_WORLD, folder_clips, real_clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    captions = {}
    for index in range(3):
        clip = make_clip(5, index, "test")
        (folder / f"{index}.mp4").write_bytes(encode_mp4(clip.video, clip.audio, crf=12, fast=True))
        captions[f"{index}.mp4"] = clip.captions[0].text
    (folder / "captions.json").write_text(json.dumps(captions))
    return folder


def test_a_folder_is_measured_and_gone_on_with(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["evaluate-world", "--media", str(clips), "--n", "3", "--train-clips", "3", "--out", str(out)]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("given", "real", "shuffled sound", "colours right"))
    lines = (out / "results.jsonl").read_text().splitlines()
    assert len(lines) == 6 and {json.loads(line)["set"] for line in lines} == {"given", "real"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["table"]["given"]["colours right"]["n"] == 3 and summary["plan"]["n"] == 3
    held_out = summary["by what is held out"]
    assert sum(part["real"]["count right"]["n"] for part in held_out.values()) == 3
    assert "<video" in (out / "report.html").read_text()
    # Cut off in the middle of a line, it is completed, and nothing else is measured again.
    (out / "results.jsonl").write_text("\n".join(lines[:4]) + "\n" + lines[4][:30])
    marked = (out / "results.jsonl").read_text().replace('"words": ', '"mark": 1, "words": ', 1)
    (out / "results.jsonl").write_text(marked)
    assert main(command) == 0
    again = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(again) == 6 and sum("mark" in row for row in again) == 1
    assert sorted((row["set"], row["key"]) for row in again) == sorted(
        (json.loads(x)["set"], json.loads(x)["key"]) for x in lines
    )
    assert main([*command[:-4], "--train-clips", "2", "--out", str(out)]) == 2
    assert "other settings" in capsys.readouterr().err


def test_real_clips_are_those_of_the_test_split() -> None:
    [clip] = real_clips(["3"], 5)
    true = make_clip(5, 3, "test")
    video, audio = clip.read()
    assert clip.caption == true.captions[0].text and video.frames.shape == true.video.frames.shape
    assert (video.frames.float() - true.video.frames.float()).abs().mean() < 4
    assert (audio.waveform - true.audio.waveform).abs().mean() < 0.01


def test_refusals_say_what_to_do(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="captions.json"):
        folder_clips(tmp_path)
    (tmp_path / "captions.json").write_text('{"a.mp4": "a red ball falls"}')
    with pytest.raises(UserError, match="a.mp4, which is not"):
        folder_clips(tmp_path)
    with pytest.raises(UserError, match="not both"):
        WorldPlan(tmp_path, model="tiny", media=clips)
    with pytest.raises(UserError, match="at least 2 clips whose sounds"):
        WorldPlan(tmp_path, model="tiny", sounded=1)
    with pytest.raises(UserError, match="something else"):
        evaluate(WorldPlan(tmp_path, media=clips, n=2))
    (tmp_path / "captions.json").write_text('{"a.mp4": "two men talk"}')
    with pytest.raises(UserError, match="is no caption"):
        folder_clips(tmp_path)
    (tmp_path / "captions.json").write_text("{")
    with pytest.raises(UserError, match="not an object"):
        folder_clips(tmp_path)


@pytest.mark.long
def test_a_model_is_measured_beside_an_untrained_one(tmp_path: Path) -> None:
    plan = WorldPlan(tmp_path / "out", model="tiny", n=2, untrained=2, sounded=2, train_clips=2)
    table = evaluate(plan)
    sounded = ["sound for real pictures", "shuffled, sound for real pictures"]
    assert list(table) == ["generated", "real", "real, coded", "shuffled sound", *sounded, "untrained"]
    assert set(table[sounded[0]]) == set(table["shuffled sound"])  # of the picture nothing was made
    [video, audio] = folder_clips(tmp_path / "out" / sounded[0])[1].read()
    true = make_clip(TEST_WORLD, 1, "test")
    assert (video.frames.float() - true.video.frames.float()).abs().mean() < 4
    assert (audio.waveform - true.audio.waveform).abs().mean() > 1e-3
    first = (tmp_path / "out" / "generated" / "00001.mp4").read_bytes()
    (tmp_path / "out" / "generated" / "00001.mp4").unlink()
    (tmp_path / "out" / "results.jsonl").unlink()
    assert evaluate(plan) == table
    assert (tmp_path / "out" / "generated" / "00001.mp4").read_bytes() == first
