"""Packed steps by plan, against the same steps as a run makes them, and against a closed form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from selfflow_mm.conditions import Conditions
from selfflow_mm.errors import UserError
from selfflow_mm.flow.objectives import Objective, ObjectiveConfig
from selfflow_mm.models.joint import JointConfig
from selfflow_mm.training.config import SourceConfig
from selfflow_mm.training.packed_steps import packed_steps
from selfflow_mm.training.packing import PackedBatches
from selfflow_mm.training.ranks import Ranks
from selfflow_mm.training.throughput import Throughput, sample_lengths
from selfflow_mm.training.workload import Draw, sample_flops
from selfflow_tokenizers import ByteTextEncoder
from tests.selfflow_mm.training.toy import CHANNELS, Latents

MODEL = JointConfig(
    width=32, heads=2, double_blocks=1, single_blocks=2, mlp_ratio=2.0, rope_axes=(8, 4, 4, 0),
    modalities=CHANNELS, text_channels=6,
)  # fmt: skip


class OfSome(Latents):
    """Latents without every modality."""

    def having(self, modalities: tuple[str, ...]) -> list[int]:
        return list(range(self.samples)) if set(modalities) <= set(self.sizes) else []


SOURCES: dict[str, tuple[SourceConfig, Any]] = {
    "clips": (SourceConfig("", {"t2v": 3, "t2i": 1}, 2), OfSome({"video": 70, "image": 6}, 40)),
    "sounds": (SourceConfig("", {"t2a": 1}, 1), OfSome({"audio": 25}, 30, seed=1)),
}
TEXT = 5
BUDGET = 900


def _kinds() -> list[Draw]:
    """What ``draws_of`` makes of the same sources."""
    found = []
    for name, (config, data) in SOURCES.items():
        for task, share in config.tasks.items():
            part = config.ratio / 3 * share / sum(config.tasks.values())
            sizes = {m: data.sizes[m] for m in Conditions.named(task).modalities}
            draw = Draw(name, task, part, 1, sizes, TEXT)
            found.append(replace(draw, flops=sample_flops(ObjectiveConfig(), MODEL, draw)))
    return found


def _simulated(shares: int, steps: int = 120) -> tuple[float, float, float, int]:
    """Samples and FLOPs of a step, FLOPs of the busiest process, and the longest row, as batches are really made."""
    for _, data in SOURCES.values():
        data.captions = [(" ".join("abcde"),)] * data.samples
    runs = [
        PackedBatches(SOURCES, ByteTextEncoder(channels=6), 3, 0.0, Ranks(i, shares), budget=BUDGET)
        for i in range(shares)
    ]
    speed = Throughput(MODEL, Objective(ObjectiveConfig()))
    samples = work = busiest = 0.0
    longest = 0
    for step in range(steps):
        of_processes = []
        for run in runs:
            _, _, batch = run.at(step)
            counted = sample_lengths(batch)
            samples += sum(counted.values())
            of_processes.append(sum(n * speed._sample_flops(batch, k, step) for k, n in counted.items()))
            longest = max(longest, sum(n * (sum(media) + text) for (media, text), n in counted.items()))
        work += sum(of_processes)
        busiest += max(of_processes)
    return samples / steps, work / steps, busiest / steps, longest


@pytest.mark.parametrize("shares", [1, 3])
def test_it_is_what_a_run_packs(shares: int) -> None:
    samples, work, busiest, longest = _simulated(shares)
    kinds = _kinds()
    plan = packed_steps(kinds, BUDGET, shares)
    assert plan.samples == pytest.approx(samples, rel=0.04)
    assert sum(n * k.flops for n, k in zip(plan.counts, kinds, strict=True)) == pytest.approx(work, rel=0.03)
    assert plan.slowest == pytest.approx(busiest, rel=0.04)
    assert plan.row == pytest.approx(longest, rel=0.1)


def test_samples_of_one_size_fill_what_they_fill() -> None:
    kind = Draw("clips", "t2v", 1.0, 1, {"video": 90}, 10, flops=7, again=2)
    plan = packed_steps([kind], 1050, shares=2, passes=2)
    assert plan.samples == 10 and plan.row == 300  # ten samples in four rows: 3, 3, 2, 2
    assert plan.slowest == 9 * 6  # the first process has the two rows of three


def test_what_is_left_over_is_half_a_sample_of_those_that_do_not_fit() -> None:
    """Renewal theory: room that stays is U{0 .. L - 1} of the sample that did not fit, which is drawn by its length."""
    kinds = [Draw("a", "t2v", 0.5, 1, {"video": 30}, 1), Draw("b", "t2v", 0.5, 1, {"video": 99}, 1)]
    mean, square = (31 + 100) / 2, (31**2 + 100**2) / 2
    expected = (5000 - square / (2 * mean) + 0.5) / mean
    assert packed_steps(kinds, 5000).samples == pytest.approx(expected, rel=0.01)


def test_too_few_for_the_rows_are_refused() -> None:
    kind = Draw("clips", "t2v", 1.0, 1, {"video": 90}, 10)
    with pytest.raises(UserError, match="a step of 350 tokens holds 3 samples, and they are shared among 4 rows"):
        packed_steps([kind], 350, shares=4)
