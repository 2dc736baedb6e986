"""Memory: an allocation is seen, an estimate counts what training keeps, what cannot fit is refused in a sentence."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from selfflow_mm.bench import child, memory
from selfflow_mm.bench.forms import GROUPED
from selfflow_mm.bench.model import Shape
from selfflow_mm.bench.plan import Plan
from selfflow_mm.bench.run import memory_needed
from selfflow_mm.errors import UserError
from selfflow_mm.models.joint import JointConfig

CPU = torch.device("cpu")
SHAPE = Shape(
    JointConfig(width=32, heads=2, double_blocks=1, single_blocks=2, mlp_ratio=2, rope_axes=(8, 4, 4, 0),
                modalities={"image": 6}, text_channels=7),
    tokens=9, text_tokens=3,
)  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak; elsewhere a process has one for life")
def test_a_large_temporary_is_seen_and_an_earlier_one_is_not() -> None:
    torch.ones(75_000_000)  # 300 MB, gone before the call
    size = 150_000_000
    peak = memory.measure(lambda: torch.ones(size // 4).sum(), CPU)
    assert peak is not None and 0.95 * size < peak.above < 1.3 * size
    assert peak.total >= peak.above


def test_training_keeps_five_sets_of_weights_and_a_reference_is_one_more() -> None:
    million = 1_000_000
    bare = memory.needed(million, train=False, copies=0, activations=0)
    assert memory.needed(million, train=True, copies=0, activations=0) - bare == 4 * 4 * million
    assert memory.needed(million, train=False, copies=1, activations=0) - bare == 4 * million
    assert memory.needed(million, train=False, copies=0, activations=123) - bare == 123


def test_activations_grow_with_depth_only_where_a_backward_pass_follows() -> None:
    def count(depth: int, **options: bool) -> int:
        kept = {"train": False, "recompute": False, **options}
        return memory.activation_bytes(64, 256, depth, 100, each=6, bytes_per_value=4, **kept)

    assert count(10) == count(20) < count(10, train=True) < count(20, train=True)
    assert count(20, train=True, recompute=True) < count(20, train=True) / 4


def test_xl2_trains_in_24_gigabytes_and_4b_does_not() -> None:
    xl2, four = (Plan(preset=name, batch=2) for name in ("xl/2", "4b"))
    for plan, fits in ((xl2, True), (four, False)):
        shape = Shape.of(plan)
        need = memory_needed(plan, shape, "train", shape.parameters(), torch.float32)
        assert (need < 24e9) == fits


def test_what_does_not_fit_is_refused_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from selfflow_mm.bench import run

    monkeypatch.setattr(memory, "available", lambda device: 3 * 10**9)
    monkeypatch.setattr(run, "build", lambda *_: pytest.fail("it was built"))
    with pytest.raises(
        UserError, match=r"^xl/2, train, needs about 1\d\.\d\d GB of memory and cpu has 3\.00 GB left; "
    ):
        run.run(Plan(device="cpu", what=("train",)))


def test_nothing_is_refused_where_memory_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: None)
    memory.refuse_what_does_not_fit("this", 10**18, CPU)


def test_there_is_memory_here() -> None:
    found = memory.available(CPU)
    assert found is not None and 10**8 < found < 10**14


@pytest.mark.parametrize("what", ["forward", "train", "sample"])
def test_the_child_measures_and_says_so_in_json(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = child.Request(Plan(preset="tiny", device="cpu"), SHAPE, what, GROUPED, torch.get_num_threads())
    stdin = io.TextIOWrapper(io.BytesIO(pickle.dumps(request)))
    monkeypatch.setattr(sys, "stdin", stdin)
    child.main()
    found = json.loads(capsys.readouterr().out)
    assert found["total"] > 10**7 and found["above"] >= 0 and found["how"]


def test_a_child_that_dies_leaves_a_gap_and_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], -9, stdout=b"", stderr=b"a\nkilled\n")
    )
    assert child.peak_of(Plan(), SHAPE, "train", GROUPED) is None
    assert "memory of train" in (shown := capsys.readouterr().err) and "killed" in shown


def test_recompute_is_asked_less_of() -> None:
    plan = Plan(preset="675m", batch=8)
    shape = Shape.of(plan)
    needs = [memory_needed(p, shape, "train", 10**6, torch.float32) for p in (plan, replace(plan, recompute=True))]
    assert needs[1] < needs[0]
