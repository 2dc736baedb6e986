"""The dry run on GPUs that are not here: its memory and time against sums by hand, and what it says of what is not."""

from __future__ import annotations

import pytest

from selfflow_mm.cli.main import main
from selfflow_mm.config import load_config
from selfflow_mm.models.presets import PRESETS
from selfflow_mm.training.cluster import Cluster
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.gpus import gpu
from selfflow_mm.training.memory import TrainingMemory, gathered_bytes, sharded
from selfflow_mm.training.plan import describe_config, make_plan
from selfflow_mm.training.plan_cluster import estimate

T2I = ["train", "paper/t2i_625m.yaml", "--dry-run"]


def _estimate(count: int, *overrides: str, shard: bool = False):
    config = load_config(TrainConfig, "paper/t2i_625m.yaml", overrides)
    return estimate(make_plan(config, for_gpu=True), Cluster(gpu("h100"), count, 0.5, 2.0, shard))


def test_time_and_cost_are_the_works() -> None:
    e = _estimate(8)
    (draw,) = make_plan(load_config(TrainConfig, "paper/t2i_625m.yaml"), for_gpu=True).draws
    assert e.step == pytest.approx(256 * draw.flops / (8 * 0.5 * 989.4e12))
    assert e.gpu_hours == pytest.approx(1_000_000 * 256 * draw.flops / (0.5 * 989.4e12) / 3600)
    assert e.cost == pytest.approx(2 * e.gpu_hours)


def test_a_copy_each_holds_22_bytes_a_parameter() -> None:
    e, count = _estimate(8), make_plan(load_config(TrainConfig, "paper/t2i_625m.yaml")).parameters
    assert e.memory.state == 22 * count
    assert e.memory.activations * 8 == _estimate(1).memory.activations


def test_shares_hold_an_eighth_and_what_is_gathered() -> None:
    whole, shared = _estimate(8).memory, _estimate(8, shard=True).memory
    for part in ("weights", "gradients", "optimizer", "ema"):
        assert getattr(shared, part) == pytest.approx(getattr(whole, part) / 8, abs=1)
    assert shared.activations == whole.activations
    # A double block of 625m: twice qkv, its output, SwiGLU's two and one; and norms of q and k and biases of q, k, v.
    d, family = 1152, PRESETS["625m"]
    block = 2 * (3 * d * d + d * d + 3 * 4 * d * d) + 2 * (3 * d + 2 * (d // family["heads"]))
    plan = make_plan(load_config(TrainConfig, "paper/t2i_625m.yaml"), for_gpu=True)
    outside = plan.parameters - plan.counts["double_blocks"] - plan.counts["single_blocks"]
    assert plan.counts["double_blocks"] == 7 * block
    assert shared.casts == 2 * outside + 2 * 2 * block + 4 * block


def test_shares_are_rounded_up() -> None:
    assert sharded(TrainingMemory(10, 10, 20, 11, 5, 7), 4, 9) == TrainingMemory(3, 3, 5, 3, 9, 7)
    assert gathered_bytes(100, 10, 2) == 100 * 2 + 2 * 10 * 2 + 10 * 4


def test_what_does_not_fit_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*T2I, "--gpu", "rtx4090"]) == 0
    assert "does not fit into" in capsys.readouterr().out
    assert main([*T2I, "--gpu", "h200", "--gpus", "8", "--price", "3.5"]) == 0
    shown = capsys.readouterr().out
    parameters = make_plan(load_config(TrainConfig, "paper/t2i_625m.yaml")).parameters
    milliseconds = 1e3 * (7 / 8 * 2 * 4 * parameters) / 450e9  # NVLink of 900 GB/s, both ways together
    assert f"sent by each device, at least {milliseconds:.3g} ms within one machine" in shown
    assert "fits into" in shown and "GPU-hours x 3.5 = " in shown and "an assumed 35% of the peak, the default" in shown


def test_nothing_is_priced_unasked() -> None:
    config = load_config(TrainConfig, "paper/t2i_625m.yaml")

    def shown(*values, **more) -> str:
        return describe_config(config, Cluster(gpu("h200"), *values, **more))

    assert "Cost: give --price" in shown(1)
    assert "batches of 256 do not divide by 7" in shown(7) and "do not divide" not in shown(8)
    assert "moving the weights takes a large part" in shown(256) and "moving the weights" not in shown(8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dry-run", "--gpu", "h2000"], "no GPU 'h2000' is in the table; the nearest is 'h200'"),
        (["--dry-run", "--gpus", "8"], "--gpus needs --gpu"),
        (["--dry-run", "--gpu", "h200", "--mfu", "40"], "mfu is a share of the peak"),
        (["--dry-run", "--gpu", "h200", "run.precision=float32"], "run.precision is float32"),
        (["--gpu", "h200", "--out", "nowhere"], "--gpu is for a plan; add --dry-run"),
    ],
)
def test_mistakes_cost_one_sentence(arguments, message, capsys) -> None:
    assert main(["train", "paper/t2i_625m.yaml", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
