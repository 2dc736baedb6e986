"""Runs and their checkpoints: what stays, what an earlier release wrote, and what a bad disk does to a run."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from selfflow_mm.config import load_config
from selfflow_mm.errors import UserError
from selfflow_mm.generation.pipeline import Pipeline
from selfflow_mm.training.checkpoint import load_checkpoint, load_group
from selfflow_mm.training.config import TrainConfig

from .test_loop import POSTHOC, assert_same, killed_at, run


def _as_first_version(path: Path) -> None:
    """Rewrite a checkpoint as the release before this one wrote it."""
    step, tensors, state = load_checkpoint(path)
    shutil.rmtree(path)
    path.mkdir()
    for group, named in tensors.items():
        save_file(named, path / f"{group}.safetensors")
    files = {file.name: file.stat().st_size for file in path.iterdir()}
    record = {"format": "selfflow-checkpoint", "version": 1, "step": step, "files": files, "state": state}
    (path / "state.json").write_text(json.dumps(record))


def test_a_run_with_checkpoints_of_the_first_version_goes_on_to_the_same_bits(small_config, tmp_path) -> None:
    run(small_config, tmp_path / "whole", *POSTHOC)
    with killed_at(5):
        run(small_config, tmp_path / "old", *POSTHOC)
    path = tmp_path / "old/checkpoints/step-000003"
    ema = load_group(path, "ema")
    _as_first_version(path)
    sampled = Pipeline.from_pretrained(tmp_path / "old").model.state_dict()
    assert all(torch.equal(sampled[name], ema[name]) for name in ema)
    run(small_config, tmp_path / "old", *POSTHOC, resume=True)
    assert_same(tmp_path / "whole/checkpoints/step-000006", tmp_path / "old/checkpoints/step-000006")
    assert json.loads((tmp_path / "old/checkpoints/step-000006/state.json").read_text())["version"] == 2


def test_what_stays(small_config, tmp_path) -> None:
    settings = ["run.save_every=1", "run.keep=1", "run.keep_every=2", "run.steps=5"]
    run(small_config, tmp_path / "a", *settings)
    assert sorted(p.name for p in (tmp_path / "a/checkpoints").iterdir()) == [f"step-00000{n}" for n in (2, 4, 5)]
    run(small_config, tmp_path / "b", *settings, "run.async_save=false")
    assert_same(tmp_path / "a/checkpoints/step-000005", tmp_path / "b/checkpoints/step-000005")
    with pytest.raises(UserError, match=r"keep_every is a multiple of save_every \(3\).*got 4"):
        load_config(TrainConfig, small_config, ["run.keep_every=4"])
    with pytest.raises(UserError, match="retry_seconds is a number of seconds"):
        load_config(TrainConfig, small_config, ["run.retry_seconds=-1"])


@pytest.mark.parametrize("background", ["true", "false"])
def test_a_full_disk_stops_a_run_that_then_goes_on_to_the_same_bits(
    small_config, tmp_path, monkeypatch, background: str
) -> None:
    settings = ["run.save_every=2", "run.retry_seconds=0", f"run.async_save={background}"]
    run(small_config, tmp_path / "whole", *settings)
    real = os.fsync

    def full(descriptor: int) -> None:
        if (tmp_path / "a/checkpoints/step-000002").exists() and os.fstat(descriptor).st_size > 50_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            UserError, match="checkpoint of step 4 cannot be written .* No space left .*step-000002; see"
        ):
            run(small_config, tmp_path / "a", *settings)
    assert [p.name for p in (tmp_path / "a/checkpoints").iterdir()] == ["step-000002"]
    run(small_config, tmp_path / "a", *settings, resume=True)
    assert_same(tmp_path / "whole/checkpoints/step-000006", tmp_path / "a/checkpoints/step-000006")


def test_a_run_goes_on_from_the_last_checkpoint_that_is_whole(small_config, tmp_path) -> None:
    run(small_config, tmp_path / "whole", "run.save_every=2")
    out = tmp_path / "a"
    with killed_at(5):
        run(small_config, out, "run.save_every=2")
    shard = next((out / "checkpoints/step-000004").glob("*.safetensors"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.warns(UserWarning, match=f"step-000004 is passed over: {shard.name} has another SHA-256"):
        run(small_config, out, "run.save_every=2", resume=True)
    assert_same(tmp_path / "whole/checkpoints/step-000006", out / "checkpoints/step-000006")
    lines = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert lines == [2, 4, 6]


def test_no_step_is_taken_where_no_checkpoint_fits(small_config, tmp_path, monkeypatch) -> None:
    seen = []

    def usage(path):
        seen.append(path)
        return shutil._ntuple_diskusage(10**9, 10**9, 1000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(UserError, match="too little to write one beside another; make room"):
        run(small_config, tmp_path / "a")
    assert seen and not (tmp_path / "a/log.jsonl").exists()


def test_what_a_checkpoint_takes_is_known_before_the_first_step(small_config, tmp_path, monkeypatch) -> None:
    from selfflow_mm.training.checkpoint_writing import CheckpointWriter

    estimates = []
    monkeypatch.setattr(CheckpointWriter, "check_room", lambda self, size: estimates.append(size))
    run(small_config, tmp_path / "a", *POSTHOC, "objective.name=self-flow")
    shards = (tmp_path / "a/checkpoints/step-000006").glob("*.safetensors")
    tensors = load_checkpoint(tmp_path / "a/checkpoints/step-000006")[1]
    whole = sum(t.numel() * t.element_size() for named in tensors.values() for t in named.values())
    assert estimates[0] == pytest.approx(whole, rel=0.03) and whole < sum(f.stat().st_size for f in shards)
