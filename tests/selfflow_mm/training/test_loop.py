"""Training: resume to the bit, everything a run writes, and what stops it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfflow_mm.config import load_config
from selfflow_mm.errors import UserError
from selfflow_mm.flow.objectives import Objective
from selfflow_mm.training import loop
from selfflow_mm.training.checkpoint import latest_checkpoint
from selfflow_mm.training.config import OptimizerConfig, TrainConfig


def run(config: Path, out: Path, *overrides: str, resume: bool = False) -> Path:
    return loop.train(load_config(TrainConfig, config, overrides), out, resume=resume)


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    return {f"{f.name}/{k}": v for f in sorted(checkpoint.glob("*.safetensors")) for k, v in load_file(f).items()}


def assert_same(a: Path, b: Path) -> None:
    left, right = tensors(a), tensors(b)
    assert left.keys() == right.keys() and left
    different = [k for k in left if not torch.equal(left[k], right[k])]
    assert not different


def test_a_run_killed_at_any_step_and_resumed_ends_in_the_bits_of_one_that_was_not(small_config, tmp_path, monkeypatch):
    run(small_config, tmp_path / "whole")

    class Killed(BaseException):
        pass

    real = loop._step

    def dies(config, state, *args):
        if state.step == 5:  # two steps after the checkpoint at 3: these are lost and done again
            raise Killed
        return real(config, state, *args)

    monkeypatch.setattr(loop, "_step", dies)
    with pytest.raises(Killed):
        run(small_config, tmp_path / "cut")
    monkeypatch.setattr(loop, "_step", real)
    assert latest_checkpoint(tmp_path / "cut" / "checkpoints").name == "step-000003"
    run(small_config, tmp_path / "cut", resume=True)
    assert_same(tmp_path / "whole/checkpoints/step-000006", tmp_path / "cut/checkpoints/step-000006")
    assert_same(tmp_path / "whole/model", tmp_path / "cut/model")

    def scalars(out: Path) -> list[dict]:
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]

    whole, cut = scalars(tmp_path / "whole"), scalars(tmp_path / "cut")
    assert [line["step"] for line in whole] == [line["step"] for line in cut] == [2, 4, 6]
    assert whole[-1] == cut[-1]  # the line at 4 averages steps 3 and 4, of which the resumed run did only the second


def test_weights_move_and_the_average_follows(small_config, tmp_path):
    run(small_config, tmp_path / "a", "run.ema_half_life=1.0")
    first = tensors(tmp_path / "a/checkpoints/step-000003")
    last = tensors(tmp_path / "a/checkpoints/step-000006")
    # Every task trains the blocks; the layers of a modality that was not drawn rightly stand still.
    model = [k for k in last if k.startswith("model.safetensors/") and "_blocks." in k]
    moved = [k for k in model if not torch.equal(first[k], last[k])]
    assert model and moved == model
    decay = 0.5 ** (1 / 6)
    name = "single_blocks.0.up.weight"
    # Between steps 3 and 6 the average moves towards the weights by 1 - decay per step, and never past them.
    gap = (last[f"ema.safetensors/{name}"] - first[f"ema.safetensors/{name}"]).abs()
    room = (last[f"model.safetensors/{name}"] - first[f"ema.safetensors/{name}"]).abs().max()
    assert 0 < float(gap.max()) < float(room) * (1 - decay**3) * 1.5


def test_a_run_folder_holds_what_it_promises(small_config, tmp_path):
    model = run(small_config, tmp_path / "a", "run.sample_every=6")
    out = tmp_path / "a"
    assert json.loads((out / "run.json").read_text())["seed"] == 5
    assert load_config(TrainConfig, out / "config.yaml").run.steps == 6
    line = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    assert {"loss", "l_rep", "grad_norm", "lr", "step"} <= line.keys()
    assert any(k.startswith("cosine/") for k in line) and any(k.startswith("l_gen/") for k in line)
    made = {p.name for p in (out / "samples/step-000006").iterdir()}
    assert {"t2va-00.mp4", "t2va-01.mp4", "t2v-00.mp4", "t2i-00.png"} <= made
    report = (out / "report.html").read_text()
    assert "l_gen/video" in report and "http" not in report.replace("http://www.w3.org", "")
    assert (model / "model.safetensors").exists() and (model / "tokenizers/audio/config.json").exists()
    assert not list(out.rglob("*.tmp"))


def test_sigterm_saves_and_leaves(small_config, tmp_path):
    out = tmp_path / "a"
    command = [sys.executable, "-m", "selfflow_mm.cli.main", "train", str(small_config), "--out", str(out)]
    process = subprocess.Popen([*command, "run.steps=100000", "run.save_every=100000"], stderr=subprocess.DEVNULL)
    log = out / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    saved = latest_checkpoint(out / "checkpoints")
    assert saved is not None and int(saved.name.removeprefix("step-")) >= 2


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(small_config, tmp_path, monkeypatch):
    real = Objective.loss

    def poisoned(self, model, teacher, batch, random, step):
        loss, report = real(self, model, teacher, batch, random, step)
        return (
            (loss * float("nan"), {**report, "l_gen/video": loss.detach() * float("nan")})
            if step == 4
            else (loss, report)
        )

    monkeypatch.setattr(Objective, "loss", poisoned)
    with pytest.raises(UserError, match=r"step 4: .*l_gen/video.* is not finite \(source clips, task .*step-000003"):
        run(small_config, tmp_path / "a")
    saved = tensors(latest_checkpoint(tmp_path / "a/checkpoints"))
    assert all(torch.isfinite(v).all() for v in saved.values())


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.sources.clips.path=/nowhere"], "/nowhere"),
        (["data.sources.clips.tasks={t2x: 1}"], "known tasks"),
        (["data.sources.clips.tasks={t2va: 0}"], "positive share"),
        (["tokenizers.audio=/nowhere"], "no weights folder"),
        (["model.modalities={video: 7}"], "its tokenizer has 12 channels"),
        (["run.device=tpu9"], "not available here"),
        (["model.widht=32"], "nearest.*model.width"),
    ],
)
def test_impossible_runs_are_refused_and_leave_nothing(small_config, tmp_path, overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        run(small_config, tmp_path / "a", *overrides)
    assert not (tmp_path / "a").exists()


def test_a_run_is_not_overwritten_and_another_shape_is_not_resumed(small_config, tmp_path):
    run(small_config, tmp_path / "a")
    with pytest.raises(UserError, match="--resume"):
        run(small_config, tmp_path / "a")
    with pytest.raises(UserError, match="another shape"):
        run(small_config, tmp_path / "a", "model.single_blocks=1", "run.steps=8", resume=True)


def test_learning_rate_warms_up_stays_and_falls_to_the_end():
    rates = OptimizerConfig(lr=2.0, warmup_steps=4, decay=0.5)
    got = [rates.lr_at(step, 20) for step in range(20)]
    assert got[:4] == [0.5, 1.0, 1.5, 2.0]
    assert got[4:11] == [2.0] * 7
    assert got[-1] == pytest.approx(0.2)
    assert all(a >= b for a, b in zip(got[10:], got[11:], strict=False))
