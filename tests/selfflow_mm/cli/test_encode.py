"""``encode``, ``decode`` and ``inspect`` of an encoded file, on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selfflow_mm.cli.main import main
from selfflow_mm.data.encoded import EncodedFile
from selfflow_mm.data.reading import read_media
from selfflow_mm.data.writing import write_audio, write_image, write_video
from selfflow_tokenizers import Audio, Image, Video


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    frames = torch.randint(0, 256, (6, 20, 24, 3), dtype=torch.uint8)
    write_video(folder / "clip.mp4", Video(frames, 8.0), Audio(0.1 * torch.randn(2, 12_000), 16_000))
    write_audio(folder / "sub" / "hum.wav", Audio(0.1 * torch.randn(1, 4000), 8000))
    write_image(folder / "still.png", Image(frames[0]))
    return folder


def test_a_film_there_and_back(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoded = str(tmp_path / "clip.safetensors")
    assert (
        main(["encode", str(media / "clip.mp4"), "--video", "tiny/video", "--audio", "tiny/audio", "--out", encoded])
        == 0
    )
    assert "12 tokens of video, 19 tokens of audio" in capsys.readouterr().out
    assert main(["inspect", encoded]) == 0
    said = capsys.readouterr().out
    assert "video and audio of clip.mp4 as tokens" in said
    assert "6 frames of 20 x 24 at 8 per second (0.75 s)" in said and "(tiny/video)" in said
    assert main(["decode", encoded, "--out", str(tmp_path / "back.mp4")]) == 0
    back = read_media(tmp_path / "back.mp4")
    assert back.video.frames.shape == (6, 20, 24, 3) and back.audio.waveform.shape == (2, 12_000)
    assert main(["decode", encoded, "--out", str(tmp_path / "back.wav"), "--tokenizer", "tiny/audio"]) == 0
    assert "its video was left out" in capsys.readouterr().out


def test_a_folder_goes_on_where_it_was_stopped(
    media: Path, tmp_path: Path, small_tokenizers: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    named = ["--tokenizer", small_tokenizers["video"], "--tokenizer", small_tokenizers["audio"]]
    assert main(["encode", str(media), *named, "--out", str(out)]) == 0
    names = ["clip.mp4.safetensors", "still.png.safetensors", "sub/hum.wav.safetensors"]
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == names
    tracks = {name: list(EncodedFile(out / name).tracks) for name in names}
    assert list(tracks.values()) == [["video", "audio"], ["image"], ["audio"]]
    assert EncodedFile(out / names[0]).tracks["video"].tokenizer == str(Path(small_tokenizers["video"]).resolve())
    (out / names[2]).unlink()
    (media / "broken.mp4").write_text("nothing")
    capsys.readouterr()
    assert main(["encode", str(media), *named, "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert said.out.count("is there") == 2 and "left out: " in said.out and (out / names[2]).exists()
    assert "1 of 4 files" in said.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.mp4", "--video", "tiny/video"], "there is no 'none.mp4'"),
        (["{media}/clip.mp4"], "name a tokenizer with --video, --audio or --tokenizer"),
        (["{media}/clip.mp4", "--video", "tiny/audio"], "--video tiny/audio is a tokenizer of sounds"),
        (["{media}/clip.mp4", "--tokenizer", "tiny/video", "--video", "tiny/video"], "both for pictures"),
        (["{media}/clip.mp4", "--video", "nowhere"], "there is no tokenizer 'nowhere'"),
        (["{media}/clip.mp4", "--video", "tiny/video", "--size", "big"], "a size is HEIGHTxWIDTH"),
        (["{media}/still.png", "--audio", "tiny/audio"], "is an image"),
        (["{media}/sub/hum.wav", "--video", "tiny/video"], "has no picture"),
        (["{media}/clip.mp4", "--video", "tiny/video", "--out", "x.mp4"], "end it in .safetensors"),
    ],
)
def test_what_cannot_be_encoded(
    media: Path,
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [a.format(media=media) for a in arguments]
    assert main(["encode", *words, *([] if "--out" in words else ["--out", "x.safetensors"])]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["media"]


def test_what_cannot_be_decoded(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoded = str(tmp_path / "hum.safetensors")
    assert main(["encode", str(media / "sub" / "hum.wav"), "--audio", "tiny/audio", "--out", encoded]) == 0
    for arguments, sentence in (
        ([encoded, "--out", "x.mp4"], "holds audio, which is written as .wav"),
        ([encoded, "--out", "x.wav", "--tokenizer", "tiny/video"], "is a tokenizer of video, and audio is decoded"),
        ([str(media / "clip.mp4"), "--out", "x.mp4"], "is not a file that `selfflow-mm encode` wrote"),
    ):
        capsys.readouterr()
        assert main(["decode", *arguments]) == 2
        assert sentence in capsys.readouterr().err


def test_a_tokenizer_that_has_moved(
    media: Path, tmp_path: Path, small_tokenizers: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copytree(small_tokenizers["audio"], tmp_path / "here")
    encoded = str(tmp_path / "hum.safetensors")
    source = str(media / "sub" / "hum.wav")
    assert main(["encode", source, "--audio", str(tmp_path / "here"), "--out", encoded]) == 0
    (tmp_path / "here").rename(tmp_path / "there")
    out = str(tmp_path / "back.wav")
    assert main(["decode", encoded, "--out", out]) == 2
    assert "say where it is with --tokenizer" in capsys.readouterr().err
    assert main(["decode", encoded, "--out", out, "--tokenizer", "tiny/audio"]) == 2
    assert "was encoded by" in capsys.readouterr().err
    assert main(["decode", encoded, "--out", out, "--tokenizer", str(tmp_path / "there")]) == 0
