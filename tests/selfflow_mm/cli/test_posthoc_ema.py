"""``posthoc-ema`` makes folders that the pipeline loads, and says in a sentence what it cannot make."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfflow_mm.cli import main as cli
from selfflow_mm.cli import posthoc_ema as command
from selfflow_mm.config import load_config
from selfflow_mm.generation.pipeline import Pipeline
from selfflow_mm.training import posthoc_ema as phe
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.loop import train


@pytest.fixture
def run_folder(small_config: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a short run, trained once for all tests."""
    trained = tmp_path_factory.getbasetemp() / "run-with-snapshots"
    if not trained.exists():
        settings = ["run.posthoc_ema.every=1", "run.steps=6", "optimizer.lr=1e-2", "optimizer.warmup_steps=0"]
        train(load_config(TrainConfig, small_config, settings), trained)
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def test_models_of_several_lengths_load_and_generate(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["posthoc-ema", str(run_folder), "--std", "0.1,0.15"]) == 0
    shown = capsys.readouterr().out
    assert f"{run_folder / 'model-std-0.100'}: std 0.1 at step 6, from 1 of 12 snapshots " in shown
    made = load_file(run_folder / "model-std-0.100/model.safetensors")
    kept = load_file(run_folder / "posthoc_ema/step-000006-std-0.100.safetensors")
    assert made.keys() == kept.keys() and all(torch.equal(made[k], kept[k]) for k in made)
    pipeline = Pipeline.from_pretrained(run_folder / "model-std-0.150")
    [result] = pipeline(["clip 1"], seed=1)
    assert result.video is not None and result.audio is not None
    # The other length by its definition: snapshots of every step give the weights of each, hence any average.
    name = "single_blocks.0.up.weight"
    files = [run_folder / f"posthoc_ema/step-{t:06d}-std-0.100.safetensors" for t in range(1, 7)]
    held = [load_file(file)[name].double() for file in files]
    gamma = phe.gamma_of(0.10)
    weights = [held[0]]
    for t in range(2, 7):
        beta = (1 - 1 / t) ** (gamma + 1)
        weights.append((held[t - 1] - beta * held[t - 2]) / (1 - beta))
    power = phe.gamma_of(0.15) + 1
    truth = sum((t**power - (t - 1) ** power) / 6**power * w for t, w in enumerate(weights, start=1))
    got = pipeline.model.state_dict()[name].double()
    assert (got - truth).abs().max() < 0.05 * (weights[-1] - truth).abs().max()


def test_one_model_into_a_folder_of_ones_choice_at_an_earlier_step(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "early"
    assert cli.main(["posthoc-ema", str(run_folder), "--std", "0.05", "--step", "4", "--out", str(out), "--half"]) == 0
    made = load_file(out / "model.safetensors")
    kept = load_file(run_folder / "posthoc_ema/step-000004-std-0.050.safetensors")
    assert all(torch.equal(made[k], kept[k].half()) for k in kept)
    assert json.loads((out / "config.json").read_text()) == json.loads((run_folder / "model/config.json").read_text())
    assert not list(out.rglob("*.tmp"))
    # Written again over itself, and continued from as first weights.
    assert cli.main(["posthoc-ema", str(run_folder), "--std", "0.05", "--step", "4", "--out", str(out)]) == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--std", "0.4"], "lies between 0.001 and 0.289"),
        (["--std", "a lot"], "a number or several with commas"),
        (["--std", "0.1", "--step", "9"], "step 9 is outside of what the snapshots cover, 1 to 6"),
        (["--std", "0.1", "--step", "-1"], "number of a training step"),
        (["--std", "0.1,0.002"], "cannot be made from these 12 snapshots"),
        (["--std", "0.1", "--out", "{run}"], "belongs to a run"),
        (["--std", "0.1", "--out", "{run}/model"], "belongs to a run"),
    ],
)
def test_what_cannot_be_made_is_said_and_nothing_is_written(
    run_folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    before = {p: p.stat().st_mtime_ns for p in run_folder.rglob("*")}
    assert cli.main(["posthoc-ema", str(run_folder), *(o.format(run=run_folder) for o in options)]) == 2
    assert sentence in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in run_folder.rglob("*")}


def test_a_run_without_snapshots_and_no_run_at_all(
    small_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["posthoc-ema", str(tmp_path), "--std", "0.1"]) == 2
    assert "holds no run" in capsys.readouterr().err
    train(load_config(TrainConfig, small_config, ["run.steps=1"]), tmp_path / "run")
    assert cli.main(["posthoc-ema", str(tmp_path / "run"), "--std", "0.1"]) == 2
    assert "holds no snapshots of running averages; train with run.posthoc_ema.every=N" in capsys.readouterr().err


def test_help_tells_the_same_in_both_places() -> None:
    assert cli.COMMANDS["posthoc-ema"] == command.HELP
