"""Shards in any split are the whole again."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_robotics.simpler import shard, trials
from selfflow_robotics.simpler.films import first_picture
from selfflow_robotics.simpler.merging import merge
from selfflow_robotics.simpler.results import SuiteRun
from tests.robotics.simpler.rows import row, rows, settings, write_run

FOUND = trials("widowx", per_task=4)
WHOLE = rows(FOUND, lambda i: i % 3 == 0)


@hypothesis_settings(max_examples=15, deadline=None)
@given(st.lists(st.sets(st.integers(0, 2), min_size=1), min_size=len(WHOLE), max_size=len(WHOLE)), st.randoms())
def test_any_split_of_the_episodes_is_the_whole_again(owners: list[set[int]], random) -> None:  # type: ignore[no-untyped-def]
    """Every episode lies in one or more of three shards, in any order."""
    with tempfile.TemporaryDirectory() as place:
        whole = write_run(Path(place, "whole"), WHOLE)
        folders = []
        for number in range(3):
            own = [one for one, owner in zip(WHOLE, owners, strict=True) if number in owner]
            random.shuffle(own)
            folders.append(write_run(Path(place, str(number)), own).folder)
        merged = merge(folders, Path(place, "merged"))
        assert merged.rows == whole.rows and merged.settings == whole.settings
        # In the file too, and not only when it is read:
        assert [
            json.loads(line)["number"] for line in Path(place, "merged/results.jsonl").open() if '"number"' in line
        ] == [one.number for one in whole.rows]


def test_films_first_pictures_and_provenance_come_along(tmp_path: Path) -> None:
    for part in ("1/2", "2/2"):
        folder = tmp_path / part[0]
        own = [
            row(trial, video=f"films/{trial.arrangement.task}-{trial.number:05d}.mp4") for trial in shard(FOUND, part)
        ]
        write_run(folder, own, shard=part)
        for one in own:
            assert one.video is not None
            for path in (folder / one.video, first_picture(folder, one.number)):
                path.parent.mkdir(exist_ok=True)
                path.write_text(f"{path.name} of {part}")
    merged = merge([tmp_path / "1", tmp_path / "2"], tmp_path / "deep" / "out")
    assert [start["shard"] for start in merged.provenance["runs"]] == ["1/2", "2/2"]
    for place in "12":
        shutil.rmtree(tmp_path / place)  # links outlive what they were made of
    for i, one in enumerate(merged.rows):
        assert one.video is not None
        text = (merged.folder / one.video).read_text()
        assert text == f"{Path(one.video).name} of {1 + i % 2}/2"
        assert first_picture(merged.folder, one.number).read_text().endswith(f"of {1 + i % 2}/2")
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["out"]  # no draft is left


def test_of_a_trial_in_two_shards_the_filmed_one_is_taken(tmp_path: Path) -> None:
    write_run(tmp_path / "a", WHOLE)
    (tmp_path / "b" / "films").mkdir(parents=True)
    (tmp_path / "b" / "films" / "x.mp4").write_text("film")
    write_run(tmp_path / "b", [replace(WHOLE[3], video="films/x.mp4", seconds=9, queries=4, stats={})])
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert [one.video for one in merged.rows].count("films/x.mp4") == 1 and merged.rows[3].video == "films/x.mp4"
    assert (tmp_path / "out/films/x.mp4").read_text() == "film" and len(merged.rows) == len(WHOLE)


@pytest.mark.parametrize("change", [{"success": False}, {"steps": 7}, {"seed": 1}, {"environment": "Other-v0"}])
def test_a_trial_with_two_outcomes_is_named(tmp_path: Path, change: dict) -> None:  # type: ignore[type-arg]
    write_run(tmp_path / "a", WHOLE)
    write_run(tmp_path / "b", [replace(WHOLE[3], **change)])
    assert WHOLE[3].success
    with pytest.raises(UserError, match=rf"trial {WHOLE[3].number} \({WHOLE[3].task}\) came out otherwise in .*b than"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_settings_are_refused_and_the_first_is_named(tmp_path: Path) -> None:
    about = settings(until="success")
    about["policy"]["extra"] = {"weights": "def"}
    write_run(tmp_path / "a", WHOLE[:3])
    write_run(tmp_path / "b", WHOLE[3:], about)
    with pytest.raises(UserError, match="b has until 'success' and .*a 'limit'"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    about["until"] = "limit"
    write_run(tmp_path / "c", WHOLE[3:], about)
    with pytest.raises(UserError, match="policy.extra.weights 'def'"):
        merge([tmp_path / "a", tmp_path / "c"], tmp_path / "out")


def test_a_folder_that_holds_something_is_kept(tmp_path: Path) -> None:
    write_run(tmp_path / "a", WHOLE)
    (tmp_path / "out").mkdir()
    assert merge([tmp_path / "a"], tmp_path / "out").rows == WHOLE  # an empty one is taken
    with pytest.raises(UserError, match="not empty"):
        merge([tmp_path / "a"], tmp_path / "out")
    with pytest.raises(UserError, match="not empty"):
        merge([tmp_path / "a"], tmp_path / "a")
    assert SuiteRun.load(tmp_path / "a").rows == WHOLE
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be written|not empty"):
        merge([tmp_path / "a"], tmp_path / "file")
    with pytest.raises(UserError, match="cannot be written"):
        merge([tmp_path / "a"], tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(UserError, match="named twice"):
        merge([tmp_path / "a", tmp_path / "x" / ".." / "a"], tmp_path / "new")
    with pytest.raises(UserError, match="no results at"):
        merge([tmp_path / "nothing"], tmp_path / "new")
