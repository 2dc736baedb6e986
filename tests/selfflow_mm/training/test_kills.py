"""Training runs killed by SIGKILL at random moments, saves included, end in the bits of one that never was."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfflow_mm.config import load_config
from selfflow_mm.training.checkpoint import load_checkpoint
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.loop import train
from selfflow_mm.training.prefetch import Prefetched

#: ``selfflow-mm`` that notes every step's samples in a file and takes its time with saving, so that kills fall into it.
_PROGRAM = """
import json, sys, time
from selfflow_mm.training import checkpoint_writing
from selfflow_mm.training.prefetch import Prefetched

notes, arguments = open(sys.argv[1], "a"), sys.argv[2:]
real, hashes = Prefetched.at, checkpoint_writing.sha256

def noted(self, step):
    name, task, batch = real(self, step)
    notes.write(json.dumps([step, name, task, self.numbers(name, batch)]) + "\\n")
    notes.flush()
    return name, task, batch

def slowly(file):
    time.sleep(0.03)
    return hashes(file)

Prefetched.at, checkpoint_writing.sha256 = noted, slowly
from selfflow_mm.cli.main import main
sys.exit(main(arguments))
"""


def _settings(steps: int) -> list[str]:
    return [f"run.steps={steps}", "run.save_every=2", "run.log_every=5"]


def _start(config: Path, out: Path, steps: int) -> subprocess.Popen:
    """The run, or the rest of it, in a process of its own."""
    options = ["--resume"] if (out / "run.json").exists() else []
    command = [sys.executable, "-c", _PROGRAM, str(_notes(out)), "train", str(config), "--out", str(out), *options]
    return subprocess.Popen([*command, *_settings(steps)], stderr=subprocess.DEVNULL)


def _run(config: Path, out: Path, steps: int) -> None:
    """The run, or the rest of it, in this process and to its end."""
    real = Prefetched.at

    def noted(self, step):
        name, task, batch = real(self, step)
        with open(_notes(out), "a") as notes:
            notes.write(json.dumps([step, name, task, self.numbers(name, batch)]) + "\n")
        return name, task, batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Prefetched, "at", noted)
        train(load_config(TrainConfig, config, _settings(steps)), out, resume=(out / "run.json").exists())


def _notes(out: Path) -> Path:
    return out.with_suffix(".jsonl")


def _samples(out: Path) -> list[list]:
    """[step, source, task, samples] of every step that was begun; a kill may have cut a line."""
    lines = _notes(out).read_text().split("\n")[:-1] if _notes(out).exists() else []
    return [json.loads(line) for line in lines if line.endswith("]")]


def _kill(process: subprocess.Popen, out: Path, step: int, in_save: bool, delay: float) -> bool:
    """Wait until the process has come to ``step`` (and is saving, if so wanted), and a little longer, and kill it."""
    seen, deadline = len(_samples(out)), time.monotonic() + 300
    while process.poll() is None and not any(line[0] >= step for line in _samples(out)[seen:]):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    while in_save and process.poll() is None and not list((out / "checkpoints").glob(".step-*.tmp")):
        time.sleep(0.001)
    time.sleep(0.0 if in_save else delay)
    was_alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return was_alive


def _survives(config: Path, folder: Path, steps: int, kills: int) -> None:
    """``kills`` kills spread over a run of ``steps``, every other during a save."""
    _run(config, folder / "whole", steps)
    out, draw = folder / "cut", random.Random(0)
    killed = drafts = 0
    for number in range(kills):
        process = _start(config, out, steps)
        target = 2 + number * (steps - 8) // kills + draw.randrange(3)
        killed += _kill(process, out, target, number % 2 == 0, draw.uniform(0, 0.05))
        drafts += bool(list((out / "checkpoints").glob(".step-*.tmp")))
    assert killed == kills and drafts > 0
    _run(config, out, steps)

    whole, cut = _samples(folder / "whole"), _samples(out)
    assert [line[0] for line in whole] == list(range(steps))
    assert len(cut) > steps  # something was lost, and done again
    assert all(line == whole[line[0]] for line in cut)  # with the same samples every time
    assert {line[0] for line in cut} == set(range(steps))
    assert len({tuple(line[3]) for line in whole}) > 1
    for name in ("checkpoints", "model"):
        assert {p.name for p in (out / name).iterdir()} == {p.name for p in (folder / "whole" / name).iterdir()}
    (step, tensors, place), (_, others, same) = (
        load_checkpoint(f / f"checkpoints/step-{steps:06d}") for f in (folder / "whole", out)
    )
    assert step == steps and place == same and tensors.keys() == others.keys() == {"model", "ema", "optimizer"}
    for group, named in tensors.items():
        assert named.keys() == others[group].keys()
        assert not [name for name in named if not torch.equal(named[name], others[group][name])]
    final, again = (load_file(f / "model/model.safetensors") for f in (folder / "whole", out))
    assert all(torch.equal(final[name], again[name]) for name in final)


def test_two_kills_lose_nothing(small_config: Path, tmp_path: Path) -> None:
    _survives(small_config, tmp_path, 16, 2)


@pytest.mark.long
def test_twenty_kills_lose_nothing(small_config: Path, tmp_path: Path) -> None:
    _survives(small_config, tmp_path, 200, 20)
