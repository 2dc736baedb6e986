"""Checkpoints: exact round trips, and nothing half-written is ever picked up, wherever the writer was killed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from selfflow_mm.errors import UserError
from selfflow_mm.training.checkpoint import (
    checkpoint_to_resume,
    latest_checkpoint,
    load_checkpoint,
    load_group,
    load_optimizer_tensors,
    optimizer_tensors,
    restore,
    save_checkpoint,
)


class Killed(BaseException):
    """Stands for a kill: nothing in the code under test may catch it."""


def _tensors(value: float = 1.0) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"weight": torch.full((2, 3), value)}, "ema": {"weight": torch.full((2, 3), -value)}}


_DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@given(st.sampled_from(_DTYPES), st.lists(st.integers(0, 4), max_size=4), st.integers(0, 10**7))
def test_tensors_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, dtype, shape, step: int) -> None:
    values = (torch.randn(shape) * 100).to(dtype)
    folder = tmp_path_factory.mktemp("checkpoints")
    path = save_checkpoint(folder, step, {"model": {"a.b": values}, "nothing": {}}, {"lists": [1, None, "x"]})
    found_step, tensors, state = load_checkpoint(path)
    assert found_step == step and state == {"lists": [1, None, "x"]}
    assert tensors["nothing"] == {}
    loaded = tensors["model"]["a.b"]
    assert loaded.dtype == dtype and loaded.shape == values.shape and torch.equal(loaded, values)


def test_views_and_tied_weights_are_stored(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    group = {"tied": base, "again": base, "row": base[1], "turned": base.T}
    _, tensors, _ = load_checkpoint(save_checkpoint(tmp_path, 1, {"model": group}, {}))
    assert all(torch.equal(tensors["model"][name], tensor) for name, tensor in group.items())


def test_the_newest_is_found_by_number_and_older_ones_go(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None and latest_checkpoint(tmp_path / "missing") is None
    for step in (5, 50, 999_999, 1_000_000):
        save_checkpoint(tmp_path, step, _tensors(), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-1000000", "step-999999"]
    assert latest_checkpoint(tmp_path) == tmp_path / "step-1000000"
    save_checkpoint(tmp_path, 1_000_001, _tensors(), {}, keep=0)
    assert len(list(tmp_path.iterdir())) == 3


def test_pruning_spares_later_steps(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 30, _tensors(), {})
    for step in (10, 11, 12):  # a run that went back to step 10
        save_checkpoint(tmp_path, step, _tensors(), {}, keep=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000012", "step-000030"]


@pytest.mark.parametrize("resaves", [False, True])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resaves: bool
) -> None:
    """Cut the save before every single rename, flush and removal in turn; the next save must clean up and succeed."""
    new_step = 1 if resaves else 2
    moment, completed = 0, False
    while not completed:
        folder = tmp_path / str(moment)
        save_checkpoint(folder, 1, _tensors(1.0), {}, keep=1)
        left = moment

        def cut(call):
            def wrapped(*args, **kwargs):
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return call(*args, **kwargs)

            return wrapped

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", cut(os.rename))
            patch.setattr(os, "fsync", cut(os.fsync))
            patch.setattr(shutil, "rmtree", cut(shutil.rmtree))
            try:
                save_checkpoint(folder, new_step, _tensors(2.0), {}, keep=1)
                completed = True
            except Killed:
                pass
        newest = latest_checkpoint(folder)
        assert newest is not None, f"killed at moment {moment}: no checkpoint is left"
        step, tensors, _ = load_checkpoint(newest)
        value = tensors["model"]["weight"][0, 0].item()
        assert (step, value) in {(1, 1.0), (new_step, 2.0)}
        assert torch.equal(tensors["ema"]["weight"], torch.full((2, 3), -value))
        save_checkpoint(folder, 3, _tensors(3.0), {}, keep=1)
        assert [p.name for p in folder.iterdir()] == ["step-000003"]
        moment += 1
    assert moment > 6  # the save was really cut in many places


def _damage(file: Path) -> None:
    """Turn one bit of its last byte; the size stays."""
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def _shard(path: Path, group: str = "model") -> Path:
    """The file that holds a group of a small checkpoint."""
    [file] = [f for f in path.glob("*.safetensors") if any(key.startswith(f"{group}.") for key in load_file(f))]
    return file


def test_an_incomplete_copy_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, _tensors(), {})
    weights = _shard(tmp_path / "step-000002")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=f"step-000002 is passed over: {weights.name} has"):
        assert latest_checkpoint(tmp_path) == tmp_path / "step-000001"
    with pytest.raises(UserError, match="the checkpoint is broken: .* bytes instead of .*; use step-000001 before it"):
        load_checkpoint(tmp_path / "step-000002")
    (tmp_path / "step-000002" / "state.json").unlink()
    with pytest.warns(UserWarning, match="it has no state.json"):
        assert latest_checkpoint(tmp_path) == tmp_path / "step-000001"


def test_one_wrong_bit_is_found_and_an_earlier_checkpoint_named_and_taken(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, _tensors(float(step)), {}, keep=0)
    _damage(_shard(tmp_path / "step-000003"))
    _damage(_shard(tmp_path / "step-000002", "ema"))
    assert latest_checkpoint(tmp_path) == tmp_path / "step-000003"  # sizes are right
    name = _shard(tmp_path / "step-000003").name
    with pytest.raises(UserError, match=f"{name} has another SHA-256 .* use step-000001 before it, which is whole"):
        load_checkpoint(tmp_path / "step-000003")
    with pytest.raises(UserError, match="another SHA-256"):
        load_group(tmp_path / "step-000003", "model")
    assert load_group(tmp_path / "step-000003", "ema")["weight"][0, 0] == -3  # the file of this group is whole
    with pytest.warns(UserWarning, match="step-00000[23] is passed over: .* has another SHA-256") as warned:
        assert checkpoint_to_resume(tmp_path) == tmp_path / "step-000001"
    assert len(warned) == 2
    _damage(_shard(tmp_path / "step-000001"))
    with pytest.raises(UserError, match="there is no earlier one that is whole"):
        load_checkpoint(tmp_path / "step-000001")
    with (
        pytest.warns(UserWarning),
        pytest.raises(UserError, match="no checkpoint in .* is whole, so"),
    ):
        checkpoint_to_resume(tmp_path)
    assert checkpoint_to_resume(tmp_path / "missing") is None


def _first_version(folder: Path, step: int, tensors: dict[str, dict[str, torch.Tensor]]) -> Path:
    """A checkpoint as the release before this one wrote it."""
    path = folder / f"step-{step:06d}"
    path.mkdir(parents=True)
    for group, named in tensors.items():
        save_file(named, path / f"{group}.safetensors")
    files = {f"{group}.safetensors": (path / f"{group}.safetensors").stat().st_size for group in tensors}
    record = {"format": "selfflow-checkpoint", "version": 1, "step": step, "files": files, "state": {"samples": 8}}
    (path / "state.json").write_text(json.dumps(record))
    return path


def test_checkpoints_of_the_first_version_are_read(tmp_path: Path) -> None:
    tensors = {**_tensors(4.0), "posthoc-0.050": {"weight": torch.full((2, 3), 9.0)}}
    path = _first_version(tmp_path, 7, tensors)
    assert latest_checkpoint(tmp_path) == checkpoint_to_resume(tmp_path) == path
    step, found, state = load_checkpoint(path)
    assert (step, state) == (7, {"samples": 8}) and found.keys() == tensors.keys()
    assert all(torch.equal(found[g]["weight"], tensors[g]["weight"]) for g in tensors)
    room = {group: {"weight": torch.zeros(2, 3)} for group in ("ema", "posthoc-0.050")}
    restore(path, room)
    assert all(torch.equal(room[g]["weight"], tensors[g]["weight"]) for g in room)
    save_checkpoint(tmp_path, 9, _tensors(), {}, keep=1)  # the run goes on with this release
    assert [p.name for p in tmp_path.iterdir()] == ["step-000009"]


def test_groups_may_have_dots_and_share_a_beginning(tmp_path: Path) -> None:
    names = ("d", "d_optimizer", "posthoc-0.05", "posthoc-0.050")
    tensors = {group: {"a.b": torch.full((2,), float(i)), "050.x": torch.ones(1)} for i, group in enumerate(names)}
    path = save_checkpoint(tmp_path, 1, tensors, {})
    for i, group in enumerate(names):
        found = load_group(path, group)
        assert sorted(found) == ["050.x", "a.b"] and found["a.b"].tolist() == [i, i]
    with pytest.raises(UserError, match="holds no 'posthoc-0.1'; it holds d, d_optimizer"):
        load_group(path, "posthoc-0.1")


def test_pieces_must_make_a_whole(tmp_path: Path) -> None:
    """Two shards of a tensor of six rows, written here by hand; then one that covers the other's rows."""
    for second, whole in ((4, True), (3, False)):
        path = tmp_path / f"step-00000{second}"
        path.mkdir()
        for number, (offset, rows) in enumerate(((0, 4), (second, 2)), start=1):
            places = {"DCP_SHARDING_INFO": json.dumps({"model.w": {"saved_offsets": [offset, 0]}})}
            piece = {"model.w": torch.full((rows, 3), float(number))}
            save_file(piece, path / f"shard-0000{number}-model-00001-of-00001.safetensors", metadata=places)
        files = {
            file.name: {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
            for file in path.iterdir()
        }
        record = {"format": "selfflow-checkpoint", "version": 2, "step": 1, "groups": ["model"], "state": {}}
        (path / "state.json").write_text(json.dumps(record | {"files": files}))
        if whole:
            assert load_group(path, "model")["w"][:, 0].tolist() == [1, 1, 1, 1, 2, 2]
        else:
            with pytest.raises(UserError, match="the pieces of 'w' do not make a whole"):
                load_group(path, "model")


def test_restoring_fills_tensors_in_place_and_refuses_others(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"model": {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor(4)}}, {})
    room = {"a": torch.zeros(2, 3), "n": torch.tensor(0)}
    before = {name: tensor.data_ptr() for name, tensor in room.items()}
    restore(path, {"model": room})
    assert torch.equal(room["a"], torch.arange(6.0).view(2, 3)) and room["n"] == 4
    assert before == {name: tensor.data_ptr() for name, tensor in room.items()}
    for other, why in [
        ({"a": torch.zeros(2, 3)}, "the model here has not 'n'"),
        ({**room, "z": torch.zeros(1)}, "only the model here has 'z'"),
        ({**room, "a": torch.zeros(3, 2)}, r"'a' is \(2, 3\) there, \(3, 2\) here"),
    ]:
        with pytest.raises(UserError, match=f"is of a model of another shape: {why}"):
            restore(path, {"model": other})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": 99}, "version 99 cannot be read; this release reads 1 and 2"),
        ({"format": "x"}, "is not a checkpoint of ours"),
    ],
)
def test_an_unknown_format_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    path = save_checkpoint(tmp_path, 1, _tensors(), {})
    state = path / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | change))
    with pytest.raises(UserError, match=message):
        load_checkpoint(path)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a checkpoint: it has no state.json"):
        load_checkpoint(tmp_path)


def _model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        data = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        model(data).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"fused": True}, {"foreach": True}])
def test_a_resumed_optimiser_takes_the_same_steps(tmp_path: Path, options: dict) -> None:
    whole = _model()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=0.01, **options)
    _train(whole, optimizer, range(3))
    path = save_checkpoint(
        tmp_path, 3, {"model": whole.state_dict(), "optimizer": optimizer_tensors(optimizer, whole)}, {}
    )
    _train(whole, optimizer, range(3, 6))

    resumed = _model()
    again = torch.optim.AdamW(resumed.parameters(), lr=0.01, **options)
    _train(resumed, again, range(1))  # state of its own, which loading must replace
    _, tensors, _ = load_checkpoint(path)
    resumed.load_state_dict(tensors["model"])
    load_optimizer_tensors(again, resumed, tensors["optimizer"])
    _train(resumed, again, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_optimiser_state_of_another_model_is_refused() -> None:
    model = _model()
    optimizer = torch.optim.AdamW(model.parameters())
    _train(model, optimizer, range(1))
    tensors = optimizer_tensors(optimizer, model)
    with pytest.raises(UserError, match="trains no parameter '9.weight'"):
        load_optimizer_tensors(optimizer, model, {"9.weight.exp_avg": torch.zeros(1)})
    with pytest.raises(UserError, match=r"'0.weight.exp_avg' has shape \(1, 1\), the parameter \(5, 3\)"):
        load_optimizer_tensors(optimizer, model, tensors | {"0.weight.exp_avg": torch.zeros(1, 1)})
