"""The command: files, table, going on, comparing, and mistakes."""

from __future__ import annotations

import argparse
import json

import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.cli import rollout as command
from selfflow_robotics.policies import ActingOptions, load_policy
from selfflow_robotics.rollouts import read_results
from selfflow_robotics.serving import PolicyServer, ServerOptions


def call(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(a) for a in arguments]))


SHORT = ("--tasks", "pick", "close_drawer", "--episodes", 2, "--max-steps", 8, "--workers", 0)


def test_a_run_writes_results_summary_and_page(tmp_path, capsys):
    out = tmp_path / "random"
    assert call("random", *SHORT, "--executed", 4, "--film", 1, "--out", out) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table[1:4]] == ["pick", "close_drawer", "all"]
    summary = json.loads((out / "summary.json").read_text())
    assert [line["task"] for line in summary["tasks"]] == ["pick", "close_drawer", "all tasks"]
    assert summary["settings"]["acting"]["executed"] == 4
    assert summary["settings"]["tabletop"]["gripper"] == "level"
    assert summary["settings"]["policy"]["name"] == "random"
    page = (out / "report.html").read_text()
    assert "films/pick-0000.mp4" in page and "films/pick-0001.mp4" not in page and "8 steps" in page
    assert len((out / "results.jsonl").read_text().splitlines()) == 5

    before = (out / "results.jsonl").read_bytes()
    call("random", *SHORT, "--executed", 4, "--out", out)
    assert (out / "results.jsonl").read_bytes() == before
    with pytest.raises(UserError, match="--overwrite"):
        call("random", *SHORT, "--executed", 2, "--out", out)
    call("random", *SHORT, "--executed", 2, "--out", out, "--overwrite")
    assert (out / "results.jsonl").read_bytes() != before


def test_two_policies_are_compared_on_the_same_episodes(tmp_path, capsys):
    call("zero", *SHORT, "--out", tmp_path / "zero")
    call("random", *SHORT, "--out", tmp_path / "random", "--against", tmp_path / "zero")
    assert "McNemar p" in capsys.readouterr().out
    comparison = json.loads((tmp_path / "random" / "summary.json").read_text())["comparison"]
    assert comparison["other"].endswith("zero") and comparison["tasks"][0]["episodes"] == 2
    with pytest.raises(UserError, match="another scene"):
        call("zero", *SHORT, "--seed", 1, "--out", tmp_path / "seed", "--against", tmp_path / "zero")
    assert not (tmp_path / "seed").exists(), "known before the first episode is acted"


def test_a_served_policy_acts_as_at_hand(tmp_path, monkeypatch):
    """Scenes, seeds and queries are the same, so the episodes are, behind a server with a key and other habits."""
    call("random", *SHORT, "--executed", 4, "--out", tmp_path / "here")
    acting = ActingOptions(executed=2, ensemble="temporal", seed=9)
    server = PolicyServer(load_policy("random"), ServerOptions(port=0, api_key="secret"), acting)
    monkeypatch.delenv("SELFFLOW_API_KEY", raising=False)
    with server.background() as url:
        with pytest.raises(UserError, match="refuses: 401"):
            call(url, *SHORT, "--executed", 4, "--out", tmp_path / "there")
        monkeypatch.setenv("SELFFLOW_API_KEY", "secret")
        with pytest.raises(UserError, match="set where it is served: leave out steps"):
            call(url, *SHORT, "--steps", 4, "--out", tmp_path / "there")
        assert not (tmp_path / "there").exists()
        call(url, *SHORT, "--executed", 4, "--out", tmp_path / "there")
    (here, mine), (there, theirs) = (read_results(tmp_path / name / "results.jsonl") for name in ("here", "there"))
    assert mine == theirs and here["policy"]["name"] == there["policy"]["name"] == "random"


def test_a_mistake_costs_no_results(tmp_path):
    """Old results are forgotten once everything else that was said is known to fit."""
    out = tmp_path / "zero"
    call("zero", *SHORT, "--out", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for arguments, words in (
        (("--tasks", "nosuch"), "no task 'nosuch'"),
        (("--episodes", 0), "at least one episode"),
        (("--workers", -1), "workers at least 0"),
        (("--executed", 9), "too few to carry out 9"),
        (("--seed", 1, "--against", out), "another scene"),
    ):
        with pytest.raises(UserError, match=words):
            call("zero", *SHORT, *arguments, "--out", out, "--overwrite")
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_films_are_of_the_results_beside_them(tmp_path, capsys):
    out, one = tmp_path / "out", ("--tasks", "pick", "--episodes", 1, "--max-steps", 2, "--workers", 0)
    call("zero", *one, "--film", 1, "--out", out)
    assert "film" not in capsys.readouterr().err
    (out / "films" / "mine.mp4").write_bytes(b"not of an episode")
    call("random", *one, "--out", out, "--overwrite")
    assert [path.name for path in (out / "films").iterdir()] == ["mine.mp4"]
    assert "pick-0000.mp4" not in (out / "report.html").read_text()
    call("random", *one, "--film", 1, "--out", out)
    assert "1 of the episodes to be filmed were acted before without a film" in capsys.readouterr().err


def test_a_trained_model_acts(tmp_path, tiny_robot_model, capsys):
    arguments = ("--tasks", "pick", "--episodes", 3, "--max-steps", 6, "--executed", 2, "--ensemble", "temporal")
    call(tiny_robot_model.run, *arguments, "--steps", 2, "--batch", 2, "--workers", 1, "--out", tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "summary.json").read_text())["settings"]
    assert settings["policy"]["extra"]["steps"] == 2 and settings["policy"]["needs_state"] is False
    assert settings["acting"]["ensemble"] == "temporal"
    with pytest.raises(UserError, match="has no setting 'statistics'"):
        call(tiny_robot_model.run, *arguments, "--statistics", "x.json", "--out", tmp_path / "other")


def test_mistakes(tmp_path):
    for arguments, words in (
        (("zero", "--steps", 3), "has no setting 'steps'"),
        (("randon",), "nearest is 'random'"),
        (("zero", "--film", -1), "--film"),
        (("zero", "--video-level", "0.5x"), "--video-level is absent, denoised or a number"),
        (("zero", "--against", tmp_path), "there are no results"),
        (("zero", "--ensemble", "temporal"), "nothing to average"),
    ):
        with pytest.raises(UserError, match=words):
            call(*arguments, *SHORT, "--out", tmp_path / "out")
    for arguments, words in (
        (("--workers", -1), "workers at least 0"),
        (("--batch", 0), "a batch is at least 1"),
        (("--episodes", 10**20), "at most 1000000 episodes"),
    ):
        with pytest.raises(UserError, match=words):
            call("zero", *SHORT, *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "inside", tmp_path / ("a" * 300)):
        with pytest.raises(UserError, match="results cannot be written to .*name a folder that can be made"):
            call("zero", *SHORT, "--out", out)
