"""The page and the summary say what the rows say, and compare only what is comparable."""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from selfflow_mm.data.writing import write_video
from selfflow_mm.errors import UserError
from selfflow_robotics.simpler import trials
from selfflow_robotics.simpler.films import first_picture
from selfflow_robotics.simpler.report import LostTrial, as_text, read_lost, write_report
from selfflow_robotics.simpler.scoreboard import scoreboard
from selfflow_robotics.simpler.summary import summarise
from selfflow_robotics.simpler.wall import FAILURE, SUCCESS, wall
from selfflow_tokenizers.media import Video
from tests.robotics.simpler.rows import of_task, row, rows, settings, write_run

GOOGLE = "google-visual-matching"


def page_of(folder: Path) -> str:
    """Its text, without tags."""
    return html.unescape(re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text()))


def test_the_summary_on_disk_is_the_summary(tmp_path: Path) -> None:
    found = trials("widowx")
    run = write_run(tmp_path, rows(found[:-1], lambda i: i < 40))
    lost = [LostTrial.of(found[-1], "the simulator ended"), LostTrial.of(found[0], "it has a row by now")]
    summary = write_report(run, ["It was rendered otherwise."], lost)
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["settings"] == run.settings and content["episodes"] == 95
    assert content["deviations"] == ["It was rendered otherwise."]
    assert content["lost"] == [{"number": 95, "task": "put_eggplant_in_basket", "reason": "the simulator ended"}]
    assert read_lost(tmp_path) == (lost[0],)
    (group,) = content["groups"]
    assert [task["successes"] for task in group["tasks"]] == [24, 16, 0, 0]
    assert group["means"][0]["share"] == pytest.approx((1 + 16 / 24) / 4)
    text = as_text(summary, lost[:1])
    assert "mean of 4 tasks (spoon_on_towel" in text and "41.7%" in text and "the simulator ended" in text


def test_the_page_shows_what_happened(tmp_path: Path) -> None:
    found = trials("widowx")
    films = {3: "films/spoon_on_towel-00003.mp4", 4: "films/gone.mp4", 5: "films/broken.mp4"}
    results = [row(t, t.number < 12, video=films.get(t.number), success_any=t.number < 13) for t in found]
    run = write_run(tmp_path, results, shard="1/1")
    (tmp_path / "films").mkdir()
    write_video(tmp_path / films[3], Video(torch.zeros(9, 32, 48, 3, dtype=torch.uint8), 5))
    (tmp_path / films[5]).write_bytes(b"no film")
    for one in found[:3]:
        path = first_picture(tmp_path, one.number)
        path.parent.mkdir(exist_ok=True)
        Pillow.new("RGB", (48, 32), (10, 20, 30)).save(path)
    write_report(run, ["One thing is <otherwise>."], [])
    source, text = (tmp_path / "report.html").read_text(), page_of(tmp_path)
    assert "SIMPLER: toy" in text and "50.0%" in text and "One thing is <otherwise>." in text
    assert source.count("<video") == 2  # the broken film has its card, the one that is gone has none
    assert 'src="films/spoon_on_towel-00003.mp4"' in source and "gone.mp4" not in source
    card = next(part for part in source.split("<article")[1:] if "00003.mp4" in part)
    assert card.count("<img") == 1 and "do spoon_on_towel" in card and "success after 60 steps" in card
    assert "What 3 of 96 episodes began with" in text and "eval-simpler --shard 1/1" in text
    assert "conventions.sticky" in text and "policy.extra.weights" in text
    assert "http://" not in source and "https://" not in source  # nothing is loaded from elsewhere


@pytest.mark.parametrize("environment", ["tabletop", "dream"])
def test_other_environments_are_not_put_beside_simplers_figures(tmp_path: Path, environment: str) -> None:
    suite = "tabletop" if environment == "tabletop" else GOOGLE
    run = write_run(tmp_path, rows(trials(suite)), settings(suite, environment=environment))
    summary = write_report(run)
    assert scoreboard(run, summary) == []
    assert "published" not in page_of(tmp_path) and "official protocol" not in page_of(tmp_path)


def test_our_row_among_the_published_ones(tmp_path: Path) -> None:
    found = trials(GOOGLE)
    run = write_run(tmp_path, rows(found, lambda i: i % 10 < 7), settings(GOOGLE))
    board = scoreboard(run, summarise(run.rows, GOOGLE))
    names = [line[0] for line in board]
    place = names.index("toy (this run)")
    assert names[place - 1] == "SpatialVLA 4B" and names[place + 1] == "pi0-FAST"  # 73.8, about 70, 61.9
    assert board[place][3] == "3 tasks" and float(board[place][1][:-1]) == pytest.approx(70, abs=1)
    shares = [float(line[1][:-1]) for line in board]
    assert shares == sorted(shares, reverse=True)
    write_report(run, ["a", "b"])
    text = page_of(tmp_path)
    assert "deviates from the official protocol in 2 points" in text and "rt-1-converged" in text


def test_fewer_episodes_are_marked_and_a_mean_that_is_missing_is_not_shown(tmp_path: Path) -> None:
    few = trials(GOOGLE, per_task=10)
    run = write_run(tmp_path / "few", rows(few), settings(GOOGLE))
    names = [line[0] for line in scoreboard(run, summarise(run.rows, GOOGLE))]
    assert "toy (this run, 40 of 756 episodes)" in names
    cans = write_run(tmp_path / "cans", rows(of_task(GOOGLE, "pick_coke_can")), settings(GOOGLE))
    assert scoreboard(cans, summarise(cans.rows, GOOGLE)) == []


def test_the_papers_mean_stands_beside_the_papers_figure(tmp_path: Path) -> None:
    run = write_run(tmp_path, rows(trials("paper"), lambda i: True), settings("paper"))
    board = scoreboard(run, summarise(run.rows, "paper"))
    assert (board[0][0], board[0][1], board[0][3]) == ("toy (this run)", "100.0%", "the paper's 4 groups")
    assert [line[3] for line in board if line[0] == "Self-Flow 625M"] == ["the paper's 4 groups"]


def test_a_run_without_an_episode_has_a_page(tmp_path: Path) -> None:
    write_report(write_run(tmp_path, []))
    assert "No episode has ended yet." in page_of(tmp_path)


def test_a_summary_that_is_none_is_refused(tmp_path: Path) -> None:
    assert read_lost(tmp_path) == ()
    (tmp_path / "summary.json").write_text('{"format": "other", "version": 1}')
    with pytest.raises(UserError, match="is no summary"):
        read_lost(tmp_path)


def test_the_walls_frames_tell_the_outcome(tmp_path: Path) -> None:
    for name, colour in (("a", (0, 0, 0)), ("b", (255, 255, 255)), ("c", (0, 0, 0))):
        Pillow.new("RGB", (64, 48), colour).save(tmp_path / f"{name}.png")
    pictures = [(tmp_path / "a.png", True), (tmp_path / "b.png", False), (tmp_path / "c.png", True)]
    pixels = np.asarray(Pillow.open(io.BytesIO(wall(pictures, columns=2, width=40))), np.int64)
    assert pixels.shape == (2 * (30 + 6) + 3, 2 * (40 + 6) + 3, 3)
    for (y, x), frame, inside in (((0, 0), SUCCESS, 0), ((0, 49), FAILURE, 255), ((39, 0), SUCCESS, 0)):
        np.testing.assert_allclose(pixels[y + 1, x + 4 : x + 42].mean(axis=0), frame, atol=40)  # JPEG blurs a little
        np.testing.assert_allclose(pixels[y + 18, x + 23], inside, atol=8)
