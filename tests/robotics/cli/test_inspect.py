"""``selfflow-mm robot-data inspect`` on files: what it prints, writes and returns."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from selfflow_mm.cli.main import main


def inspect(*arguments: object) -> int:
    return main(["robot-data", "inspect", *map(str, arguments)])


def test_tables_of_a_whole_data_set(small_rlds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(small_rlds, "--verify") == 0
    out = capsys.readouterr().out
    for line in (
        "train: 5 episodes in 2 shards",
        "all 5 episodes, every picture decoded",
        "25 in the episodes read, 5 s",
        "front 64 x 48, wrist 64 x 48",
        "steps of an episode: 3 to 7, median 5",
        "problems: none found",
    ):
        assert line in out
    assert out.index("  3  close") < out.index("  2  open")


def test_damage_is_shown_and_told_to_scripts(damaged_rlds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(damaged_rlds, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["read"]["good"] == 4 and data["steps"] == 3 + 4 + 6 + 7
    (bad,) = data["problems"]["bad_episodes"]
    assert (bad["shard"], bad["index"]) == ("small-train.tfrecord-00000-of-00002", 2)
    assert inspect(damaged_rlds, "--verify") == 1
    out = capsys.readouterr().out
    assert "1 cannot be read" in out and "small-train.tfrecord-00000-of-00002  2" in out
    assert inspect(damaged_rlds) == 0  # only --verify judges


def test_a_missing_shard_is_shown_and_the_rest_read(small_rlds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small_rlds / "small-train.tfrecord-00000-of-00002").unlink()
    assert inspect(small_rlds, "--verify", "--json") == 1
    data = json.loads(capsys.readouterr().out)
    assert data["problems"]["missing_shards"] == ["small-train.tfrecord-00000-of-00002"]
    assert data["steps"] == 6 + 7 and data["episodes"] == 5 and data["problems"]["bad_episodes"] == []


def test_a_report_is_written(small_rlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(small_rlds, "--out", tmp_path / "report", "--episodes", 2) == 0
    assert f"the report is {tmp_path / 'report' / 'index.html'}" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["episode-000000.png", "episode-000001.png", "index.html"]
    assert "the first 2 of 5 episodes" in (tmp_path / "report" / "index.html").read_text()


def test_the_real_bridge_file_is_as_another_reader_sees_it(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared_data / "rlds" / "bridge_dataset" / "1.0.0"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    tfrecord = pytest.importorskip("tfrecord")
    (file,) = folder.glob("*train.tfrecord*")
    told: Counter[str] = Counter()
    steps = 0
    for record in tfrecord.tfrecord_loader(
        str(file), None, {"steps/language_instruction": "byte", "steps/reward": "float"}
    ):
        steps += len(record["steps/reward"])
        told[bytes(record["steps/language_instruction"][0]).decode()] += 1
    assert inspect(folder, "--verify", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["steps"] == steps == 250 and data["episodes"] == 25
    assert data["instructions"] == told and told.total() == 25
    assert list(data["problems"]["absent_splits"]) == ["val"]
    assert data["cameras"] == {f"image_{i}": [64, 64] for i in range(4)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no 'nowhere'"),
        (["."], "holds no robot data that is known"),
        (["{folder}", "--episodes", "0"], "at least 1, got 0"),
        (["{folder}", "--seed", "-1"], "--seed is 0 or more"),
        (["{folder}", "--split", "tset"], "tset"),
        (["{folder}", "--layout", "missing.yaml"], "there is no layout 'missing.yaml'"),
        (["{folder}", "--out", "{folder}/layout.yaml"], "a report needs a folder"),
    ],
    ids=["no folder", "no data", "episodes", "seed", "split", "layout", "out"],
)
def test_mistakes_end_with_2_and_a_sentence(
    small_rlds: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect(*(word.format(folder=small_rlds) for word in arguments)) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""
