"""``export``: a checkpoint as a folder that generates, as a file that says what it is, and on a hub that is not one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from selfflow_mm.cli import main as cli
from selfflow_mm.config import load_config
from selfflow_mm.config_yaml import parse_yaml
from selfflow_mm.errors import UserError
from selfflow_mm.generation.pipeline import Pipeline
from selfflow_mm.models.model_file import load_transformer, read_model_file
from selfflow_mm.training.checkpoint import load_group
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.initialise import initialise
from selfflow_mm.training.loop import train


@pytest.fixture
def run(small_config: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a run of six steps with checkpoints at 3 and 6, trained once for all tests."""
    trained = tmp_path_factory.getbasetemp() / "run-to-export"
    if not trained.exists():
        train(load_config(TrainConfig, small_config, ["optimizer.lr=1e-2"]), trained)
    return shutil.copytree(trained, tmp_path / "run")


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _export(*arguments: object) -> int:
    return cli.main(["export", *map(str, arguments)])


def test_the_newest_checkpoint_is_the_model_that_the_run_ended_with(run: Path, capsys) -> None:
    assert _export(run) == 0
    out = run / "model-ema-step-000006"
    assert f"{out}: EMA weights of step 6, " in capsys.readouterr().out
    assert _same(load_file(out / "model.safetensors"), load_file(run / "model/model.safetensors"))
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert files == {p.relative_to(run / "model").as_posix() for p in (run / "model").rglob("*") if p.is_file()}
    assert (out / "config.json").read_text() == (run / "model/config.json").read_text()
    with safe_open(out / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "steps": "6", "seed": "5", "weights": "ema"}
    [mine], [its] = (Pipeline.from_pretrained(folder)(["one"], seed=3) for folder in (out, run))
    assert torch.equal(mine.video.frames, its.video.frames)
    assert _export(run, "--out", out) == 0  # a model may be written over


def test_an_earlier_step_of_a_killed_run_without_average_at_half_the_size(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "checkpoints/step-000006")
    (run / "model/model.safetensors").unlink()
    out = tmp_path / "models/raw"
    assert _export(run, "--weights", "model", "--half", "--step", 3, "--out", out) == 0
    stored = load_group(run / "checkpoints/step-000003", "model")
    assert _same(load_file(out / "model.safetensors"), {name: tensor.half() for name, tensor in stored.items()})
    assert not _same(stored, load_group(run / "checkpoints/step-000003", "ema"))
    Pipeline.from_pretrained(out)


def test_one_file_says_what_it_is_and_starts_a_run(run: Path, tmp_path: Path, small_config: Path) -> None:
    out = tmp_path / "first.safetensors"
    assert _export(run, "--out", out) == 0
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []
    about = read_model_file(out)
    assert about["config"] == json.loads((run / "model/config.json").read_text())
    assert about["run"] == parse_yaml((run / "config.yaml").read_text(), "config.yaml")
    assert (about["step"], about["seed"], about["weights"], about["kind"]) == (6, 5, "ema", "transformer")
    ema = load_group(run / "checkpoints/step-000006", "ema")
    model = load_transformer(out)
    assert _same(load_file(out), ema) and _same(model.state_dict(), ema) and not model.training
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    report = initialise(model, str(out))
    assert not report.fresh and not report.not_taken and not report.notes and _same(model.state_dict(), ema)
    train(load_config(TrainConfig, small_config, [f"init={out}", "run.steps=1"]), tmp_path / "more")
    with pytest.raises(UserError, match="has no tokenizers beside its weights; give a model's folder"):
        Pipeline.from_pretrained(out)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="does not say which model its weights are of"):
        load_transformer(tmp_path / "w.safetensors")
    about = json.dumps({"format": "selfflow-model-file", "version": 9})
    save_file({"w": torch.zeros(1)}, tmp_path / "w.safetensors", metadata={"selfflow": about})
    with pytest.raises(UserError, match="version 9; this release reads 1"):
        read_model_file(tmp_path / "w.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="is not a readable safetensors file"):
        read_model_file(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--step", "4"], "has no checkpoint of step 4; there are 3, 6"),
        (["--out", "{run}/model"], "belongs to a run, which writes it itself"),
        (["--out", "{run}"], "belongs to a run"),
        (["--out", "{run}/checkpoints"], "holds other things; give an empty folder"),
        (["--out", "{run}/log.jsonl"], "is a file; one file is written where --out ends in .safetensors"),
        (["--hub", "me/first", "--out", "x.safetensors"], "--hub uploads a folder"),
        (["--hub", "first"], "--hub is ORG/NAME, got 'first'"),
        (["--private"], "--private goes with --hub"),
    ],
)
def test_what_cannot_be_exported_is_said(run: Path, options: list[str], sentence: str, capsys) -> None:
    before = sorted(run.rglob("*"))
    assert _export(run, *(option.format(run=run) for option in options)) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert sorted(run.rglob("*")) == before


def test_runs_without_anything_to_export(run: Path, capsys) -> None:
    shard = next((run / "checkpoints/step-000006").glob("shard-*-00002-of-*"))  # the EMA's
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert _export(run) == 2
    assert "another SHA-256 than it was written with; use step-000003 before it" in capsys.readouterr().err
    shutil.rmtree(run / "checkpoints")
    assert _export(run) == 2
    assert "has no checkpoint yet" in capsys.readouterr().err
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"kind": "video-tokenizer"}))
    assert _export(run) == 2
    assert f"trains a video-tokenizer; its result is in {run / 'tokenizer'}" in capsys.readouterr().err
    assert not list(run.glob("model-*"))


class Hub:
    """Stands for ``huggingface_hub.HfApi``: keeps what it is sent."""

    sent: dict[str, object] = {}
    refuses: Exception | None = None

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> str:
        if self.refuses:
            raise self.refuses
        self.sent.update(name=name, private=private, exist_ok=exist_ok)
        return f"https://hub/{name}"

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, commit_message: str, ignore_patterns: list[str]
    ) -> None:
        assert repo_id == self.sent["name"] and commit_message
        files = {p.relative_to(folder_path).as_posix(): p.read_bytes() for p in folder_path.rglob("*") if p.is_file()}
        self.sent.update(files=files)


def test_the_hub_gets_the_folder_and_a_card(run: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(Hub, "sent", {})
    out = tmp_path / "out"
    assert _export(run, "--hub", "me/balls", "--private", "--out", out) == 0
    assert "Uploaded to https://hub/me/balls" in capsys.readouterr().out
    assert (Hub.sent["name"], Hub.sent["private"], Hub.sent["exist_ok"]) == ("me/balls", True, True)
    files = Hub.sent["files"]
    assert files.keys() >= {"README.md", "config.json", "model.safetensors", "tokenizers/video/config.json"}
    card = files["README.md"].decode()
    front = parse_yaml(card.split("---")[1], "card")
    assert front["library_name"] == "selfflow-mm" and {"self-flow", "video", "audio"} <= set(front["tags"])
    assert "| steps | 6 of 6 |" in card and "| seed | 5 |" in card and "hf download me/balls --local-dir balls" in card
    assert str(tmp_path.parent) not in card  # nobody learns where the run lay
    (tmp_path / "got").mkdir()
    for name, content in files.items():
        (tmp_path / "got" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "got" / name).write_bytes(content)
    Pipeline.from_pretrained(tmp_path / "got")
    monkeypatch.setattr(Hub, "refuses", OSError("401 Client Error: you are not logged in\nmore lines"))
    assert _export(run, "--hub", "me/balls", "--out", out) == 2
    error = capsys.readouterr().err
    assert "me/balls cannot be uploaded: 401 Client Error: you are not logged in; the model is in" in error
    assert error.count("\n") == 1
