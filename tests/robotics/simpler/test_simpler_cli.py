"""``selfflow-mm simpler``: help, results and messages of its commands as a user meets them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from selfflow_mm.cli.main import main
from selfflow_robotics.cli.simpler import SUBCOMMANDS
from selfflow_robotics.simpler import shard, trials
from selfflow_robotics.simpler.report import LostTrial, write_report
from selfflow_robotics.simpler.results import SuiteRun
from tests.robotics.simpler.rows import of_task, rows, settings, write_run

GOOGLE = "google-visual-matching"


def test_the_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simpler"]) == 0
    text = capsys.readouterr().out
    for name, (module, line) in SUBCOMMANDS.items():
        assert f"  {name}" in text and line in text
        assert importlib.import_module(module).HELP == line
    assert main(["--help"]) == 0
    assert "simpler " in capsys.readouterr().out


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["simpler", name, "--help"])
    text = capsys.readouterr().out
    assert f"selfflow-mm simpler {name}" in text and "examples:" in text


def test_merge_makes_a_whole_with_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = trials("widowx")
    first, second = shard(found, "1/2"), shard(found, "2/2")
    one = write_run(tmp_path / "1", rows(first[:-1]), shard="1/2")
    two = write_run(tmp_path / "2", rows([*second, first[0]], lambda i: 0 < i < 48), shard="2/2")
    write_report(one, [], [LostTrial.of(first[-1], "lost thrice")])
    # What the second shard gave up, the first one has.
    write_report(two, [], [LostTrial.of(first[2], "lost thrice")])
    assert main(["simpler", "merge", str(tmp_path / "1"), str(tmp_path / "2"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "95 episodes of 2 folders" in printed and "lost thrice" in printed and "report.html" in printed
    assert len(SuiteRun.load(tmp_path / "out").rows) == 95
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [trial["number"] for trial in summary["lost"]] == [first[-1].number]
    assert any("not all episodes" in sentence for sentence in summary["deviations"])
    assert (tmp_path / "out" / "report.html").exists()


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = of_task("widowx", "stack_cube", 10)
    write_run(tmp_path / "a", rows(found, lambda i: i < 5))
    write_run(tmp_path / "b", rows(found, lambda i: i < 2), settings(until="success"))
    assert main(["simpler", "compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    text = capsys.readouterr().out
    assert "+30.0%" in text and "until" in text
    assert main(["simpler", "compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["lines"][0]["only"] == 3 and plain["differences"][0]["setting"] == "until"


def test_rank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = []
    for policy, good in (("rt-1-x", 90), ("octo-base", 120)):
        found = rows(of_task(GOOGLE, "pick_coke_can"), lambda i, good=good: i < good)  # type: ignore[misc]
        write_run(tmp_path / policy, found, settings(GOOGLE))
        words.append(f"{policy}={tmp_path / policy}")
    assert main(["simpler", "rank", *words]) == 0
    assert "0.467" in capsys.readouterr().out  # both violated by .760 - .293
    assert main(["simpler", "rank", *words, "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert line["mmrv"] == pytest.approx(0.467) and line["policies"] == ["rt-1-x", "octo-base"]


def test_report_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = trials("widowx")
    run = write_run(tmp_path, rows(found[:50]))
    write_report(run, [], [LostTrial.of(found[60], "lost thrice"), LostTrial.of(found[70], "lost thrice")])
    write_run(tmp_path, rows(found[60:61]))  # one of them came to an end after all
    (tmp_path / "report.html").unlink()
    assert main(["simpler", "report", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "stack_cube" in text and "lost thrice" in text and (tmp_path / "report.html").exists()
    lost = json.loads((tmp_path / "summary.json").read_text())["lost"]
    assert [trial["number"] for trial in lost] == [found[70].number]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["merge", "A", "nowhere", "--out", "OUT"], "no results at nowhere"),
        (["merge", "A", "B", "--out", "OUT"], "has environment 'tabletop'"),
        (["merge", "A", "A", "--out", "OUT"], "named twice"),
        (["merge", "A", "--out", "B"], "not empty"),
        (["compare", "A", "B"], "no episode in common"),
        (["compare", "A", "nowhere"], "no results at nowhere"),
        (["rank", "A"], "POLICY=FOLDER"),
        (["rank", "mine=nowhere"], "no results at nowhere"),
        (["report", "nowhere"], "no results at nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write_run(tmp_path / "a", rows(trials("widowx", per_task=1)))
    write_run(tmp_path / "b", rows(trials("tabletop", per_task=1)), settings("tabletop"))
    places = {"A": str(tmp_path / "a"), "B": str(tmp_path / "b"), "OUT": str(tmp_path / "out")}
    assert main(["simpler", *(places.get(word, word) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["mine=A"], ["rt-1-x=A", "rt-1-x=A"], ["rt-1-x=A", "octo-base=B"]])
def test_what_cannot_be_ranked_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    write_run(tmp_path / "A", rows(trials("widowx", per_task=1)))
    write_run(tmp_path / "B", rows(trials("tabletop", per_task=1)), settings("tabletop"))
    assert main(["simpler", "rank", *(word.replace("=", f"={tmp_path}/") for word in words)]) == 2
    error = capsys.readouterr().err
    assert any(part in error for part in ("no real rates of 'mine'", "named twice", "two runs at least"))
