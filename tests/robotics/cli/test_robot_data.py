"""``selfflow-mm robot-data``: help, messages and exit codes of its commands as a user meets them."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest

from selfflow_mm.cli.main import main
from selfflow_robotics.cli.convert import parse_range
from selfflow_robotics.cli.robot_data import SUBCOMMANDS
from selfflow_robotics.convert import TargetOptions, convert
from selfflow_robotics.statistics import Statistics
from tests.robotics.memory import memory_source


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A LeRobot data set of 3 episodes."""
    folder = tmp_path_factory.mktemp("cli") / "data"
    convert(memory_source([[4, 2, 3]]), folder, TargetOptions(to="lerobot"), progress=False)
    return folder


def test_the_overview_lists_every_command(capsys):
    assert main(["robot-data"]) == 0
    text = capsys.readouterr().out
    for name, (module, line) in SUBCOMMANDS.items():
        assert f"  {name}" in text and line in text
        assert importlib.import_module(module).HELP == line
    assert main(["--help"]) == 0
    assert "robot-data" in capsys.readouterr().out


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_each_command_has_help(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["robot-data", name, "--help"])
    text = capsys.readouterr().out
    assert f"selfflow-mm robot-data {name}" in text and "examples:" in text


def test_an_unknown_command_names_the_nearest(capsys):
    assert main(["robot-data", "converts"]) == 2
    assert "the nearest is 'convert'" in capsys.readouterr().err
    assert main(["robot-data", "--out"]) == 2
    assert "selfflow-mm robot-data COMMAND --out" in capsys.readouterr().err


def test_stats_writes_all_three_files(data, tmp_path, capsys):
    places = [tmp_path / name for name in ("s.json", "pi.json", "vla.json")]
    command = ["robot-data", "stats", str(data), "--out", str(places[0]), "--openpi", str(places[1])]
    assert main([*command, "--openvla", str(places[2])]) == 0
    assert "3 episodes, 9 steps" in capsys.readouterr().out
    statistics = Statistics.load(places[0])
    assert statistics.steps == 9
    openpi = json.loads(places[1].read_text())["norm_stats"]
    np.testing.assert_allclose(openpi["actions"]["q99"], statistics.actions.q99)
    openvla = json.loads(places[2].read_text())[statistics.dataset]
    np.testing.assert_allclose(openvla["action"]["mean"], statistics.actions.mean)


def test_stats_go_beside_the_data_unless_told_otherwise(data):
    assert main(["robot-data", "stats", str(data), "--episodes", "0:2"]) == 0
    assert Statistics.load(data).steps == 6
    (data / "statistics.json").unlink()


def test_convert_and_verify(data, tmp_path, capsys):
    assert main(["robot-data", "convert", str(data), str(tmp_path / "r"), "--to", "rlds", "--verify"]) == 0
    text = capsys.readouterr().out
    assert "3 episodes, 9 steps" in text and "the same to the bit" in text


def test_a_conversion_that_was_stopped_says_that_it_goes_on(data, tmp_path, capsys, monkeypatch):
    command = ["robot-data", "convert", str(data), str(tmp_path / "r"), "--to", "rlds"]
    with monkeypatch.context() as patch:
        patch.setattr("selfflow_robotics.convert.Target.join", interrupted)
        assert main(command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert main([*command, "--name", "other"]) == 2
    assert 'the option name: "" then, "other" now' in capsys.readouterr().err
    assert main([*command, "--workers", "1"]) == 0
    assert "3 episodes, 9 steps" in capsys.readouterr().out and not (tmp_path / "r/.parts").exists()


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stats", "nowhere"], "there is no 'nowhere'"),
        (["stats", "DATA", "--workers", "-1"], "--workers is at least 0"),
        (["stats", "DATA", "--out", "no/such/place.json"], "there is no folder 'no/such'"),
        (["stats", "DATA", "--layout", "none"], "there is no layout 'none'"),
        (["stats", "DATA", "--episodes", "3:9"], "means none of the 3 episodes"),
        (["stats", "DATA", "--split", "val"], "val"),
        (["convert", "DATA", "OUT", "--to", "rlds", "--episodes", "a:b"], "is written A:B"),
        (["convert", "DATA", "OUT", "--to", "rlds", "--episodes-per-shard", "0"], "at least 1"),
        (["convert", "DATA", "OUT", "--to", "lerobot", "--codec", "mjpeg2000"], "mjpeg2000"),
        (["convert", "DATA", "OUT", "--to", "lerobot", "--workers", "-1"], "--workers is at least 0"),
        (["convert", "DATA", "DATA", "--to", "lerobot"], "DATA"),
        (["record", "--out", "OUT", "--workers", "-1"], "--workers is at least 0"),
        (["record", "--out", "OUT", "--noise", "nan"], "--noise"),
        (["record", "--out", "OUT", "--tasks", "juggle"], "no task 'juggle'"),
        (["inspect", "TEXT"], "no robot data that is known"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(data, tmp_path, capsys, arguments, message):
    (tmp_path / "text").mkdir()
    places = {"DATA": str(data), "OUT": str(tmp_path / "out"), "TEXT": str(tmp_path / "text")}
    assert main(["robot-data", *(places.get(word, word) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert message.replace("DATA", str(data)) in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_episodes_are_written_as_slices():
    assert parse_range(None, 5) == range(5)
    assert parse_range("1:3", 5) == range(1, 3) and parse_range("3:", 5) == range(3, 5)
    assert parse_range(":2", 5) == range(2) and parse_range("4", 5) == range(4, 5)
    assert parse_range("3:99", 5) == range(3, 5)
