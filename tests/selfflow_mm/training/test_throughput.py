"""Throughput: the work of a step against a counter that watches one, and rates against a clock that is set."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from selfflow_mm.conditions import Conditions
from selfflow_mm.flow.objectives import Batch, Objective, ObjectiveConfig
from selfflow_mm.models.joint import JointConfig, JointTransformer
from selfflow_mm.models.lora import LoRAConfig, add_lora
from selfflow_mm.randomness import Randomness
from selfflow_mm.tokens import TokenStream
from selfflow_mm.training import throughput
from selfflow_mm.training.throughput import Throughput

CONFIG = JointConfig(
    width=64,
    heads=2,
    double_blocks=2,
    single_blocks=3,
    mlp_ratio=2,
    rope_axes=(16, 8, 8, 0),
    modalities={"video": 6, "audio": 4},
    text_channels=8,
)


def batch(task: str) -> Batch:
    sizes = {"video": (48, 6), "audio": (20, 4)}
    conditions = Conditions.named(task)
    streams = {
        m: TokenStream.dense(torch.randn(3, sizes[m][0], sizes[m][1]), torch.rand(sizes[m][0], 4))
        for m in conditions.modalities
    }
    text = TokenStream.dense(torch.randn(3, 5, 8), torch.zeros(5, 4))
    return Batch(streams, conditions, text, torch.arange(3))


@pytest.mark.parametrize("name", ["self-flow", "flow", "dual", "sra", "layersync", "full-masking", "diffusion-forcing"])
@pytest.mark.parametrize("task", ["t2va", "v2a"])
def test_the_work_of_a_step_is_what_a_counter_sees(name, task):
    model, teacher = JointTransformer(CONFIG), JointTransformer(CONFIG)
    objective = Objective(ObjectiveConfig(name=name))
    data = batch(task)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # other kernels are not counted
        loss, _ = objective.loss(model, teacher, data, Randomness(0), 0)
        loss.backward()
    stated = 3 * Throughput(CONFIG, objective).flops(data, 0)
    # The counter also sees modulations looked up, and no gradient of the input: some percent at this size.
    assert counter.get_total_flops() == pytest.approx(stated, rel=0.08)


@pytest.mark.parametrize("name", ["self-flow", "flow"])
def test_the_work_of_a_step_with_lora(name):
    model, teacher = JointTransformer(CONFIG), JointTransformer(CONFIG)
    add_lora(model, LoRAConfig(rank=1, full=("media_(in|out)", "projector")))
    objective, data = Objective(ObjectiveConfig(name=name)), batch("t2va")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss, _ = objective.loss(model, teacher, data, Randomness(0), 0)
        loss.backward()
    stated = 3 * Throughput(CONFIG, objective, lora=True).flops(data, 0)
    assert counter.get_total_flops() == pytest.approx(stated, rel=0.08)


def test_work_falls_when_the_alignment_stops():
    objective = Objective(ObjectiveConfig(name="self-flow", stop_alignment_at=5))
    speed, data = Throughput(CONFIG, objective), batch("t2va")
    flow = Throughput(CONFIG, Objective(ObjectiveConfig(name="dual")))
    assert speed.flops(data, 4) > 1.15 * speed.flops(data, 5)
    assert speed.flops(data, 5) == flow.flops(data, 0)


def test_rates_are_work_over_the_time_of_the_steps_alone(monkeypatch):
    clock = iter([0.0, 10.0, 10.5, 100.0, 101.5])  # made; a step of half a second; a pause; one of a second and a half
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    objective, data = Objective(ObjectiveConfig(name="flow")), batch("t2va")
    speed = Throughput(CONFIG, objective)
    for step in range(2):
        speed.start()
        speed.stop(data, step)
    rates = speed.take()
    assert rates["samples_per_second"] == pytest.approx(6 / 2.0)
    assert rates["tflops"] == pytest.approx(6 * speed.flops(data, 0) / 2.0 / 1e12)
    assert rates["tokens_per_second"] == pytest.approx(6 * (48 + 20 + 5) / 2.0) and "mfu" not in rates
    assert speed.take() == {"samples_per_second": 0.0, "tokens_per_second": 0.0, "tflops": 0.0}
