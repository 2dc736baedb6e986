"""The command as a user calls it: on its own, in two processes, stopped and gone on with, and with mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from selfflow_mm.cli.main import main
from selfflow_mm.models import ImageNetConfig, SelfFlowPerTokenDiT
from selfflow_mm.models.imagenet_weights import save_imagenet


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = SelfFlowPerTokenDiT.from_config(ImageNetConfig(8, 2, 4, 32, 2, 2, 2.0, 11, learn_sigma=True))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return save_imagenet(net, tmp_path_factory.mktemp("weights") / "net.safetensors")


def command(weights: Path, out: Path, *more: str) -> list[str]:
    return [
        *("sample-imagenet", str(weights), "--out", str(out), "--num-images", "11", "--steps", "4"),
        *("--decoder", "latents", "--batch", "3", "--device", "cpu", *more),
    ]


def latents(out: Path) -> np.ndarray:
    with np.load(out / "latents_11.npz") as file:
        return file["arr_0"]


def test_two_processes_make_what_one_makes(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    environment = {**os.environ, "RANK": "1", "LOCAL_RANK": "1", "OMP_NUM_THREADS": "1"}
    other = subprocess.Popen(
        [sys.executable, "-m", "selfflow_mm.cli.main", *command(weights, tmp_path / "two")], env=environment
    )
    monkeypatch.setenv("RANK", "0")
    assert main(command(weights, tmp_path / "two")) == 0
    assert other.wait(timeout=60) == 0
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert main(command(weights, tmp_path / "one", "--batch", "11")) == 0
    assert np.abs(latents(tmp_path / "two") - latents(tmp_path / "one")).max() < 1e-5
    about = json.loads((tmp_path / "two" / "run.json").read_text())
    assert about["processes"] == 2 and about["last_run"]["images"] == 11
    assert about["settings"]["sampling"]["steps"] == 4 and len(about["settings"]["checkpoint"]) == 64
    assert about["versions"]["torch"] and about["last_run"]["images_per_second"] > 0


def test_stopped_and_gone_on_with(weights, tmp_path, monkeypatch, capsys):
    (tmp_path / "stopping.py").write_text(
        "import torch\n"
        "calls = 0\n"
        "def decode(latents):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    if calls == 4:\n"
        "        raise KeyboardInterrupt\n"
        "    return (latents[:, :3] * 60 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    more = ("--decoder", "stopping:decode", "--png", "--guidance", "1.5", "--guidance-interval", "0", "0.7")
    out = tmp_path / "out"
    assert main(command(weights, out, *more)) == 130  # the first call checks the decoder
    assert sorted(p.name for p in (out / "parts").iterdir()) == ["000000-000002.npz", "000003-000005.npz"]
    capsys.readouterr()
    assert main(command(weights, out, *more, "--batch", "4")) == 0
    assert "going on after 6 of 11 images" in capsys.readouterr().out
    assert sys.modules["stopping"].calls == 4 + 1 + 2  # the check, and one batch each for the two parts
    assert main(command(weights, tmp_path / "once", *more)) == 0
    with np.load(out / "samples_11.npz") as a, np.load(tmp_path / "once" / "samples_11.npz") as b:
        assert np.abs(a["arr_0"].astype(int) - b["arr_0"]).max() <= 1  # a rounding may tip over
    assert len(list((out / "images").iterdir())) == 11 and (out / "contact.png").exists()

    before = (out / "samples_11.npz").stat().st_mtime_ns
    assert main(command(weights, out, *more)) == 0
    assert "is complete" in capsys.readouterr().out and (out / "samples_11.npz").stat().st_mtime_ns == before
    assert main(command(weights, out, *more, "--steps", "5")) == 2
    assert "other settings (steps 4, now 5)" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "stopping")


def test_the_ode_with_heun_and_a_shift(weights, tmp_path):
    assert main(command(weights, tmp_path, "--method", "ode", "--solver", "heun", "--shift", "1.78")) == 0
    assert np.isfinite(latents(tmp_path)).all()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--batch", "0"), "--batch is at least 1"),
        (("--num-images", "0"), "--num-images is at least 1"),
        (("--steps", "1"), "at least 2 steps"),
        (("--solver", "heun"), "the ODE's"),
        (("--guidance-interval", "0.7", "0.2"), "low < high"),
        (("--classes", "11"), "labels go from 0 to 10"),
        (("--classes", "cat"), "classes are balanced, random, or a list"),
        (("--png",), "--png needs pixels"),
        (("--decoder", "jpeg"), "no decoder 'jpeg'"),
        (("--device", "toaster"), "--device toaster is not usable"),
        (("--seed", "-1"), "a seed is at least 0"),
        (("--num-heads", "4"), "has 2 heads, num_heads says 4"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_no_folder(weights, tmp_path, capsys, more, sentence):
    assert main(command(weights, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_none(tmp_path, capsys):
    assert main(command(tmp_path / "none.pt", tmp_path / "out")) == 2
    assert "none.pt: there is no such file" in capsys.readouterr().err
