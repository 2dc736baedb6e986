"""``selfflow-mm robot-data clips`` as a user meets it."""

from __future__ import annotations

import numpy as np
import pytest

from selfflow_mm.cli.main import main
from selfflow_mm.data.shards import ShardDataset
from selfflow_robotics.cli.clips import parse_size
from selfflow_robotics.resizing import resize
from selfflow_robotics.sources import open_episodes


def test_stills_of_a_folder(small_rlds, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["robot-data", "clips", str(small_rlds), str(out), "--size", "24x40", "--stills", "2", "--fit", "stretch"]
    assert main([*command, "--camera", "wrist", "--episodes", "4"]) == 0
    assert f"{out}: 8 stills, 24 x 40 pixels, of 4 episodes" in capsys.readouterr().out
    source, data = open_episodes(small_rlds), ShardDataset(out)
    assert len(data) == 8
    for sample in (data[i] for i in range(8)):
        number, step = map(int, sample.key.split("-"))
        own = source.read(*source.locate(number))
        expected = resize(own.images["wrist"].read([step]), (24, 40), "stretch")[0]
        np.testing.assert_array_equal(sample.image.pixels.numpy(), expected)
        assert sample.captions == (own.instruction,)


def test_clips_of_a_damaged_folder(damaged_rlds, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["robot-data", "clips", str(damaged_rlds), str(out), "--size", "32", "--frames", "4"]) == 0
    text = capsys.readouterr().out
    assert "3 clips of 4 frames, 32 x 32 pixels, of 3 episodes" in text
    assert "1 episodes are shorter than a clip" in text and "1 episodes could not be read" in text
    assert (out / "quarantine.jsonl").is_file()
    video = ShardDataset(out)[0].video
    assert video.frames.shape == (4, 32, 32, 3) and video.fps == 5


def test_the_bytes_do_not_depend_on_the_processes(damaged_rlds, tmp_path):
    command = ["robot-data", "clips", str(damaged_rlds), "--size", "32", "--frames", "3", "--samples-per-shard", "2"]
    folders = [tmp_path / workers for workers in ("0", "2")]
    for folder in folders:
        assert main([*command, str(folder), "--workers", folder.name]) == 0
    one, two = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert one == two
    assert set(one) >= {"dataset.json", "quarantine.jsonl", "shard-000000.tar", "shard-000001.tar"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "32", "--stills", "0"], "--stills is at least 1"),
        (["--size", "32", "--frames", "-4"], "--frames is at least 1"),
        (["--size", "32", "--frames", "4", "--stride", "0"], "--stride is at least 1"),
        (["--size", "32", "--stills", "4", "--stride", "2"], "--stride goes with --frames"),
        (["--size", "32", "--stills", "4", "--episodes", "0"], "--episodes is at least 1"),
        (["--size", "32", "--stills", "4", "--workers", "-1"], "workers are at least 0"),
        (["--size", "32", "--stills", "4", "--samples-per-shard", "0"], "at least one sample"),
        (["--size", "32", "--stills", "4", "--split", "val"], "val"),
        (["--size", "32", "--stills", "4", "--camera", "left"], "no camera 'left'; it has front, wrist"),
        (["--size", "32x", "--stills", "4"], "HEIGHTxWIDTH, got '32x'"),
        (["--size", "33", "--frames", "4"], "even height and width"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(small_rlds, tmp_path, capsys, arguments, message):
    assert main(["robot-data", "clips", str(small_rlds), str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_sizes():
    assert parse_size("96x112") == (96, 112) and parse_size("64") == (64, 64) and parse_size("8X16") == (8, 16)
