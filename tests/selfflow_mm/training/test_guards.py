"""Bad steps: which they are, that they change nothing, what is said of them, and when a run gives up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.conditions import Conditions
from selfflow_mm.errors import UserError
from selfflow_mm.flow.objectives import Batch, Objective
from selfflow_mm.tokens import TokenStream
from selfflow_mm.training import engine, guards
from selfflow_mm.training.checkpoint import latest_checkpoint
from selfflow_mm.training.guards import Guard, describe_batch
from selfflow_mm.training.run_folder import read_log, read_warnings
from tests.processes import side_by_side
from tests.selfflow_mm.training.test_loop import POSTHOC, assert_same, killed_at, run, tensors


def step(norm: float, loss: float = 1.0) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(loss), "grad_norm": torch.tensor(norm)}


@given(
    st.lists(st.floats(0.125, 8, width=32), min_size=guards.ENOUGH, max_size=3 * guards.RECENT),
    st.floats(1.5, 20),
    st.floats(0.125, 1024, width=32),
)
def test_a_spike_is_above_so_many_times_the_median_of_the_last_hundred_good_norms(norms, spike, last):
    guard, good = Guard(), []
    for norm in [*norms, last]:
        usual = np.median(good[-100:]) if len(good) >= guards.ENOUGH else np.inf
        accepted = guard.accepts(step(norm), spike)
        assert accepted == (norm <= spike * usual) == (not guard.reason)
        good += [norm] if accepted else []
    again = Guard()
    again.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert list(again.norms) == good[-100:] and again.in_a_row == guard.in_a_row


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_named_and_is_in_no_median(bad):
    guard = Guard()
    assert not guard.accepts(step(1.0, bad) | {"l_gen/video": torch.tensor(bad)}, 5.0)
    assert guard.reason == "loss, l_gen/video is not finite" and guard.in_a_row == 1
    assert not guard.accepts(step(bad), 5.0) and guard.in_a_row == 2
    assert guard.accepts(step(2.0), 5.0) and guard.in_a_row == 0 and list(guard.norms) == [2.0]


def test_without_spikes_to_look_for_nothing_is_kept():
    guard = Guard()
    assert all(guard.accepts(step(float(10**i)), 0.0) for i in range(30)) and guard.state_dict() == {}


def test_spoilt_tokens_are_named_by_their_sample_packed_or_not_and_padding_is_nobodys():
    values = torch.zeros(2, 4, 3)
    positions = torch.zeros(4, 4)
    plain = TokenStream.dense(values.clone(), positions)
    plain.values[1, 2, 0] = torch.nan
    text = TokenStream.dense(torch.zeros(2, 1, 2), torch.zeros(1, 4))
    t2v = Conditions.named("t2v")
    found = describe_batch(Batch({"video": plain}, t2v, text, torch.tensor([7, 9])), "a", "t2v", ["x", "y"])
    assert found == {"source": "a", "task": "t2v", "samples": ["x", "y"], "spoilt": {"video": ["y"]}}
    sample = torch.tensor([[0, 0, 1, 1], [0, 0, 0, -1]])
    packed = TokenStream(values.clone(), positions.expand(2, 4, 4), sample)
    packed.values[0, 3] = torch.inf
    packed.values[1, 3] = torch.nan  # padding
    spoilt_text = TokenStream(torch.zeros(2, 2, 2), torch.zeros(2, 2, 4), torch.tensor([[0, 1], [0, -1]]))
    spoilt_text.values[1, 0] = torch.nan
    ids = torch.tensor([[7, 8], [9, -1]])
    found = describe_batch(Batch({"video": packed}, t2v, spoilt_text, ids), "a", "t2v", [7, 8, 9])
    assert found["spoilt"] == {"video": ["8"], "text": ["9"]}


def spiked(monkeypatch, at: range, factor: float) -> None:
    """The loss of some steps is multiplied, and so is its gradient."""
    real = Objective.loss

    def loss(self, model, teacher, batch, random, number, totals=None):
        value, report = real(self, model, teacher, batch, random, number, totals)
        return (value * factor, report) if number in at else (value, report)

    monkeypatch.setattr(Objective, "loss", loss)
    monkeypatch.setattr(guards, "ENOUGH", 3)


SKIPPING = ["run.skip_steps=2", "run.spike=50"]


def test_a_spike_is_as_if_its_step_had_not_been_killed_or_not(small_config, tmp_path, monkeypatch, capfd):
    real = engine.take_step

    def idle(settings, optimizer, state, *args):
        return step(1.0) if state.step == 4 else real(settings, optimizer, state, *args)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "take_step", idle)
        run(small_config, tmp_path / "idle", *POSTHOC)
    spiked(monkeypatch, range(4, 5), 1e4)
    run(small_config, tmp_path / "spike", *POSTHOC, *SKIPPING)
    assert_same(tmp_path / "idle/checkpoints/step-000006", tmp_path / "spike/checkpoints/step-000006")
    assert_same(tmp_path / "idle/posthoc_ema", tmp_path / "spike/posthoc_ema")
    assert [line.get("skipped", 0) for line in read_log(tmp_path / "spike")] == [0, 0, 1]
    assert read_log(tmp_path / "spike")[-1]["loss"] < 10  # the spike is in no mean
    (warning,) = read_warnings(tmp_path / "spike")
    assert "step 4: the gradient norm" in warning["warning"] and "(source clips, task " in warning["warning"]
    assert capfd.readouterr().err.count(warning["warning"]) == 1
    assert warning["warning"] in (tmp_path / "spike/report.html").read_text()

    # What is a spike hangs on the norms before it, so the checkpoint has them.
    with killed_at(4):
        run(small_config, tmp_path / "cut", *POSTHOC, *SKIPPING)
    shutil.copytree(tmp_path / "cut", tmp_path / "old")
    run(small_config, tmp_path / "cut", *POSTHOC, *SKIPPING, resume=True)
    assert_same(tmp_path / "spike/checkpoints/step-000006", tmp_path / "cut/checkpoints/step-000006")
    # A checkpoint of an earlier release has none: they are gathered from there on.
    file = tmp_path / "old/checkpoints/step-000003/state.json"
    record = json.loads(file.read_text())
    assert len(record["state"].pop("guard")["norms"]) == 3
    file.write_text(json.dumps(record))
    run(small_config, tmp_path / "old", *POSTHOC, *SKIPPING, resume=True)
    assert not read_warnings(tmp_path / "old")


def test_latents_that_are_not_finite_cost_a_step_and_are_named(small_config, tmp_path, monkeypatch):
    from selfflow_mm.data.latents import LatentDataset

    real, calls = LatentDataset.stream, 0

    def spoilt(self, name, ids):
        nonlocal calls
        stream = real(self, name, ids)
        calls += name == "video"
        if name == "video" and calls == 2:
            stream.values[1, 2, 0] = float("nan")
            spoilt.sample = ids[1]
        return stream

    monkeypatch.setattr(LatentDataset, "stream", spoilt)
    run(small_config, tmp_path / "a", "data.sources.clips.tasks={t2va: 1}", "run.skip_steps=1")
    (warning,) = read_warnings(tmp_path / "a")
    assert f"the video latents of sample {spoilt.sample} are not finite" in warning["warning"]
    assert warning["warning"].endswith("the step is skipped")
    assert all(torch.isfinite(v).all() for v in tensors(latest_checkpoint(tmp_path / "a/checkpoints")).values())


def test_too_many_bad_steps_in_a_row_save_and_stop_and_the_run_goes_on(small_config, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        spiked(patch, range(3, 99), float("nan"))
        with pytest.raises(UserError, match=r"step 5: .* is not finite .*bad step 3 in a row; all is saved.*--resume"):
            run(small_config, tmp_path / "a", "run.steps=9", "run.skip_steps=2")
    checkpoints = tmp_path / "a/checkpoints"
    assert latest_checkpoint(checkpoints).name == "step-000006"
    assert_same(checkpoints / "step-000003", checkpoints / "step-000006")
    assert len(read_warnings(tmp_path / "a")) == 3
    run(small_config, tmp_path / "a", "run.steps=9", "run.skip_steps=2", resume=True)
    assert latest_checkpoint(checkpoints).name == "step-000009"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("run.spike=0.5", "spike is a multiple of the usual gradient norm above 1"),
        ("run.skip_steps=-1", "skip_steps counts steps"),
    ],
)
def test_impossible_guards_are_refused(small_config, tmp_path, override, sentence):
    with pytest.raises(UserError, match=sentence):
        run(small_config, tmp_path / "a", override)


#: Two processes take three steps; in the second one of process 1's samples is spoilt. Then they watch gradients of
#: which each has a part.
_WORK = """
import json, sys
from pathlib import Path
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from selfflow_mm.conditions import Conditions
from selfflow_mm.flow.objectives import Batch, Objective, ObjectiveConfig
from selfflow_mm.models.joint import JointConfig, JointTransformer
from selfflow_mm.randomness import Randomness
from selfflow_mm.tokens import TokenStream
from selfflow_mm.training import ema
from selfflow_mm.training.config import OptimizerConfig, RunConfig
from selfflow_mm.training.gradient_watch import GradientWatch
from selfflow_mm.training.guards import bad_step, describe_batch
from selfflow_mm.training.ranks import joined
from selfflow_mm.training.state import State
from selfflow_mm.training.step import Work, take_step

with joined() as ranks:
    torch.manual_seed(0)
    config = JointConfig(width=32, heads=2, double_blocks=1, single_blocks=1, mlp_ratio=2, rope_axes=(8, 4, 4, 0),
                         modalities={"video": 3}, text_channels=4)
    model = JointTransformer(config)
    teacher = ema.copy_for_ema(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    state = State(model, teacher, optimizer, None, ranks=ranks)
    cpu = torch.device("cpu")
    objective = Objective(ObjectiveConfig(name="flow"))
    work = Work(model, teacher, objective, Randomness(0), 0.9, cpu, torch.float32, Path("none"))
    found = {"sums": [], "reasons": [], "said": ""}
    for number in range(3):
        video = TokenStream.dense(torch.randn(2, 5, 3), torch.zeros(5, 4))
        if number == 1 and ranks.rank == 1:
            video.values[1, 3, 0] = torch.inf
        text = TokenStream.dense(torch.zeros(2, 1, 4), torch.zeros(1, 4))
        ids = torch.arange(2) + 2 * ranks.rank
        batch = Batch({"video": video}, Conditions.named("t2v"), text, ids)
        take_step(RunConfig(steps=3, skip_steps=1), OptimizerConfig(), state, work, batch)
        both = [*model.parameters(), *teacher.parameters()]
        found["sums"].append(float(sum(p.double().abs().sum() for p in both)))
        found["reasons"].append(state.guard.reason)
        if state.guard.reason:
            parts = ranks.gather(describe_batch(batch, "s", "t2v", ids.tolist()))
            found["said"], _ = bad_step(number, state.guard.reason, parts)
        state.step += 1

    mesh = init_device_mesh("cpu", (2,))
    layers = torch.nn.Module()
    for side in ("media_in", "media_out"):
        setattr(layers, side, torch.nn.ModuleDict({m: torch.nn.Linear(2, 2, bias=False) for m in ("video", "audio")}))
        for m, layer in getattr(layers, side).items():
            layer.weight = torch.nn.Parameter(DTensor.from_local(torch.zeros(1, 2), mesh, [Shard(0)]))
            # Only process 1's part of the video's gradient is not zero; the sound has none at all.
            part = torch.ones(1, 2) * (ranks.rank == 1)
            layer.weight.grad = DTensor.from_local(part, mesh, [Shard(0)]) if m == "video" else None
    watch = GradientWatch(layers, ("video", "audio"), {})
    small = torch.optim.SGD(layers.parameters(), 0.1)
    both = Batch({}, Conditions(("video", "audio")), None, None)
    with watch.watching(small):
        small.step()
    watch.add(both)
    found["watch"] = sorted(watch.take(ranks, cpu))
    open(sys.argv[1], "w").write(json.dumps(found))
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder: Path = tmp_path_factory.mktemp("guards")
    side_by_side(2, _WORK, str(folder / "{rank}"))
    return [json.loads((folder / str(rank)).read_text()) for rank in (0, 1)]


def test_two_processes_skip_together_and_name_the_sample_of_the_other(two):
    a, b = two
    assert a["sums"] == b["sums"] and a["reasons"] == b["reasons"] and a["said"] == b["said"]
    first, second, third = a["sums"]
    assert second == first != third
    assert a["reasons"][::2] == ["", ""] and "loss" in a["reasons"][1] and "is not finite" in a["reasons"][1]
    assert "samples 0, 1, 2, 3" in a["said"] and "the video latents of sample 3 are not finite" in a["said"]


def test_a_part_of_a_sharded_gradient_is_a_gradient(two):
    for found in two:
        assert found["watch"] == ["no gradient: media_out.audio"]
