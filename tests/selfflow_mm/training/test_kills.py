"""A training run killed by SIGKILL at random moments, saves included, ends in the bits of one that never was."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

STEPS = 60


def command(config: Path, out: Path, *options: str) -> list[str]:
    settings = [f"run.steps={STEPS}", "run.save_every=2", "run.log_every=5"]
    return [sys.executable, "-m", "selfflow_mm.cli.main", "train", str(config), "--out", str(out), *options, *settings]


@pytest.mark.long
def test_ten_kills_lose_nothing(small_config, tmp_path):
    subprocess.run(command(small_config, tmp_path / "whole"), check=True, stderr=subprocess.DEVNULL)
    out, draw = tmp_path / "cut", random.Random(0)
    kills = 0
    while kills < 10:
        options = ["--resume"] if (out / "run.json").exists() else []
        process = subprocess.Popen(command(small_config, out, *options), stderr=subprocess.DEVNULL)
        log = out / "log.jsonl"
        before = log.stat().st_size if log.exists() else 0
        while process.poll() is None and (not log.exists() or log.stat().st_size == before):
            time.sleep(0.05)  # the kill falls into training, not into start-up
        time.sleep(draw.uniform(0, 0.6))
        if process.poll() is not None:
            break  # it got to the end between two kills
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 3
    if not (out / "model/model.safetensors").exists():
        subprocess.run(command(small_config, out, "--resume"), check=True, stderr=subprocess.DEVNULL)
    for name in ("model", "ema", "optimizer"):
        whole, cut = (
            load_file(f / f"checkpoints/step-{STEPS:06d}/{name}.safetensors") for f in (tmp_path / "whole", out)
        )
        assert whole.keys() == cut.keys()
        assert all(torch.equal(whole[k], cut[k]) for k in whole)
