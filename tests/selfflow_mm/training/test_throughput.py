"""Throughput: the work of a step against a counter that watches one, and rates against a clock that is set."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from selfflow_mm.conditions import Conditions
from selfflow_mm.flow.objectives import Batch, Objective, ObjectiveConfig
from selfflow_mm.models.joint import JointConfig, JointTransformer
from selfflow_mm.models.lora import LoRAConfig, add_lora
from selfflow_mm.randomness import Randomness
from selfflow_mm.tokens import TokenStream
from selfflow_mm.training import throughput
from selfflow_mm.training.gpus import GPUS, reported_gpu
from selfflow_mm.training.throughput import Throughput, peak_of

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


def stream(rows: list[list[int]], channels: int) -> TokenStream:
    """Rows of packed samples of these lengths, filled up with padding."""
    length = max(sum(row) for row in rows) + 1
    sample = torch.full((len(rows), length), -1)
    for r, row in enumerate(rows):
        ids = [i for i, tokens in enumerate(row) for _ in range(tokens)]
        sample[r, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
    return TokenStream(torch.zeros(len(rows), length, channels), torch.zeros(len(rows), length, 4), sample)


lengths = st.tuples(st.integers(1, 9), st.integers(0, 5), st.integers(1, 4))  # of video, audio, text


@given(st.lists(st.lists(lengths, min_size=1, max_size=3), min_size=1, max_size=3))
def test_packed_and_padded_batches_count_every_samples_own_tokens(rows):
    """The truth: each sample alone, in a batch of one without padding."""
    objective = Objective(ObjectiveConfig(name="self-flow"))
    alone, packed = Throughput(CONFIG, objective), Throughput(CONFIG, objective)
    tokens = work = 0
    for video, audio, text in (sample for row in rows for sample in row):
        sizes = {"video": (video, 6), "audio": (audio, 4)}
        streams = {m: TokenStream.dense(torch.zeros(1, n, c), torch.zeros(n, 4)) for m, (n, c) in sizes.items() if n}
        words = TokenStream.dense(torch.zeros(1, text, 8), torch.zeros(text, 4))
        work += alone.flops(Batch(streams, Conditions.named("t2va"), words, torch.zeros(1)), 0)
        tokens += video + audio + text
    slots = max(len(row) for row in rows)
    ids = torch.tensor([[*range(len(row)), *[-1] * (slots - len(row))] for row in rows])
    streams = {"video": stream([[s[0] for s in row] for row in rows], 6)}
    streams["audio"] = stream([[s[1] for s in row] for row in rows], 4)
    words = stream([[s[2] for s in row] for row in rows], 8)
    shapes = [ids, ids.squeeze(1)] if slots == 1 else [ids]  # a sample to a row, padded, may be either
    for given_ids in shapes:
        packed.start()
        packed.stop(Batch(streams, Conditions.named("t2va"), words, given_ids), 0)
        packed._seconds = 1.0
        rates = packed.take()
        assert rates["samples_per_second"] == sum(len(row) for row in rows)
        assert rates["tokens_per_second"] == tokens and rates["tflops"] == pytest.approx(work / 1e12, rel=1e-12)


def test_mfu_is_the_work_as_a_share_of_the_peak():
    objective, data = Objective(ObjectiveConfig(name="flow")), batch("t2va")
    speed = Throughput(CONFIG, objective, peak=1e9)
    speed.stop(data, 0)
    rates = speed.take()
    assert rates["mfu"] == pytest.approx(rates["tflops"] * 1e12 / 1e9) and rates["mfu"] > 0


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Tesla T4", None),
    ],
)
def test_only_devices_of_the_table_have_a_peak(monkeypatch, name, known):
    assert reported_gpu(name) == (GPUS[known] if known else None)
    monkeypatch.setattr(throughput.torch, "cuda", SimpleNamespace(get_device_name=lambda device: name))
    cuda = torch.device("cuda")
    assert peak_of(cuda, torch.bfloat16) == (GPUS[known].flops if known else 0)
    assert peak_of(cuda, torch.float32) == peak_of(torch.device("cpu"), torch.bfloat16) == 0
