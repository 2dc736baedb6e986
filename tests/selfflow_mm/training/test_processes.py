"""``train`` in two processes that share everything: the run of one, and either goes on where the other was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from selfflow_mm.config import load_config
from selfflow_mm.training.checkpoint import load_checkpoint
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.loop import train
from tests.processes import torchrun

SETTINGS = [
    "data.pack=700", "run.attention=varlen", "run.ema_decay=0.5", "run.log_every=1", "run.save_every=2", "run.steps=4",
    "run.sample_every=4", "run.posthoc_ema.every=4", "run.prompts=[one]", "model.isolate_conditions=true",
]  # fmt: skip
#: Times and rates, and what depends on how many rows a step is laid in.
OWN = {"seconds", "samples_per_second", "tokens_per_second", "tflops", "padding", "padding_unpacked"}


def together(config: Path, out: Path, *options: str) -> str:
    return torchrun(2, "selfflow_mm.cli.main", "train", str(config), "--out", str(out), *options)


def log(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def assert_same(one: Path, two: Path) -> None:
    for a, b in zip(log(one), log(two), strict=True):
        assert a.keys() - {"mfu"} == b.keys() - {"mfu"}
        for name in a.keys() - OWN:
            assert b[name] == pytest.approx(a[name], rel=1e-5, abs=1e-5), (a["step"], name)
    left, right = (load_checkpoint(out / "checkpoints/step-000004") for out in (one, two))
    assert left[1].keys() == right[1].keys() and {"model", "ema", "optimizer", "posthoc-0.050"} <= left[1].keys()
    for group in ("model", "ema", "posthoc-0.050"):
        assert max(float((left[1][group][k] - right[1][group][k]).abs().max()) for k in left[1][group]) < 1e-5
    assert left[2] == right[2]


def test_two_processes_make_the_run_of_one_and_go_on_from_it(small_config, tmp_path):
    train(load_config(TrainConfig, small_config, SETTINGS), tmp_path / "one")
    said = together(small_config, tmp_path / "two", *SETTINGS, "parallel.shard=0")
    assert said.count("The model is in") == 1
    assert_same(tmp_path / "one", tmp_path / "two")
    for folder in ("samples/step-000004", "posthoc_ema"):
        names = [sorted(p.name for p in (tmp_path / run / folder).iterdir()) for run in ("one", "two")]
        assert names[0] == names[1] and names[0]
    assert len(list((tmp_path / "two/checkpoints/step-000004").glob("shard-00002-*"))) > 0

    # One process goes on where two were, and two where one was.
    for was, processes in (("two", 1), ("one", 2)):
        out = shutil.copytree(tmp_path / was, tmp_path / f"{was}, gone on")
        shutil.rmtree(out / "checkpoints/step-000004")
        shutil.rmtree(out / "model")
        shutil.copytree(tmp_path / was / "model", out / "model", ignore=shutil.ignore_patterns("model.safetensors"))
        if processes == 1:
            train(load_config(TrainConfig, small_config, SETTINGS), out, resume=True)
        else:
            together(small_config, out, *SETTINGS, "parallel.shard=0", "--resume")
        assert_same(tmp_path / "one", out)
        assert (out / "model/model.safetensors").is_file()
