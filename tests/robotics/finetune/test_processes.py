"""Two processes take the steps that one would, and runs go on with another number of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from selfflow_mm.errors import UserError
from selfflow_mm.training.checkpoint import load_group
from selfflow_robotics.finetune.run import finetune
from tests.processes import torchrun
from tests.robotics.tiny_robot import config

#: The average and the rate must not depend on how long the run is to be; the clip is under every gradient.
SETTINGS = ["run.ema_decay=0.5", "run.log_every=1", "optimizer.clip=0.05", "optimizer.lr=1e-4"]

#: What a line says of time, and what is compared exactly.
TOLD_APART = {"seconds", "samples_per_second", "tokens_per_second", "tflops", "step", "lr"}


def together(processes: int, *arguments: str) -> None:
    torchrun(processes, "selfflow_mm.cli.main", "finetune-robot", *arguments)


def log(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def assert_near(a: Path, b: Path, names: tuple[str, ...] = ("model", "ema")) -> None:
    for name in names:
        left, right = (load_group(folder, name) for folder in (a, b))
        assert left.keys() == right.keys()
        furthest = max(float((left[k] - right[k]).abs().max()) for k in left)
        assert furthest < 1e-5, f"{name}: {furthest}"


@pytest.fixture(scope="module")
def runs(dot_data, still_tokenizer, tmp_path_factory):
    """The same run of six steps in one process and in two."""
    from tests.robotics.tiny_robot import write_config

    folder = tmp_path_factory.mktemp("processes")
    file = write_config(folder / "dots.yaml", dot_data, still_tokenizer)
    finetune(config(file, *SETTINGS), folder / "one")
    together(2, str(file), *SETTINGS, "--out", str(folder / "two"))
    return file, folder / "one", folder / "two"


def test_two_processes_take_the_steps_of_one(runs):
    _, one, two = runs
    for a, b in zip(log(one), log(two), strict=True):
        assert a["step"] == b["step"] and a["lr"] == b["lr"]
        shared = a.keys() - TOLD_APART
        assert shared == b.keys() - TOLD_APART
        assert {"loss", "l_rep", "grad_norm"} <= shared
        for name in shared:
            assert b[name] == pytest.approx(a[name], rel=1e-5, abs=1e-5), (a["step"], name)
        assert a["grad_norm"] > 0.05  # or clipping would not be part of this
    for step in ("step-000003", "step-000006"):
        assert_near(one / "checkpoints" / step, two / "checkpoints" / step)
    moved, first = (load_group(one / f"checkpoints/step-00000{k}", "model") for k in (6, 3))
    assert max(float((moved[k] - first[k]).abs().max()) for k in moved) > 1e-4  # far more than what they may differ by
    a, b = (json.loads((out / "offline.json").read_text()) for out in (one, two))
    assert b["actions"]["model"]["mae"] == pytest.approx(a["actions"]["model"]["mae"], rel=1e-3)


def test_one_process_writes_all_but_checkpoints(runs):
    def written(path: Path) -> bool:
        return "tensorboard" in path.parts or path.name.startswith("shard-")

    _, one, two = runs
    names = [
        sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and not written(p))
        for out in (one, two)
    ]
    assert names[0] == names[1]
    shards = {p.name[:11] for p in (two / "checkpoints/step-000006").glob("*.safetensors")}
    assert shards == {"shard-00001", "shard-00002"}  # of a checkpoint, both write a part
    assert len(list((two / "tensorboard").iterdir())) == 1


def test_one_process_goes_on_where_two_were(runs, tmp_path):
    file, one, two = runs
    out = shutil.copytree(two, tmp_path / "two")
    shutil.rmtree(out / "checkpoints/step-000006")
    finetune(config(file, *SETTINGS), out, resume=True)
    assert_near(one / "checkpoints/step-000006", out / "checkpoints/step-000006")
    assert [line["step"] for line in log(out)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.long
def test_two_processes_go_on_where_one_was(runs, tmp_path):
    file, one, _ = runs
    out = shutil.copytree(one, tmp_path / "one")
    shutil.rmtree(out / "checkpoints/step-000006")
    together(2, str(file), *SETTINGS, "--out", str(out), "--resume")
    assert_near(one / "checkpoints/step-000006", out / "checkpoints/step-000006")


def test_places_of_their_own_need_as_many_processes(tmp_path):
    """Where the processes' places in the data differ, only as many can go on."""
    from selfflow_mm.training.checkpoint_writing import CheckpointWriter
    from selfflow_mm.training.ranks import Ranks
    from selfflow_mm.training.state import State

    class Place:
        def __init__(self, at):
            self.at = at

        def state_dict(self):
            return {"at": self.at}

        def load_state_dict(self, state):
            self.at = state["at"]

    class Two(Ranks):
        def gather(self, value):
            return [{"at": 3}, {"at": 4}]

        def wait(self): ...

    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())

    def state(ranks):
        return State(model, model, optimizer, Place(0), None, 5, ranks)

    with CheckpointWriter(tmp_path, keep=1) as writer:
        state(Two(0, 2)).save(writer)
    for rank in (0, 1):
        resumed = state(Two(rank, 2))
        resumed.load(tmp_path / "step-000005")
        assert resumed.batches.at == 3 + rank
    with pytest.raises(UserError, match="was written by 2 processes, each with a place of its own"):
        state(Ranks()).load(tmp_path / "step-000005")


def test_a_batch_that_cannot_be_shared_is_refused(dot_config, tmp_path, monkeypatch):
    from contextlib import nullcontext

    from selfflow_mm.training.ranks import Ranks

    monkeypatch.setattr("selfflow_robotics.finetune.run.joined", lambda: nullcontext(Ranks(0, 2)))
    with pytest.raises(UserError, match="a batch of 5 cannot be shared by 2 processes; take a multiple"):
        finetune(config(dot_config, "data.batch=5"), tmp_path / "a")
    assert not (tmp_path / "a").exists()
