"""Surveys, tables and reports of data sets whose contents are counted by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from selfflow_mm.errors import UserError
from selfflow_robotics.look.facts import as_data, features, length_bins, problems, ranges, summary
from selfflow_robotics.look.report import histogram, write_report
from selfflow_robotics.look.survey import _Sample, survey
from selfflow_robotics.look.tables import as_text, table

from .standin import StandIn, robot_files

TOLD = {(0, 0): "pick", (0, 1): "push", (1, 0): "pick", (1, 1): "pick"}


def damaged() -> StandIn:
    """Nine episodes: four good ones, of 3, 4, 5 and 7 steps; three bad, two in a shard that is not there."""
    return StandIn(
        [[3, 4, 9, 9], [5, 7, 9], [6, 6]],
        told=TOLD,
        bad={(0, 2): "its checksum is wrong", (0, 3): "its checksum is wrong", (1, 2): "it ends early"},
        missing=frozenset({2}),
        splits={"train": 9, "val": 4},
    )


def facts(files: StandIn, **how: object) -> dict[str, str]:
    robot = robot_files(files)
    return dict(summary(robot, survey(robot, **how)))  # type: ignore[arg-type]


def test_counts_are_those_of_the_good_episodes() -> None:
    found = survey(robot_files(damaged()))
    assert found.lengths == [3, 4, 5, 7] and found.steps == 19 and found.stated == 9
    assert found.instructions == {"pick": 3, "push": 1}
    assert found.places == [(0, 0, 0), (0, 1, 1), (1, 0, 4), (1, 1, 5)]  # numbered over bad ones too
    assert found.cameras == {"front": (24, 32)} and found.robot == "widowx" and found.control_rate == 5
    assert [(b.shard, b.index) for b in found.bad] == [("shard-0", 2), ("shard-0", 3), ("shard-1", 2)]
    assert found.missing == ["shard-2"] and found.damaged
    expected = np.repeat([0.0, 0.1, 1.0, 1.1], [3, 4, 5, 7])
    assert np.allclose(found.actions, expected[:, None]) and found.actions.shape == (19, 7)


def test_the_tables_say_so() -> None:
    text = facts(damaged())
    assert text["split looked at"] == "train: 9 episodes in 3 shards"
    assert text["read"] == "all 7 episodes that are there; 3 cannot be read"
    assert text["steps"] == "19 in the episodes read, 3.8 s"
    assert text["instructions"] == "2 different" and text["cameras"] == "front 32 x 24"
    assert text["name"] == "standin, version 1.2.3" and text["control rate"] == "5 Hz"
    assert problems(survey(robot_files(damaged()))) == [
        ("shard-2", "all", "the shard is not there"),
        ("shard-0", "2-3", "its checksum is wrong"),
        ("shard-1", "2", "it ends early"),
    ]


def test_features_tell_what_the_layout_takes_them_for() -> None:
    rows = {row[0]: row[1:] for row in features(robot_files(damaged()))}
    assert rows["action"] == ("array", "7", "float32", "", "action")
    assert rows["observation/image"] == ("picture", "24 x 32 x 3", "uint8", "jpeg", "image front")
    assert rows["observation/depth"] == ("picture", "? x ? x 1", "uint16", "png", "unused")
    assert rows["language"][-1] == "instruction" and rows["reward"] == ("array", "scalar", "float64", "", "unused")
    assert rows["operator"] == ("text (per episode)", "scalar", "str", "", "unused")


def test_a_limit_reads_the_first_ones_and_says_so() -> None:
    files = StandIn([[4] * 6, [8] * 4])
    found = survey(robot_files(files), limit=7)
    assert found.lengths == [4] * 6 + [8] and not found.complete
    text = facts(files, limit=7)
    assert text["read"] == "the first 7 of 10 episodes (--all reads everything)"
    assert text["steps"] == "32 in the episodes read, 6.4 s; in all episodes about 46, 9.14 s"  # 32 / 7 * 10
    assert survey(robot_files(files), limit=None).complete and survey(robot_files(files), limit=10).complete
    assert text["instructions"] == "0 different, 7 episodes without"


def test_verifying_decodes_every_picture_and_reads_every_episode() -> None:
    files = StandIn([[4, 100, 4]], broken_picture={(0, 1): 99}, really={0: 2})
    quick = survey(robot_files(files), limit=3)
    assert not quick.bad and not quick.damaged and quick.good == 3
    found = survey(robot_files(files), limit=1, verify=True)
    assert found.damaged and found.lengths == [4] and found.miscounted == [("shard-0", 3, 2)]
    assert problems(found) == [
        ("shard-0", "", "it holds 2 episodes, 3 are stated"),
        ("shard-0", "1", "'observation/image': the picture of step 99 cannot be decoded (broken)"),
    ]
    whole = survey(robot_files(StandIn([[4, 5]])), verify=True)
    assert not whole.damaged and whole.complete


@pytest.mark.parametrize(
    "fault",
    [
        {"bad": {(0, 1): "its checksum is wrong"}},
        {"missing": frozenset({1})},
        {"really": {0: 1}},
        {"not_finite": {(0, 0)}},
        {"broken_picture": {(1, 0): 3}},
    ],
    ids=["bad", "missing", "miscounted", "not finite", "picture"],
)
def test_each_fault_alone_is_damage(fault: dict) -> None:
    found = survey(robot_files(StandIn([[4, 5], [6]], **fault)), verify=True)
    assert found.damaged and len(problems(found)) == 1


def test_numbers_that_are_none_are_a_problem() -> None:
    found = survey(robot_files(StandIn([[4, 5]], not_finite={(0, 1)})))
    assert found.not_finite == ["0/1"] and found.damaged and found.good == 2
    json.dumps(as_data(robot_files(StandIn([[4]], not_finite={(0, 0)})), found), allow_nan=False)


def test_stated_splits_that_are_not_there_are_listed() -> None:
    def open_split(name: str) -> StandIn:
        if name == "val":
            raise UserError("split 'val' has no data")
        return StandIn([[1], [1]], missing=frozenset({1} if name == "part" else ()))

    files = StandIn([[4]], splits={"train": 1, "val": 25, "part": 2, "whole": 2, "empty": 0})
    found = survey(robot_files(files), open_split=open_split)
    assert found.absent_splits == {
        "val": "split 'val' has no data",
        "part": "1 of its 2 shards are not there, such as shard-1",
    }
    assert not found.damaged  # this split is whole
    text = dict(summary(robot_files(files), found))["splits"]
    assert text == "train 1, val 25 (not all there), part 2 (not all there), whole 2, empty 0"


def test_an_empty_data_set_has_tables_too(tmp_path: Path) -> None:
    for files in (StandIn([]), StandIn([[], []])):
        robot = robot_files(files)
        found = survey(robot)
        assert ("the split", "", "it has no episodes") in problems(found)
        assert "train: 0 episodes" in as_text(robot, found)
        json.dumps(as_data(robot, found))
        write_report(tmp_path, robot, found)


def test_the_text_has_every_block() -> None:
    robot = robot_files(damaged())
    text = as_text(robot, survey(robot))
    assert "steps of an episode: 3 to 7, median 4.5" in text
    bars = re.findall(r"^  (\d) +(\d) +█+$", text, re.M)
    assert bars == [("3", "1"), ("4", "1"), ("5", "1"), ("7", "1")]
    assert re.search(r"^ +3  pick$", text, re.M) and re.search(r"^ +1  push$", text, re.M)
    assert "first actions" in text and text.count("+0.0000") == 3 * 7  # the first episode has 3 steps
    assert "the shard is not there" in text
    whole = StandIn([[4]])
    assert "problems: none found" in as_text(robot_files(whole), survey(robot_files(whole)))


def test_data_for_machines_hold_the_same() -> None:
    robot = robot_files(damaged())
    data = json.loads(json.dumps(as_data(robot, survey(robot))))
    assert data["episodes"] == 9 and data["steps"] == 19 and data["split"] == "train"
    assert data["read"] == {"episodes": 7, "good": 4, "all": True, "verified": False}
    assert data["lengths"] == {"min": 3, "median": 4.5, "max": 7} and data["instructions"] == {"pick": 3, "push": 1}
    assert data["problems"]["bad_episodes"][2] == {"shard": "shard-1", "index": 2, "reason": "it ends early"}
    assert data["problems"]["missing_shards"] == ["shard-2"] and data["problems"]["damaged"]
    assert data["features"][0]["taken_for"] == "action" and data["cameras"] == {"front": [24, 32]}


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 12))
def test_histograms_of_lengths_count_every_episode_once(lengths: list[int], most: int) -> None:
    bins = length_bins(lengths, most)
    assert len(bins) <= most and bins[0][0] == min(lengths) and bins[-1][1] == max(lengths)
    assert [count for _, _, count in bins] == [sum(a <= n <= b for n in lengths) for a, b, _ in bins]
    assert sum(count for _, _, count in bins) == len(lengths)


@given(st.sets(st.integers(0, 30)))
def test_ranges_name_every_number(numbers: set[int]) -> None:
    named = set()
    for part in filter(None, ranges(numbers).split(", ")):
        first, _, last = part.partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == numbers and (not numbers or ranges(range(5)) == "0-4")


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 50), st.integers(0, 3))
def test_a_sample_keeps_all_rows_or_an_even_choice(parts: list[int], size: int, seed: int) -> None:
    rows = np.arange(sum(parts), dtype=np.float32)[:, None]
    sample = _Sample(size, seed)
    for part in np.split(rows, np.cumsum(parts)[:-1]) if parts else []:
        sample.add(part)
    kept = sample.rows().ravel()
    assert len(kept) == min(size, len(rows)) and len(set(kept)) == len(kept) and set(kept) <= set(rows.ravel())
    assert (np.diff(kept) > 0).all()


def test_the_choice_favours_neither_early_nor_late_rows() -> None:
    means = []
    for seed in range(30):
        sample = _Sample(100, seed)
        for start in range(0, 2000, 50):
            sample.add(np.arange(start, start + 50)[:, None])
        means.append(sample.rows().mean())
    # The mean of 100 of 0..1999 has a standard deviation of 577 / 10; that of 30 such means is 10.5.
    assert abs(np.mean(means) - 999.5) < 4 * 10.5


def test_histograms_of_actions_hold_every_step() -> None:
    actions = np.zeros((1000, 7), np.float32)
    actions[:, 0] = np.linspace(-0.02, 0.02, 1000)
    actions[0, 0] = 22
    actions[1, 0] = np.nan
    names = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
    middles, shares = histogram(actions, names, "x")
    assert sum(shares) == pytest.approx(1) and -2 < min(middles) < max(middles) < 2  # centimetres, without the outlier
    assert max(shares) < 2.5 / 60
    assert histogram(actions, names, "y") == ([0.0], [1.0])


def test_tables_align_and_leave_out_empty_columns() -> None:
    assert table([("a", 1000, ""), ("bcd", 2, "")], ("name", "count", "note")) == "\n".join(
        ["  name  count", "  a     1,000", "  bcd       2"]
    )


def test_a_report_shows_what_can_be_shown(tmp_path: Path) -> None:
    files = StandIn([[3, 4, 6], [5, 7]], told=TOLD, bad={(0, 2): "its checksum is wrong"}, broken_picture={(1, 1): 0})
    robot = robot_files(files)
    found = survey(robot)
    assert found.cameras == {"front": (24, 32)} and found.good == 4
    page = write_report(tmp_path / "report", robot, found, sheets=4)
    html = page.read_text()
    sheets = sorted(path.name for path in page.parent.glob("*.png"))
    assert sheets == ["episode-000000.png", "episode-000001.png", "episode-000003.png"]
    for name in sheets:
        assert f'src="{name}"' in html
        with Pillow.open(page.parent / name) as sheet:
            sheet.load()
    assert "its checksum is wrong" in html and "step 0 cannot be decoded" in html
    assert "19 in the episodes read" in html and ">pick<" in html
    assert sorted(path.name for path in page.parent.iterdir()) == [*sheets, "index.html"]


def test_the_seed_chooses_the_episodes(tmp_path: Path) -> None:
    robot = robot_files(StandIn([[2] * 30]))
    found = survey(robot)

    def chosen(name: str, seed: int) -> list[str]:
        write_report(tmp_path / name, robot, found, sheets=3, seed=seed)
        return sorted(path.name for path in (tmp_path / name).glob("*.png"))

    assert chosen("a", 1) == chosen("b", 1) != chosen("c", 2)


def test_a_file_is_no_place_for_a_report(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    robot = robot_files(StandIn([[2]]))
    with pytest.raises(UserError, match="a report needs a folder"):
        write_report(tmp_path / "file", robot, survey(robot))
    assert (tmp_path / "file").read_text() == "kept"
