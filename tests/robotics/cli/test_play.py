"""``selfflow-mm robot-data play`` on files: films and sheets of the episodes asked for."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image as Pillow

from selfflow_mm.cli.main import main
from selfflow_mm.errors import UserError
from selfflow_robotics.cli.play import episode_numbers


def play(*arguments: object) -> int:
    return main(["robot-data", "play", *map(str, arguments)])


def film(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]).astype(int)


def test_a_film_shows_the_episodes_in_the_order_asked_for(
    small_rlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "film.mp4"
    assert play(small_rlds, "--out", out, "--episodes", 4, "1:3", "--camera", "front") == 0
    frames = film(out)
    assert len(frames) == 7 + 4 + 5
    expected = [(i, t) for i, steps in ((4, 7), (1, 4), (2, 5)) for t in range(steps)]
    middle = frames[:, 100:160, frames.shape[2] // 2 - 30 : frames.shape[2] // 2 + 30].mean(axis=(1, 2))
    assert np.allclose(middle, [(40 * i, 20 * t, 9) for i, t in expected], atol=6)
    assert "3 episodes, 16 frames of" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["film.mp4"]


def test_all_episodes_faster(small_rlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert play(small_rlds, "--out", tmp_path / "film.mp4", "--episodes", "all", "--speed", 2, "--height", 64) == 0
    assert "5 episodes, 25 frames" in (out := capsys.readouterr().out) and "at 10 per second, 2.5 s" in out


def test_one_sheet_or_one_for_each_episode(
    small_rlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play(small_rlds, "--sheet", tmp_path / "one.png", "--episode", 3, "--frames", 2) == 0
    with Pillow.open(tmp_path / "one.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    shown = {tuple(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}
    assert {(120, 0, 9), (120, 100, 9)} <= shown and (120, 20, 9) not in shown  # the first and the last of six
    assert play(small_rlds, "--sheet", tmp_path / "many.png", "--episodes", "3:", "--camera", "wrist", "front") == 0
    assert sorted(p.name for p in tmp_path.glob("many*")) == ["many-000003.png", "many-000004.png"]
    assert "2 contact sheets" in capsys.readouterr().out


def test_of_several_episodes_a_bad_one_is_left_out(
    damaged_rlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet, video = tmp_path / "sheet.png", tmp_path / "film.mp4"
    assert play(damaged_rlds, "--out", video, "--sheet", sheet, "--episodes", "all", "--height", 96) == 1
    assert len(film(video)) == 3 + 4 + 6 + 7 and len(list(tmp_path.glob("sheet-*.png"))) == 4
    assert capsys.readouterr().err.count("left out: episode 2:") == 1
    assert play(damaged_rlds, "--out", tmp_path / "bad.mp4", "--episode", 2) == 2  # it was all that was wanted
    told = capsys.readouterr().err
    assert "small-train.tfrecord-00000-of-00002" in told and "left out" not in told
    assert not (tmp_path / "bad.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}"], "say what to write: --out FILE.mp4"),
        (["{folder}", "--out", "{out}/film.avi"], "end it in .mp4"),
        (["{folder}", "--sheet", "{out}/sheet.jpg"], "end it in .png"),
        (["nowhere", "--out", "{out}/film.mp4"], "there is no 'nowhere'"),
        (["{folder}", "--out", "{out}/film.mp4", "--camera", "back"], "no camera 'back'; it has front, wrist"),
        (["{folder}", "--sheet", "{out}/s.png", "--episodes", "0:2", "--camera", "back"], "it has front, wrist"),
        (["{folder}", "--out", "{out}/film.mp4", "--episode", "5"], "has 5, numbers 0 to 4"),
        (["{folder}", "--out", "{out}/film.mp4", "--episodes", "3:9"], "there is no episode 3:9"),
        (["{folder}", "--out", "{out}/film.mp4", "--episodes", "two"], "got 'two'"),
        (["{folder}", "--out", "{out}/film.mp4", "--speed", "0"], "speed goes from 0.01 to 100"),
        (["{folder}", "--sheet", "{out}/s.png", "--frames", "0"], "at least 1 frame"),
    ],
)
def test_mistakes_end_with_2_and_a_sentence(
    small_rlds: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert play(*(word.format(folder=small_rlds, out=out) for word in arguments)) == 2
    assert message in capsys.readouterr().err
    assert not out.exists() or not list(out.iterdir())


def test_episode_numbers() -> None:
    assert episode_numbers(["0", "3", "5:7"], 9, "it") == [0, 3, 5, 6]
    assert episode_numbers(["all"], 3, "it") == [0, 1, 2] == episode_numbers([":"], 3, "it")
    assert episode_numbers([":2", "7:"], 9, "it") == [0, 1, 7, 8]
    for words in (["4:2"], ["-1"], ["1:2:3"], [""], ["9"], ["x:2"], ["²"]):
        with pytest.raises(UserError):
            episode_numbers(words, 9, "it")
    with pytest.raises(UserError, match="it has no episodes"):
        episode_numbers(["0"], 0, "it")
