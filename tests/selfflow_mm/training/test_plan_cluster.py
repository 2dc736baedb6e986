"""The dry run on GPUs that are not here: its memory and time against sums by hand, and what it says of what is not."""

from __future__ import annotations

import pytest

from selfflow_mm.cli.main import main
from selfflow_mm.config import load_config
from selfflow_mm.errors import UserError
from selfflow_mm.models.presets import PRESETS
from selfflow_mm.training.cluster import Cluster
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.gpus import gpu
from selfflow_mm.training.memory import TrainingMemory, gathered_bytes, sharded
from selfflow_mm.training.plan import Plan, describe_config, make_plan
from selfflow_mm.training.plan_cluster import Estimate, estimate, laid_out

T2I = ["train", "paper/t2i_625m.yaml", "--dry-run"]


def _plan(*overrides: str) -> Plan:
    return make_plan(load_config(TrainConfig, "paper/t2i_625m.yaml", overrides), for_gpu=True)


def _estimate(count: int, *overrides: str) -> Estimate:
    plan = _plan(*overrides)
    return estimate(plan, laid_out(plan, Cluster(gpu("h100"), count, 0.5, 2.0)))


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
    whole, shared = _estimate(8).memory, _estimate(8, "parallel.shard=0").memory
    for part in ("weights", "gradients", "optimizer", "ema"):
        assert getattr(shared, part) == pytest.approx(getattr(whole, part) / 8, abs=1)
    assert shared.activations == whole.activations
    # A double block of 625m: twice qkv, its output, SwiGLU's two and one; and norms of q and k and biases of q, k, v.
    d, family = 1152, PRESETS["625m"]
    block = 2 * (3 * d * d + d * d + 3 * 4 * d * d) + 2 * (3 * d + 2 * (d // family["heads"]))
    plan = make_plan(load_config(TrainConfig, "paper/t2i_625m.yaml"), for_gpu=True)
    outside = plan.parameters - sum(plan.counts[name] for name in ("double_blocks", "single_blocks", "projector"))
    assert plan.counts["double_blocks"] == 7 * block
    assert shared.casts == 2 * outside + 2 * 2 * block + 4 * block


def test_groups_hold_their_part_and_average_over_copies() -> None:
    all_of_it, groups = _estimate(16, "parallel.shard=0"), _estimate(16, "parallel.shard=4")
    assert groups.memory.optimizer == pytest.approx(4 * all_of_it.memory.optimizer, abs=4)
    assert groups.step == all_of_it.step
    count = _plan().parameters
    k = 0.7 * 21  # the teacher runs to this block; whole ones are counted
    within, between = 3 / 4 * count * ((2 + round(k) / 21) * 2 + 4), 3 / 4 * 2 * 4 * count / 4
    assert groups.exchanged == pytest.approx(within + between, rel=0.01)


def test_passes_save_activations_and_nothing_else() -> None:
    one, four = _estimate(8), _estimate(8, "run.accumulate=4")
    assert four.memory.activations == pytest.approx(one.memory.activations / 4, rel=0.01)
    assert four.memory.state == one.memory.state and four.step == one.step


def test_neighbours_save_activations() -> None:
    alone, together = _estimate(8), _estimate(8, "parallel.context=4")
    # Four times the samples, a fourth of their tokens: the same, and what stays whole in each four times.
    assert together.step == pytest.approx(alone.step)
    assert alone.memory.activations < together.memory.activations < 1.6 * alone.memory.activations


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["parallel.shard=3"], "parallel.shard is 3, which does not divide the 8 processes"),
        (["parallel.context=3"], "parallel.context is 3, which does not divide the 8 processes"),
        (["run.accumulate=3"], "batch is 256, which 8 processes in 3 passes"),
        (["data.pack=300"], "a step of 300 tokens holds 1 samples, and they are shared among 8 rows"),
        (["data.pack=200"], "one sample of data.sources.images takes 256 for t2i"),
        (["parallel.shard=4", "--shard"], "--shard stands for parallel.shard=0, and parallel.shard is 4"),
    ],
)
def test_what_the_run_would_refuse_is_refused(settings, message, capsys) -> None:
    assert main([*T2I, "--gpu", "h200", "--gpus", "8", *settings]) == 2
    assert message in capsys.readouterr().err


def test_the_option_is_the_setting(capsys: pytest.CaptureFixture[str]) -> None:
    on = ["--gpu", "h200", "--gpus", "8"]
    assert main([*T2I, *on, "--shard"]) == 0
    option = capsys.readouterr().out
    assert main([*T2I, *on, "parallel.shard=0"]) == 0
    assert capsys.readouterr().out == option
    assert "one copy of the state among all 8 (parallel.shard=0, FSDP2); every step in 8 parts" in option


def test_packed_steps_are_planned(capsys: pytest.CaptureFixture[str]) -> None:
    e, packed = _estimate(8), _estimate(8, "data.pack=98304", "run.attention=varlen")
    # Samples of one size and 256 of them: as batches of 256.
    text = _plan().draws[0].text
    assert (256 + text) * 256 == 98304
    assert packed.step == pytest.approx(e.step) and packed.memory.activations < e.memory.activations
    assert main([*T2I, "--gpu", "h200", "--gpus", "8", "data.pack=98304"]) == 0
    shown = capsys.readouterr().out
    assert "Packed steps: 98,304 tokens at most" in shown and "in the mean 98,304 tokens of 256 samples" in shown
    assert "a row of 12,288 tokens" in shown and "run.attention=sdpa computes all pairs of a row" in shown


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
    with pytest.raises(UserError, match="batch is 256, which 7 processes in 1 passes"):
        shown(7)
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
