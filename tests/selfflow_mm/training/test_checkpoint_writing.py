"""Writing checkpoints: in the background, by several processes, on disks that fail, and which old ones stay."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from selfflow_mm.errors import UserError
from selfflow_mm.training import checkpoint_writing, shards
from selfflow_mm.training.checkpoint import latest_checkpoint, load_checkpoint, restore, save_checkpoint
from selfflow_mm.training.checkpoint_writing import CheckpointWriter, superseded
from selfflow_mm.training.shards import file_numbers
from selfflow_mm.training.stopping import Stopped
from tests.processes import side_by_side


def _weight(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"weight": torch.full((2, 3), value)}}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch):
    """Writing waits behind it until it is opened."""
    opened, real = threading.Event(), checkpoint_writing.write_shards

    def waits(*args, **kwargs):
        assert opened.wait(30)
        real(*args, **kwargs)

    monkeypatch.setattr(checkpoint_writing, "write_shards", waits)
    return opened


def test_training_goes_on_while_a_checkpoint_is_written_and_does_not_change_it(tmp_path: Path, gate) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with CheckpointWriter(tmp_path, background=True) as writer:
        state = {"place": 5}
        writer.save(1, {"model": model.state_dict()}, state)
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        state["place"] = 6
        assert latest_checkpoint(tmp_path) is None and not writer.failed
        gate.set()
        writer.wait()
        _, tensors, stored = load_checkpoint(tmp_path / "step-000001")
        assert stored == {"place": 5}
        for name, value in before.items():
            assert torch.equal(tensors["model"][name], value)
            assert not torch.equal(model.state_dict()[name], value)


def test_a_save_waits_for_the_one_before_and_the_end_for_the_last(tmp_path: Path, gate) -> None:
    threading.Timer(0.2, gate.set).start()
    with CheckpointWriter(tmp_path, keep=0, background=True) as writer:
        writer.save(1, _weight(1.0), {})
        writer.save(2, _weight(2.0), {})
        assert (tmp_path / "step-000001").is_dir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000001", "step-000002"]
    with pytest.raises(KeyError), CheckpointWriter(tmp_path, keep=1, background=True) as writer:
        writer.save(3, _weight(3.0), {})
        raise KeyError  # a run that breaks waits, too
    assert [p.name for p in tmp_path.iterdir()] == ["step-000003"]


class Disk:
    """A disk that is full for the first ``failures`` writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: float, number: int = errno.ENOSPC) -> None:
        self.left, self.pauses = failures, []
        real = os.fsync

        def fsync(descriptor: int) -> None:  # called for every file that torch and we write
            if self.left > 0:
                self.left -= 1
                raise OSError(number, os.strerror(number))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr("time.sleep", self.pauses.append)


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path: Path, monkeypatch, background: bool) -> None:
    save_checkpoint(tmp_path, 1, _weight(1.0), {})
    disk = Disk(monkeypatch, failures=3)
    with pytest.warns(
        UserWarning, match=r"writing .*step-000002 failed \(.*No space left.*\); trying again for 20 s"
    ) as w:
        with CheckpointWriter(tmp_path, background=background, retry_seconds=20) as writer:
            writer.save(2, _weight(2.0), {})
    assert disk.pauses == [1, 2, 4] and len(w) == 1
    assert load_checkpoint(tmp_path / "step-000002")[1]["model"]["weight"][0, 0] == 2
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("number, reason", [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only file system")])
def test_a_disk_that_stays_full_stops_the_run_with_one_sentence(tmp_path: Path, monkeypatch, number, reason) -> None:
    save_checkpoint(tmp_path, 1, _weight(1.0), {})
    disk = Disk(monkeypatch, float("inf"), number)
    writer = CheckpointWriter(tmp_path, background=True, retry_seconds=5)
    with pytest.warns(UserWarning), pytest.raises(UserError) as caught, writer:
        writer.save(2, _weight(2.0), {})
        while not writer.failed:
            pass
        writer.save(3, _weight(3.0), {})
    sentence = str(caught.value)
    assert "the checkpoint of step 2 cannot be written to" in sentence and reason in sentence
    assert "was tried for 5 s; the last good checkpoint is" in sentence and "step-000001" in sentence
    assert "\n" not in sentence and disk.pauses == [1, 2, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]  # the draft is gone, as it takes room


def test_what_cannot_be_saved_is_not_called_saved(tmp_path: Path, monkeypatch) -> None:
    Disk(monkeypatch, float("inf"))
    with pytest.raises(UserError, match="cannot be written"), CheckpointWriter(tmp_path, background=True) as writer:
        writer.save(2, _weight(2.0), {})
        raise Stopped("stopped at step 2 with everything saved")
    with pytest.warns(UserWarning, match="cannot be written"), pytest.raises(KeyError):
        with CheckpointWriter(tmp_path, background=True) as writer:
            writer.save(2, _weight(2.0), {})
            raise KeyError


def test_a_folder_that_is_lost_comes_back(tmp_path: Path, monkeypatch) -> None:
    """A share that is unmounted leaves a file, or nothing, where the folder was."""
    folder = tmp_path / "run" / "checkpoints"
    save_checkpoint(folder, 1, _weight(1.0), {})
    shutil.move(tmp_path / "run", tmp_path / "away")
    (tmp_path / "run").touch()

    def mounted_again(seconds: float) -> None:
        (tmp_path / "run").unlink()
        shutil.move(tmp_path / "away", tmp_path / "run")

    monkeypatch.setattr("time.sleep", mounted_again)
    with pytest.warns(UserWarning, match="trying again"), CheckpointWriter(folder, retry_seconds=9) as writer:
        writer.save(2, _weight(2.0), {})
    assert sorted(p.name for p in folder.iterdir()) == ["step-000001", "step-000002"]


def test_room_is_looked_at_before_the_first_step(tmp_path: Path, monkeypatch) -> None:
    free = 0

    def usage(path):
        assert Path(path).is_dir()
        return shutil._ntuple_diskusage(10**12, 10**12 - free, free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    writer = CheckpointWriter(tmp_path / "a/checkpoints", keep=3)
    free = int(1.9e9)
    with pytest.raises(UserError, match="takes about 1 GB and .* has 1.9 GB left, too little to write one beside"):
        writer.check_room(10**9)
    free = int(2.1e9)
    assert "less than the 4 more that run.keep=3 asks for" in str(writer.check_room(10**9))
    free = int(4.1e9)
    assert writer.check_room(10**9) is None
    save_checkpoint(tmp_path / "a/checkpoints", 1, _weight(1.0), {})
    (tmp_path / "a/checkpoints/.step-000002.tmp").mkdir()  # a kill left it, and the room it takes is free again
    free = int(1.1e9)  # one is there already
    assert "less than the 3 more" in str(writer.check_room(10**9))
    assert [p.name for p in writer.folder.iterdir()] == ["step-000001"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written to \(Not a directory\); give another --out"):
        CheckpointWriter(tmp_path / "file/checkpoints").check_room(1)


@given(st.lists(st.integers(1, 400), unique=True).map(sorted), st.integers(0, 5), st.sampled_from([0, 1, 2, 7, 10, 50]))
def test_the_last_k_and_every_n_stay_and_nothing_else(steps: list[int], keep: int, every: int) -> None:
    gone = {int(p.name) for p in superseded([(step, Path(str(step))) for step in steps], keep, every)}
    if keep == 0:
        assert not gone
    for place, step in enumerate(steps):
        recent = len(steps) - place <= keep
        assert (step in gone) == (keep > 0 and not recent and not (every > 0 and step % every == 0))


def test_the_last_k_and_every_n_are_found_on_disk(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, keep=2, keep_every=4, background=True) as writer:
        for step in range(1, 12):
            writer.save(step, _weight(1.0), {})
    assert sorted(int(p.name[5:]) for p in tmp_path.iterdir()) == [4, 8, 10, 11]


def test_a_write_that_the_system_cuts_is_tried_again(tmp_path: Path, monkeypatch) -> None:
    """No stand-in: the system lets no file grow beyond a limit, as a full disk or a quota would."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr("time.sleep", lambda seconds: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))
    try:
        with pytest.warns(UserWarning, match="File too large"), CheckpointWriter(tmp_path, retry_seconds=9) as writer:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
            writer.save(1, {"model": {"a": torch.ones(10_000)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_checkpoint(tmp_path / "step-000001")[1]["model"]["a"].sum() == 10_000


def test_torch_reads_what_is_written_and_writes_what_is_read(tmp_path: Path) -> None:
    """Its own reader and writer of the format, in place of ours."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter, load, save

    tensors = {"model": {"a.b": torch.randn(3, 4), "n": torch.tensor(7)}, "ema": {"a.b": torch.randn(3, 4).bfloat16()}}
    flat = {f"{g}.{k}": v for g, named in tensors.items() for k, v in named.items()}
    path = save_checkpoint(tmp_path, 1, tensors, {})
    room = {key: torch.zeros_like(value) for key, value in flat.items()}
    load(room, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)
    assert all(torch.equal(room[key], value) for key, value in flat.items())
    record = json.loads((path / "state.json").read_text())
    for file in path.glob("*.safetensors"):
        file.unlink()
    save(flat, storage_writer=HuggingFaceStorageWriter(str(path), save_distributed=True), no_dist=True)
    [file] = path.glob("*.safetensors")
    record["files"] = {
        file.name: {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    }
    (path / "state.json").write_text(json.dumps(record))
    _, found, _ = load_checkpoint(path)
    assert all(torch.equal(found[g][k], v) for g, named in tensors.items() for k, v in named.items())


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30)), max_size=20), st.integers(1, 40))
def test_files_hold_one_group_and_no_more_than_they_may(drawn: list[tuple[str, int]], largest: int) -> None:
    tensors = {f"{group}.{i}": torch.zeros(n, dtype=torch.uint8) for i, (group, n) in enumerate(sorted(drawn))}
    numbers = file_numbers(["a", "b"], tensors, largest)
    assert numbers.keys() == tensors.keys()
    assert sorted(set(numbers.values())) == list(range(1, len(set(numbers.values())) + 1))
    for number in set(numbers.values()):
        held = [key for key in tensors if numbers[key] == number]
        assert len({key[0] for key in held}) == 1
        assert len(held) == 1 or sum(tensors[key].numel() for key in held) <= largest


def test_large_groups_are_several_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shards, "LARGEST_FILE", 100)
    tensors = {"model": {str(i): torch.full((20,), float(i)) for i in range(4)}, "ema": {"x": torch.ones(3)}}
    path = save_checkpoint(tmp_path, 1, tensors, {})
    assert len(list(path.glob("*.safetensors"))) == 5
    _, found, _ = load_checkpoint(path)
    assert all(torch.equal(found[g][k], v) for g, named in tensors.items() for k, v in named.items())


# --- several processes

#: Every process builds the same model, shards it over all of them, takes two steps, and saves or loads.
_WORK = """
import json, os, sys, time, warnings
from pathlib import Path
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from selfflow_mm.training.checkpoint import load_group
from selfflow_mm.training.checkpoint_writing import CheckpointWriter
from selfflow_mm.training.ranks import joined
from selfflow_mm.training.state import State
from safetensors.torch import save_file

class Place:
    at = 0
    def state_dict(self):
        return {"at": self.at}
    def load_state_dict(self, state):
        self.at = state["at"]

def whole(t):
    return t.full_tensor() if hasattr(t, "full_tensor") else t

def build(world):
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 1)) for _ in range(2)]
    if world > 1:
        for m in models:
            fully_shard(m[0]); fully_shard(m)
    model, teacher = models
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=sys.argv[3] == "fused")
    return model, teacher, optimizer

def steps(model, optimizer, numbers):
    for k in numbers:
        x = torch.randn(6, 5, generator=torch.Generator().manual_seed(k))
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

folder, task = Path(sys.argv[1]), sys.argv[2]
warnings.simplefilter("error")
with joined() as ranks:
    model, teacher, optimizer = build(ranks.world)
    state = State(model, teacher, optimizer, Place(), None, 2, ranks)
    if task == "write":
        steps(model, optimizer, range(2))
        state.batches.at = 12
        warnings.filterwarnings("ignore", "writing .* trying again")
        pauses, real, full = [], os.fsync, [ranks.world > 1 and ranks.rank == 1]
        def fsync(descriptor):  # the second process's disk is full at first
            if full.pop() if full else False:
                raise OSError(28, "No space left on device")
            real(descriptor)
        os.fsync, time.sleep = fsync, pauses.append
        with CheckpointWriter(folder, background=True, retry_seconds=9, ranks=ranks) as writer:
            state.save(writer)
            steps(model, optimizer, range(2, 4))  # while it is written
            writer.wait()
        assert pauses == [1] * (ranks.world > 1), pauses  # both tried again
    else:
        state.step = 0
        state.load(folder / "step-000002")
        assert state.step == 2 and state.batches.at == 12
        loaded = {k: whole(v).clone() for k, v in model.state_dict().items()}
        steps(model, optimizer, range(2, 4))
        if ranks.first:
            save_file(loaded, folder / f"loaded-{ranks.world}.safetensors")
    final = {k: whole(v) for k, v in model.state_dict().items()}
    if ranks.first:
        save_file(final, folder / f"{task}-{ranks.world}.safetensors")
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint by two processes."""
    folder = tmp_path_factory.mktemp("written")
    side_by_side(2, _WORK, str(folder), "write", "fused")
    return folder


def _goes_on(folder: Path, writers: int, readers: int) -> None:
    """FSDP2 shards, one of them empty (of a bias of one number), in the checkpoint and in the model that reads it."""
    path = folder / "step-000002"
    record = json.loads((path / "state.json").read_text())
    assert record["processes"] == writers and {name[:11] for name in record["files"]} == {
        f"shard-{rank + 1:05d}" for rank in range(writers)
    }
    _, groups, _ = load_checkpoint(path)  # without torch.distributed
    assert {name.rpartition(".")[2] for name in groups["optimizer"]} == {"step", "exp_avg", "exp_avg_sq"}
    assert all(v == 2 for name, v in groups["optimizer"].items() if name.endswith(".step"))
    loaded = load_file(folder / f"loaded-{readers}.safetensors")
    assert loaded.keys() == groups["model"].keys()
    assert all(torch.equal(loaded[name], groups["model"][name]) for name in loaded)
    went_on, straight = (load_file(folder / f"{n}.safetensors") for n in (f"read-{readers}", f"write-{writers}"))
    for name, value in straight.items():
        assert torch.allclose(went_on[name], value, atol=1e-5, rtol=0), name
        assert not torch.allclose(loaded[name], value, atol=1e-3)


def test_one_process_goes_on_where_two_were(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(sys, "argv", ["-c", str(written), "read", "fused"])
    with warnings.catch_warnings():
        exec(compile(_WORK, "work", "exec"), {})
    _goes_on(written, 2, 1)


def test_three_processes_go_on_where_two_were(written: Path) -> None:
    side_by_side(3, _WORK, str(written), "read", "fused")
    _goes_on(written, 2, 3)


@pytest.mark.long
def test_two_processes_go_on_where_one_was(tmp_path: Path) -> None:
    side_by_side(1, _WORK, str(tmp_path), "write", "plain")
    side_by_side(2, _WORK, str(tmp_path), "read", "plain")
    _goes_on(tmp_path, 1, 2)


def test_a_checkpoint_of_the_first_version_goes_into_shards(tmp_path: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        path = tmp_path / "step-000001"
        path.mkdir()
        weight = torch.randn(4, 3)
        save_file({"w": weight}, path / "model.safetensors")
        files = {"model.safetensors": (path / "model.safetensors").stat().st_size}
        record = {"format": "selfflow-checkpoint", "version": 1, "step": 1, "files": files, "state": {}}
        (path / "state.json").write_text(json.dumps(record))
        room = distribute_tensor(torch.zeros(4, 3), init_device_mesh("cpu", (1,)), [Shard(0)])
        restore(path, {"model": {"w": room}})
        assert torch.equal(room.full_tensor(), weight)
    finally:
        torch.distributed.destroy_process_group()
