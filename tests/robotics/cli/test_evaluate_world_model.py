"""``selfflow-mm evaluate-world-model`` on files, with a model whose grades are known."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.cli import evaluate_world_model as command
from selfflow_robotics.episode import Feature
from selfflow_robotics.report_card.card import HORIZONS, SECTIONS
from selfflow_robotics.rlds import RldsWriter
from tests.robotics.report_card.toys import Model, SquareFiles

_FEATURES = {
    "action": Feature("array", (7,)),
    "observation/image": Feature("picture", (24, 32, 3), "uint8", "png"),
    "observation/state": Feature("array", (2,)),
    "language_instruction": Feature("text", (), "str"),
}
_LAYOUT = """format: selfflow-robot-layout
version: 1
name: squares
robot: widowx
control_rate: 5
action:
  - {column: action, start: 0, stop: 6, names: [x, y, z, roll, pitch, yaw]}
  - {column: action, start: 6, stop: 7, names: [gripper], gripper: absolute_opening}
images: {front: observation/image}
instruction: language_instruction
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "squares" / "1.0.0"
    for split, lengths, shift in (("train", [7, 7, 7], 1), ("val", [5, 11, 12, 11, 11, 11, 11], 0)):
        files = SquareFiles([lengths], shift, split=split)
        with RldsWriter(folder, name="squares", split=split, features=_FEATURES) as writer:
            for index in range(len(lengths)):
                writer.write(files.read(0, index))
    (folder / "layout.yaml").write_text(_LAYOUT)
    return folder


def run(model: Model, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(command, "_open", lambda checkpoint, device: model)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(["CKPT", *map(str, arguments)]))


def test_a_card_is_written_and_printed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "card"
    options = ("--data", data, "--out", out, "--only", "open_loop", "counterfactual", "--clips", 7, "--horizons", 1, 9)
    assert run(Model("right"), monkeypatch, *options, "--seed", 4) == 0
    text, card = capsys.readouterr().out, json.loads((out / "card.json").read_text())
    assert card["open_loop"]["metrics"]["psnr_rgb_h9_openloop"]["model"]["value"] == pytest.approx(58.92, abs=0.01)
    assert card["open_loop"]["metrics"]["psnr_rgb_h9_openloop"]["model"]["n"] == 6  # one episode is too short
    assert "58.92" in text and "better than copying the first picture" in text and "actions act" in text
    assert card["settings"]["imagining"]["seed"] == 4 and "moving_region" not in card
    assert (out / "report.html").is_file() and str(out / "card.json") in text
    assert sorted(path.name for path in out.iterdir()) == ["card.json", "report.html"]


def test_without_policies_the_ranking_is_left_out_in_words(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("selfflow_robotics.report_card.card.SECTIONS", ("moving_region",))
    assert run(Model("right"), monkeypatch, "--data", data, "--out", tmp_path / "card", "--clips", 3) == 0
    assert "policies_ranked is left out: no policies were named" in capsys.readouterr().out
    with pytest.raises(UserError, match="name some with --policies"):
        run(Model(), monkeypatch, "--data", data, "--out", tmp_path / "card", "--only", "policies_ranked")


def test_a_misspelt_policy_is_told_before_anything_is_imagined(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model()
    with pytest.raises(UserError, match="there is no policy and no folder 'zeros'"):
        run(model, monkeypatch, "--data", data, "--out", tmp_path / "card", "--policies", "zero", "zeros")
    assert model.calls == 0


def test_a_card_is_kept_where_success_cannot_be_judged(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = ("--policies", "zero", "noisy:zero:0.5", "--tasks", "pick")
    options = ("--data", data, "--out", tmp_path / "card", "--clips", 3, "--horizons", 1, *policies)
    assert run(Model(), monkeypatch, *options, "--only", "open_loop", "policies_ranked") == 0
    assert "policies_ranked is left out: a success detector for 'pick' needs 8" in capsys.readouterr().out
    card = json.loads((tmp_path / "card/card.json").read_text())
    assert "open_loop" in card and "policies_ranked" not in card
    with pytest.raises(UserError, match="needs 8 successful true episodes.*with --tasks"):
        run(Model(), monkeypatch, *options, "--only", "policies_ranked")


def test_options_that_help_names_are_those_of_the_card() -> None:
    assert command._HORIZONS == HORIZONS and command._SECTIONS == (*SECTIONS, "policies_ranked")


def test_mistakes(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: object) -> None:
        run(Model(), monkeypatch, "--data", data, *arguments)

    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out is the file '.*file'; name a folder"):
        wrong("--out", tmp_path / "file")
    with pytest.raises(UserError, match="card lies in the file '.*file'; name another place"):
        wrong("--out", tmp_path / "file" / "card")
    with pytest.raises(UserError, match="split 'test'"):
        wrong("--out", tmp_path / "card", "--split", "test")
    with pytest.raises(UserError, match="--executed is for policies that act now"):
        wrong("--out", tmp_path / "card", "--policies", "zero", "random", "--real", "x", "y", "--executed", 2)
    with pytest.raises(UserError, match="--only leaves it out"):
        wrong("--out", tmp_path / "card", "--only", "open_loop", "--policies", "zero", "random")
    with pytest.raises(UserError, match="--real names results of policies, and none are named"):
        wrong("--out", tmp_path / "card", "--real", "x", "y")
    with pytest.raises(UserError, match="at least 1 step, got 0"):
        wrong("--out", tmp_path / "card", "--steps", 0)
    with pytest.raises(UserError, match=r"a noise level in \[0, 1\), got 1"):
        wrong("--out", tmp_path / "card", "--context-level", 1)
    with pytest.raises(UserError, match="ascending"):
        wrong("--out", tmp_path / "card", "--horizons", 4, 2)
    assert not (tmp_path / "card").exists()
