"""Time, cost and traffic on GPUs that are not here, against sums by hand."""

from __future__ import annotations

import pytest

from selfflow_mm.errors import UserError
from selfflow_mm.training.cluster import Cluster
from selfflow_mm.training.config import ParallelConfig
from selfflow_mm.training.gpus import GPUS, Gpu, gpu
from selfflow_mm.training.workload import Draw, largest, mean_step_flops

#: A device of round numbers.
ROUND = Gpu("round", 100e9, 1000e12, 2e12, 1e12, "nobody's")


def _draw(share: float = 1.0, batch: int = 16, flops: int = 10**13, again: int = 0, tokens: int = 100) -> Draw:
    return Draw("clips", "t2v", share, batch, {"video": tokens}, 10, flops, again)


def test_a_step_is_its_work_over_the_peak_it_reaches() -> None:
    # 16 samples of 10 TFLOP on 8 devices of 1000 TFLOP/s, half of which is reached: 2 x 10 / 500 s.
    assert Cluster(ROUND, 8, 0.5).seconds(_draw()) == pytest.approx(0.04)
    assert Cluster(ROUND, 8, 0.5).seconds(_draw(again=5 * 10**12)) == pytest.approx(0.06)


def test_the_fullest_device_sets_the_pace() -> None:
    cluster = Cluster(ROUND, 8, 0.5)
    assert cluster.samples(_draw(batch=17)) == 3 and cluster.seconds(_draw(batch=17)) == pytest.approx(0.06)
    assert cluster.seconds(_draw(batch=1)) == cluster.seconds(_draw(batch=8))


def test_neighbours_share_samples_and_their_work() -> None:
    # Eight devices in groups of four have two parts of the batch: 8 samples each, a fourth of the work of each.
    cluster = Cluster(ROUND, 8, 0.5, context=4)
    assert cluster.samples(_draw()) == 8 and cluster.seconds(_draw()) == pytest.approx(0.04)
    assert cluster.samples(_draw(batch=17)) == 9


def test_settings_lay_it_out() -> None:
    assert Cluster(ROUND, 8).laid_out(ParallelConfig(shard=0)).shard == 8
    hybrid = Cluster(ROUND, 8).laid_out(ParallelConfig(shard=2, context=4))
    assert (hybrid.shard, hybrid.copies, hybrid.context, hybrid.ranks.shares) == (2, 4, 4, 2)


def test_means_go_by_how_often_a_batch_is_drawn() -> None:
    draws = [_draw(0.75, 8, 10**13), _draw(0.25, 4, 4 * 10**13)]
    assert mean_step_flops(draws) == pytest.approx(0.75 * 8e13 + 0.25 * 16e13)
    assert Cluster(ROUND, 4, 0.5).mean_seconds(draws) == pytest.approx(0.75 * 2 * 0.02 + 0.25 * 0.08)
    assert largest([_draw(batch=8, tokens=990), _draw(batch=40, tokens=100)]).batch == 8


def test_the_end_of_a_step_moves_52_bytes_a_parameter() -> None:
    # Norm 4; scaling 4 + 4; AdamW reads w, g, m, v and writes w, m, v; EMA reads w and its own and writes its own.
    moved = 4 + 8 + 4 * (4 + 3) + 4 * 3
    assert Cluster(ROUND, 4).end_of_step_seconds(10**9) == pytest.approx(moved * 1e9 / 2e12)
    assert Cluster(ROUND, 4, shard=4).end_of_step_seconds(10**9) == pytest.approx(moved * 1e9 / 4 / 2e12)


def test_what_each_device_sends() -> None:
    # A ring of four passes on three quarters: once to reduce and once to give to all.
    assert Cluster(ROUND, 4).exchanged_bytes(1000, 2, 0.5) == pytest.approx(0.75 * 4000 * 2)
    # Sharded: bfloat16 weights for forward, backward and half a teacher's pass; float32 gradients reduced once.
    within = 0.75 * (2000 * 2.5 + 4000)
    assert Cluster(ROUND, 4, shard=4).exchanged_bytes(1000, 2, 0.5) == pytest.approx(within)
    # Three copies in groups of four: a fourth of the gradients goes round a ring of three.
    hybrid = Cluster(ROUND, 12, shard=4)
    assert hybrid.exchanged_bytes(1000, 2, 0.5) == pytest.approx(within + 2 / 3 * 2 * 4000 / 4)
    # Groups do all of it in every pass, copies average once.
    assert hybrid.exchanged_bytes(1000, 2, 0.5, passes=3) == 3 * hybrid.exchanged_bytes(1000, 2, 0.5)
    assert Cluster(ROUND, 4).exchanged_bytes(1000, 2, 0.5, passes=3) == Cluster(ROUND, 4).exchanged_bytes(1000, 2, 0.5)
    assert Cluster(ROUND, 1).exchanged_bytes(1000, 2, 0.5) == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0,), "gpus is at least 1"),
        ((1, 0.0), "mfu is a share"),
        ((1, 1.5), "mfu is a share"),
        ((1, 0.4, -1.0), "price"),
        ((6, 0.4, 1.0, 4), "parallel.shard is 4, which does not divide the 6 processes"),
        ((6, 0.4, 1.0, 1, 4), "parallel.context is 4, which does not divide the 6 processes"),
    ],
)
def test_impossible_clusters_are_refused(values: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Cluster(ROUND, *values)


@pytest.mark.parametrize(
    ("name", "sparse", "memory", "bandwidth"),
    # The data sheets print the rate with sparsity, twice the dense one.
    [("h200", 1979e12, 141e9, 4.8e12), ("h100", 1979e12, 80e9, 3.35e12), ("a100", 624e12, 80e9, 2.039e12)],
)
def test_rates_are_dense_ones(name: str, sparse: float, memory: float, bandwidth: float) -> None:
    found = gpu(name.upper())
    assert found.flops == pytest.approx(sparse / 2, rel=1e-3)
    assert (found.memory, found.bandwidth) == (memory, bandwidth) and found.source


def test_an_unknown_gpu_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no GPU 'h20' is in the table; the nearest is 'h200'"):
        gpu("h20")
    with pytest.raises(UserError, match=f"there are {', '.join(GPUS)}"):
        gpu("abacus")
