"""``inspect`` says what is there, counted independently."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from selfflow_mm.cli import main as cli
from selfflow_mm.config import load_config
from selfflow_mm.training.checkpoint import save_checkpoint
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.run_folder import RunFolder
from selfflow_mm.training.tokenizer_config import TokenizerTrainConfig
from selfflow_tokenizers import VideoAutoencoder


@dataclass(frozen=True)
class Config:
    steps: int = 3


def _inspect(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    code = cli.main(["inspect", str(path)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def test_weights_are_counted_per_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(10, 30), "decoder": nn.Linear(30, 1000).to(torch.bfloat16)})
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"seed": "3"})
    shown = _inspect(tmp_path / "model.safetensors", capsys)
    total = sum(p.numel() for p in model.parameters())
    assert f"{total:,} numbers in 4 tensors" in shown
    assert "31,000 BF16" in shown and "330 F32" in shown
    for name, module in model.items():
        count = sum(p.numel() for p in module.parameters())
        assert re.search(rf"{name} +{count:,} ", shown)
    assert "metadata seed: 3" in shown


def test_a_checkpoint_and_the_run_it_belongs_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(tmp_path / "run", config=Config(), seed=5, kind="transformer") as run:
        run.log(1, loss=2.0)
        run.log(2, loss=0.123456, seconds=3723.0)
    path = save_checkpoint(run.checkpoints, 2, {"model": {"w": torch.zeros(3, 4)}}, {"samples": 8})
    shown = _inspect(path, capsys)
    assert "a checkpoint after 2 steps (format version 2)" in shown and "12 numbers in 1 tensors" in shown
    shown = _inspect(run.path, capsys)
    assert "trains a transformer, with seed 5" in shown and "step 2 after 1 h 2 min" in shown
    assert "loss 0.1235" in shown and "step-000002" in shown


def test_a_model_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"class": "VideoTokenizer", "spec": {"channels": 48}}))
    save_file({"w": torch.zeros(5)}, tmp_path / "model.safetensors")
    shown = _inspect(tmp_path, capsys)
    assert "class: VideoTokenizer" in shown and "channels 48" in shown and "5 numbers" in shown


@pytest.mark.parametrize("name, count, what", [("fsdd", 3000, "audio"), ("cifar10", 60000, "image")])
def test_shards_made_elsewhere(
    shared_data: Path, name: str, count: int, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = _inspect(shared_data / name, capsys)
    assert f"{count:,} samples of {what}" in shown
    first = sorted((shared_data / name).glob("*.tar"))[0]
    assert f"samples of {what} in 1 shards" in _inspect(first, capsys)


@pytest.mark.parametrize(
    "name, message",
    [
        ("empty", "empty is no run, checkpoint, model or data set (it holds nothing)"),
        ("picture.png", "files that end in '.png' are unknown here; known are .safetensors, .tar, .yaml"),
        ("rlds", "selfflow-mm robot-data inspect"),
        ("lerobot", "selfflow-mm robot-data inspect"),
        ("missing.tar", "missing.tar does not exist"),
        ("broken.safetensors", "broken.safetensors is not a readable safetensors file"),
    ],
)
def test_what_is_unknown_is_said(tmp_path: Path, name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for name_of_robots in ("rlds/1.0.0/features.json", "lerobot/meta/info.json"):
        (tmp_path / name_of_robots).parent.mkdir(parents=True)
        (tmp_path / name_of_robots).write_text("{}")
    (tmp_path / "picture.png").write_bytes(b"")
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 20)
    assert cli.main(["inspect", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


def test_a_shipped_training_configuration_is_resolved(capsys: pytest.CaptureFixture[str]) -> None:
    shown = _inspect(Path("tiny"), capsys)
    assert f"width: {load_config(TrainConfig, 'tiny.yaml').model.width}\n" in shown
    total = re.search(r"Parameters: ([\d,]+)", shown)
    parts = re.findall(r"^  \w+ +([\d,]+)$", shown, re.MULTILINE)
    assert total and int(total[1].replace(",", "")) == sum(int(part.replace(",", "")) for part in parts)


def test_a_tokenizers_configuration_is_resolved(capsys: pytest.CaptureFixture[str]) -> None:
    shown = _inspect(Path("tokenizers/tiny_video.yaml"), capsys)
    model = load_config(TokenizerTrainConfig, "tokenizers/tiny_video.yaml").video.model
    with torch.device("meta"):
        count = sum(p.numel() for p in VideoAutoencoder(model).parameters())
    assert f"latent_channels: {model.latent_channels}\n" in shown and f"Parameters: {count:,}" in shown
