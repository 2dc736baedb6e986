"""Run folders: what is recorded, what is refused, and logs that survive kills."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from selfflow_mm.config import load_config
from selfflow_mm.errors import UserError
from selfflow_mm.training.run_folder import RunFolder, read_log, read_run


@dataclass(frozen=True)
class Config:
    steps: int = 3
    rate: float = 0.1


DEFAULTS = Config()


def _open(
    path: Path, config: Config = DEFAULTS, *, resume: bool = False, seed: int = 7, kind: str = "test"
) -> RunFolder:
    return RunFolder(path, config=config, seed=seed, kind=kind, resume=resume)


def test_a_new_run_records_what_it_needs(tmp_path: Path) -> None:
    run = _open(tmp_path / "a" / "run", Config(rate=1e-5))
    record = json.loads((run.path / "run.json").read_text())
    assert (record["format"], record["version"], record["kind"], record["seed"]) == ("selfflow-run", 1, "test", 7)
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert load_config(Config, run.path / "config.yaml") == Config(rate=1e-5)
    assert run.checkpoints == run.path / "checkpoints"
    assert run.samples_dir(123) == run.path / "samples" / "step-000123" and run.samples_dir(123).is_dir()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    _open(tmp_path / "run")
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        _open(tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("mine: true\n")
    with pytest.raises(UserError, match="already holds config.yaml"):
        _open(tmp_path / "other")
    assert (tmp_path / "other" / "config.yaml").read_text() == "mine: true\n"


def test_resuming_asks_for_the_same_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        _open(tmp_path / "none", resume=True)
    _open(tmp_path / "run")
    with pytest.raises(UserError, match="seed 7, so it cannot go on with 8"):
        _open(tmp_path / "run", resume=True, seed=8)
    with pytest.raises(UserError, match="kind test, so it cannot go on with other"):
        _open(tmp_path / "run", resume=True, kind="other")
    assert _open(tmp_path / "run", resume=True).changed == ()
    longer = _open(tmp_path / "run", Config(steps=9), resume=True)
    assert longer.changed == ("steps",)
    record = read_run(tmp_path / "run")
    assert [r["changed"] for r in record["resumed"]] == [{}, {"steps": [3, 9]}]
    assert load_config(Config, tmp_path / "run" / "config.yaml").steps == 9


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    run = _open(tmp_path / "run")
    record = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(record | {"version": 2}))
    with pytest.raises(UserError, match="a run of version 2 cannot be read"):
        _open(tmp_path / "run", resume=True)


def test_a_log_that_was_cut_continues_without_a_gap_or_a_double(tmp_path: Path) -> None:
    with _open(tmp_path / "run") as run:
        for step in range(1, 6):
            run.log(step, loss=torch.tensor(1 / step))
    log = run.path / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 6, "lo')  # killed while writing
    assert [line["step"] for line in read_log(log)] == [1, 2, 3, 4, 5]
    with _open(tmp_path / "run", resume=True) as run:
        run.truncate_log(3)
        run.log(4, loss=0.5)
    lines = read_log(run.path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[2]["loss"] == pytest.approx(1 / 3) and lines[3]["loss"] == 0.5
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)


def test_numbers_that_are_not_finite_are_valid_json_and_come_back(tmp_path: Path) -> None:
    with _open(tmp_path / "run") as run:
        run.log(1, loss=math.nan, norm=-math.inf)
    (row,) = (run.path / "log.jsonl").read_text().splitlines()
    assert json.loads(row, parse_constant=pytest.fail)["loss"] == "nan"
    (line,) = read_log(run.path)
    assert math.isnan(line["loss"]) and line["norm"] == -math.inf


def test_tensorboard_shows_the_same_scalars_after_resuming(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with _open(tmp_path / "run") as run:
        for step in (1, 2, 3):
            run.log(step, loss=float(step))
    with _open(tmp_path / "run", resume=True) as run:
        run.truncate_log(1)
        run.log(2, loss=20.0)
    events = accumulator.EventAccumulator(str(run.path / "tensorboard")).Reload().Scalars("loss")
    assert [(e.step, e.value) for e in events] == [(1, 1.0), (2, 20.0)]
