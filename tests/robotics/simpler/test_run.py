"""A run in its folder, with workers and supervisors that die: nothing is lost, nothing is acted twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from selfflow_mm.cli.main import main
from selfflow_mm.errors import UserError
from selfflow_robotics.policies import load_policy
from selfflow_robotics.simpler import trials, worker
from selfflow_robotics.simpler.conventions import PRESETS
from selfflow_robotics.simpler.crew import ProcessCrew
from selfflow_robotics.simpler.results import SuiteRun
from selfflow_robotics.simpler.run import Setup, run_suite
from selfflow_robotics.simpler.runner import RunOptions

WORLD = "selfflow_robotics.simpler.tabletop_world:TabletopWorld"


def evaluate(out: Path, *more: str) -> list[str]:
    arguments = ["--policy", "random", "--env", "tabletop", "--tasks", "pick", "--film", "0", "--out", str(out)]
    return ["eval-simpler", *arguments, *more]


def outcomes(folder: Path) -> dict[int, Any]:
    """Number -> all of a row but times and places; fails where a trial has two rows."""
    lines = (folder / "results.jsonl").read_text().splitlines()[1:]
    numbers = [json.loads(line)["number"] for line in lines]
    assert len(numbers) == len(set(numbers))
    return {row.number: row for row in SuiteRun.load(folder).rows}


def test_the_command_acts_films_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    told = ["--policy", "random", "--env", "tabletop", "--tasks", "pick", "close_drawer", "--trials", "2"]
    assert main(["eval-simpler", *told, "--film", "1", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "close_drawer" in text and str(out / "report.html") in text
    run = SuiteRun.load(out)
    assert [row.task for row in run.rows] == ["pick"] * 2 + ["close_drawer"] * 2
    assert {row.steps for row in run.rows} == {80, 113}  # to the limit, as officially
    filmed = [row for row in run.rows if row.video]
    assert len(filmed) == 2
    with av.open(str(out / str(filmed[0].video))) as film:
        assert sum(1 for _ in film.decode(video=0)) == 81
    assert len(list((out / "first").iterdir())) == 4
    summary = json.loads((out / "summary.json").read_text())
    assert any("2 of 100 of pick" in sentence for sentence in summary["deviations"])
    assert any("test bed" in sentence for sentence in summary["deviations"])
    start = run.provenance["runs"][0]
    assert start["simulator"]["versions"]["gymnasium"] and start["versions"]["python"] and start["workers"] == 1
    assert "<video" in (out / "report.html").read_text()


def test_more_trials_add_to_what_is_there_and_shards_merge_to_the_whole(tmp_path: Path) -> None:
    whole, grown, merged = (tmp_path / name for name in ("whole", "grown", "merged"))
    assert main(evaluate(whole, "--trials", "4", "--workers", "2")) == 0
    assert main(evaluate(grown, "--trials", "2")) == 0
    few = outcomes(grown)
    assert main(evaluate(grown, "--trials", "4")) == 0
    assert set(outcomes(grown)) == set(few) | set(outcomes(whole))
    for part in ("1/2", "2/2"):
        assert main(evaluate(tmp_path / part[0], "--trials", "4", "--shard", part)) == 0
    assert main(["simpler", "merge", str(tmp_path / "1"), str(tmp_path / "2"), "--out", str(merged)]) == 0
    assert outcomes(merged) == outcomes(whole)
    assert all(outcomes(grown)[number] == row for number, row in outcomes(whole).items())


def test_another_seed_is_other_episodes_and_not_mixed_with_these(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(evaluate(tmp_path, "--trials", "1")) == 0
    before = outcomes(tmp_path)
    assert main(evaluate(tmp_path, "--trials", "1", "--seed", "1")) == 2
    assert "has episodes with seed 0, and now it is 1" in capsys.readouterr().err
    assert main(evaluate(tmp_path, "--trials", "1", "--seed", "1", "--overwrite")) == 0
    assert [row.seed for row in outcomes(tmp_path).values()] != [row.seed for row in before.values()]


def _start(out: Path, *more: str) -> subprocess.Popen[bytes]:
    code = "import sys; from selfflow_mm.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *evaluate(out, *more)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    try:
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        return [int(child) for child in listed.split()]
    except OSError:
        return []


def _rows_on_disk(out: Path) -> int:
    path = out / "results.jsonl"
    return path.read_bytes().count(b"\n") - 1 if path.exists() else 0


def _kill_until_done(out: Path, episodes: int, kills: int, seed: int, workers: int) -> tuple[int, int]:
    """Run the command again and again, killing workers and supervisors at random moments; how many of each."""
    chance = random.Random(seed)
    killed = [0, 0]
    process = None
    for kill in range(kills):
        mark = (kill + 1) * episodes // (kills + 1)
        workers_there: list[int] = []
        while _rows_on_disk(out) < mark or not workers_there:
            assert _rows_on_disk(out) < episodes, "all was acted before everybody was killed"
            if process is None or process.poll() is not None:
                process = _start(out, "--trials", str(episodes), "--workers", str(workers), "--attempts", "9")
            time.sleep(0.02)
            workers_there = _workers_of(process)
        time.sleep(chance.uniform(0, 0.1))
        assert process is not None
        if kill % 2:
            process.kill()
            process.wait()
            killed[1] += 1
            _gone(workers_there)
        else:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers_there), signal.SIGKILL)
                killed[0] += 1
    while process is None or process.poll() != 0:
        process = _start(out, "--trials", str(episodes), "--workers", str(workers), "--attempts", "9")
        process.wait()
    return killed[0], killed[1]


def _gone(processes: list[int]) -> None:
    """Workers end by themselves when their supervisor is gone."""
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{number}") for number in processes):
        assert time.monotonic() < deadline, "a worker outlived its supervisor"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for workers in /proc")
def test_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    killed = _kill_until_done(tmp_path / "killed", episodes=20, kills=4, seed=0, workers=2)
    assert killed == (2, 2)
    assert main(evaluate(tmp_path / "whole", "--trials", "20", "--workers", "2")) == 0
    assert outcomes(tmp_path / "killed") == outcomes(tmp_path / "whole")


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for workers in /proc")
def test_a_hundred_episodes_and_ten_kills(tmp_path: Path) -> None:
    killed = _kill_until_done(tmp_path / "killed", episodes=100, kills=10, seed=1, workers=2)
    assert killed == (5, 5)
    assert main(evaluate(tmp_path / "whole", "--trials", "100", "--workers", "2")) == 0
    assert len(outcomes(tmp_path / "whole")) == 100
    assert outcomes(tmp_path / "killed") == outcomes(tmp_path / "whole")


def _setup(**options: Any) -> Setup:
    return Setup(
        load_policy("zero"), "tabletop", trials("tabletop", ["pick"], 1), PRESETS["tabletop"],
        options=RunOptions(**options), environment="tabletop",
    )  # fmt: skip


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    crew = ProcessCrew([sys.executable, worker.__file__, "--world", WORLD], 1, tmp_path / "workers")
    second: list[str] = []

    def meanwhile(result: Any) -> None:
        with pytest.raises(UserError, match="another evaluation is writing"):
            run_suite(_setup(), crew, tmp_path)
        second.append("refused")

    run_suite(_setup(), crew, tmp_path, progress=meanwhile)
    assert second == ["refused"]


def test_nobody_else_comes_in(tmp_path: Path) -> None:
    """The socket is for this evaluation's workers."""
    crew = ProcessCrew(["true"], 1, tmp_path)
    with crew:
        assert crew._server is not None
        port = crew._server.socket.getsockname()[1]
        for headers in (
            {},
            {"Authorization": "Api-Key guess"},
            {"Authorization": "Api-Key \u00e9".encode().decode("latin1")},
        ):
            with pytest.raises(InvalidStatus) as refusal:
                connect(f"ws://127.0.0.1:{port}", additional_headers=headers)
            assert refusal.value.response.status_code == 403


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--suite", "widowx"], "'widowx' is no suite of --env tabletop"),
        (["--tasks", "fly"], "has no task 'fly'"),
        (["--shard", "3/2"], "from 1 to their number"),
        (["--conventions", "theirs"], "there are ours, rt-1"),
        (["--image-size", "big"], "HxW"),
        (["--until", "dawn"], "'limit' or 'success'"),
        (["--workers", "0"], "--workers at least 1"),
        (["--executed", "99"], "too few to carry out 99"),
        (["--control-rate", "3"], "of a served policy"),
        (["--env", "simpler", "--suite", "paper", "--tasks", "move_near"], "SIMPLER lives in a Python of its own"),
        (["--env", "dream", "--suite", "tabletop"], "a dream needs --world-model"),
        (["--policy", "ws://127.0.0.1:9", "--keys", "picture=x"], "--keys are image=NAME"),
        (["--policy", "ws://127.0.0.1:9", "--horizon", "4"], "said together"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[str], message: str
) -> None:
    monkeypatch.delenv("SELFFLOW_SIMULATOR_PYTHON", raising=False)
    out = tmp_path / "out"
    assert main(evaluate(out, *more)) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_policy_of_another_rate_is_refused_unless_it_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFFLOW_SIMULATOR_PYTHON", sys.executable)
    told = ["eval-simpler", "--policy", "tabletop-policy", "--suite", "widowx", "--out", str(tmp_path / "out")]
    assert main(told) == 2
    assert "gives 3 actions per second, and 'spoon_on_towel' takes 5" in capsys.readouterr().err


def test_a_dry_run_counts_and_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    told = ["eval-simpler", "--policy", "nobody", "--out", str(out), "--dry-run"]
    assert main([*told, "--suite", "google-visual-matching", "--workers", "4"]) == 0
    text = capsys.readouterr().out
    # 300 x 80, 240 x 80, 108 x 113 twice, 108 x 200
    for number in ("300", "240", "24,000", "19,200", "12,204", "21,600", "89,208"):
        assert number in text
    assert "with 4 workers" in text and "ray tracing" in text and not out.exists()
    assert main([*told, "--suite", "paper", "--shader", "ibl"]) == 0
    assert "ray tracing" not in capsys.readouterr().out
