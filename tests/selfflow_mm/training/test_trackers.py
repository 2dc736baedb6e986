"""Trackers: what wandb and trackio are sent, that nothing is sent twice, and that none of them can stop a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from selfflow_mm.errors import UserError
from selfflow_mm.training.run_folder import read_log, read_run, read_warnings
from tests.selfflow_mm.training.test_loop import killed_at, run


class Stand:
    """In place of wandb or trackio: keeps what it is told; fails from a call on, where asked to."""

    def __init__(self, name: str) -> None:
        self.module = ModuleType(name)
        self.begun: list[dict] = []
        self.sent: list[tuple[int, dict]] = []
        self.finished, self.fails_at = 0, -1
        self.module.init = self.init
        self.module.Settings = lambda **options: options
        for kind in ("Image", "Video", "Audio"):
            setattr(self.module, kind, lambda path, kind=kind: (kind, Path(path).name, Path(path).is_file()))

    def init(self, **options):
        self.begun.append(options)
        return SimpleNamespace(log=self.log, finish=self.finish)

    def log(self, values, step):
        if len(self.sent) == self.fails_at:
            raise ConnectionError("the network is gone\nand more")
        self.sent.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture(params=["wandb", "trackio"])
def stand(request, monkeypatch) -> Stand:
    made = Stand(request.param)
    monkeypatch.setitem(sys.modules, request.param, made.module)
    return made


def test_scalars_samples_and_config_arrive(small_config, tmp_path, stand):
    name = stand.module.__name__
    run(small_config, tmp_path / "first", f"run.trackers=[{name}]", "run.project=tries", "run.sample_every=6")
    (begun,) = stand.begun
    assert begun["project"] == "tries" and begun["name"] == "first"
    assert begun["config"]["run"]["steps"] == 6 and begun["config"]["model"]["width"] == 32
    scalars = [(step, values) for step, values in stand.sent if "loss" in values]
    logged = read_log(tmp_path / "first")
    assert [(step, values["loss"]) for step, values in scalars] == [(line["step"], line["loss"]) for line in logged]
    assert {"grad_norm", "lr", "tokens_per_second"} <= scalars[0][1].keys()
    ((step, media),) = [(step, values) for step, values in stand.sent if "loss" not in values]
    assert step == 6 and media["samples/t2va-00"] == ("Video", "t2va-00.mp4", True)
    assert media["samples/t2i-01"] == ("Image", "t2i-01.png", True)
    assert stand.finished == 1 and not (tmp_path / "first/tensorboard").exists()


def test_a_killed_run_goes_on_as_the_same_and_sends_no_step_twice(small_config, tmp_path, stand):
    name = stand.module.__name__
    settings = [f"run.trackers=[{name}]", "run.log_every=1", "run.steps=8"]
    with killed_at(5):
        run(small_config, tmp_path / "a", *settings)
    assert [step for step, _ in stand.sent] == [1, 2, 3, 4, 5]
    with killed_at(4):  # killed again, before it was where it had been
        run(small_config, tmp_path / "a", *settings, resume=True)
    run(small_config, tmp_path / "a", *settings, resume=True)
    assert [step for step, _ in stand.sent] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["step"] for line in read_log(tmp_path / "a")] == [1, 2, 3, 4, 5, 6, 7, 8]
    if name == "wandb":
        key = read_run(tmp_path / "a")["trackers"]["wandb"]["key"]
        assert [(b["id"], b["resume"]) for b in stand.begun] == [(key, "allow")] * 3 and key
        run(small_config, tmp_path / "b", *settings, "run.steps=1")
        assert stand.begun[-1]["id"] != key
    else:
        assert [b["resume"] for b in stand.begun] == ["never", "allow", "allow"]


def test_one_that_fails_is_switched_off_and_the_run_goes_on(small_config, tmp_path, stand, capfd):
    name = stand.module.__name__
    stand.fails_at = 1
    run(small_config, tmp_path / "a", f"run.trackers=[{name}, tensorboard]")
    assert [step for step, _ in stand.sent] == [2] and [line["step"] for line in read_log(tmp_path / "a")] == [2, 4, 6]
    (warning,) = read_warnings(tmp_path / "a")
    said = f"{name} is switched off from here on, log.jsonl goes on: ConnectionError: the network is gone"
    assert warning["warning"] == said and capfd.readouterr().err.count(said) == 1
    assert list((tmp_path / "a/tensorboard").iterdir())


def test_one_that_cannot_begin_is_no_more_than_a_warning(small_config, tmp_path, stand, monkeypatch):
    def refuses(**options):
        raise RuntimeError("no API key")

    monkeypatch.setattr(stand.module, "init", refuses)
    run(small_config, tmp_path / "a", f"run.trackers=[{stand.module.__name__}]", "run.steps=1")
    (warning,) = read_warnings(tmp_path / "a")
    assert "no API key" in warning["warning"]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
@pytest.mark.parametrize("there", [None, "a folder that looks like a package"])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_written(
    small_config, tmp_path, monkeypatch, name, there
):
    monkeypatch.setitem(sys.modules, name, ModuleType(name) if there else None)
    with pytest.raises(UserError, match=rf'names {name}, which is not installed; pip install "selfflow-mm\[{name}\]"'):
        run(small_config, tmp_path / "a", f"run.trackers=[{name}]")
    assert not (tmp_path / "a").exists()


def test_tensorboard_gets_pictures_of_the_samples(small_config, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(small_config, tmp_path / "a", "run.sample_every=6")
    events = accumulator.EventAccumulator(str(tmp_path / "a/tensorboard")).Reload()
    assert {"samples/t2va-00/frames", "samples/t2va-00/spectrogram", "samples/t2i-00/picture"} <= set(
        events.Tags()["images"]
    )
    assert [e.step for e in events.Scalars("tokens_per_second")] == [2, 4, 6]


def test_the_report_holds_its_samples(small_config, tmp_path):
    """One file, wherever it is sent: nothing in it is a link to another."""
    run(small_config, tmp_path / "a", "run.sample_every=6")
    page = (tmp_path / "a/report.html").read_text()
    assert "data:video/mp4;base64," in page and 'src="samples' not in page
    assert "Tokens per second" in page and "MFU" not in page and "Skipped" not in page


def test_real_wandb_offline(small_config, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(small_config, tmp_path / "a", "run.trackers=[wandb]", "run.sample_every=6")
    assert not (tmp_path / "a/warnings.jsonl").exists()
    (folder,) = (tmp_path / "a/wandb").glob("offline-run-*")
    key = json.loads((tmp_path / "a/run.json").read_text())["trackers"]["wandb"]["key"]
    assert folder.name.endswith(key) and list(folder.glob("*.wandb")) and list(folder.rglob("*.mp4"))
