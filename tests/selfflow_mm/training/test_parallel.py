"""However a step is shared (processes, passes, FSDP2, tokens of a sample, packed rows), it is that of one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from selfflow_mm.errors import UserError
from selfflow_mm.training.ranks import Ranks
from selfflow_mm.training.sharding import mesh_of, sharded, whole
from tests.processes import torchrun
from tests.selfflow_mm.training import toy

#: Compiling takes minutes; the program in ``toy`` does it, too.
TWO = [n for n in toy.RUNS if not n.startswith("one") and "hybrid" not in n and "compiled" not in n]
FOUR = [name for name in toy.RUNS if "hybrid" in name]


def together(processes: int, names: list[str], out: Path) -> dict[str, Any]:
    torchrun(processes, "tests.selfflow_mm.training.toy", str(out), *names)
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    """The runs of one process; it shares no code with the others but the step itself."""
    return {name: toy.alone(name) for name in ("one", "one packed", "one in bfloat16")}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return together(2, TWO, tmp_path_factory.mktemp("two") / "losses.json")


def assert_same_run(found: dict[str, Any], expected: dict[str, Any], near: float = 1e-5) -> None:
    assert found["place"] == expected["place"]
    for a, b in zip(found["curve"], expected["curve"], strict=True):
        assert a.keys() == b.keys() and {"loss", "l_rep", "grad_norm"} <= a.keys()
        for name in a.keys() - {"padding", "padding_unpacked"}:
            if isinstance(a[name], str):
                assert a[name] == b[name]
            else:
                assert a[name] == pytest.approx(b[name], abs=near, rel=near), name
        assert b["grad_norm"] > 0.5  # or clipping would not be part of this
    for part in ("model", "teacher"):
        assert found[part].keys() == expected[part].keys()
        for name, value in expected[part].items():
            assert found[part][name] == pytest.approx(value, rel=near, abs=near), name
    assert expected["model"] != expected["teacher"]


@pytest.mark.parametrize("name", TWO)
def test_two_processes_take_the_steps_of_one(one, two, name):
    # bfloat16 has eight bits: sharding rounds the scales of norms, too.
    assert_same_run(two[name], one[toy.reference(name)], 0.02 if "bfloat16" in name else 1e-5)


@pytest.mark.long
def test_copies_by_groups_take_the_steps_of_one(one, tmp_path):
    found = together(4, FOUR, tmp_path / "losses.json")
    for name in FOUR:
        assert_same_run(found[name], one[toy.reference(name)])


def test_passes_of_one_process_are_its_step(one):
    assert_same_run(toy.losses(toy.ONE, accumulate=4), one["one"])
    assert_same_run(toy.losses(toy.ONE, accumulate=2, pack=260), one["one packed"])


def test_steps_of_a_run_are_of_all_kinds(one):
    tasks = {line["task"] for line in one["one"]["curve"]}
    assert len(tasks) > 1
    assert all("+" in line["task"] for line in one["one packed"]["curve"])


def test_what_cannot_be_grouped_is_refused():
    device = torch.device("cpu")
    with pytest.raises(UserError, match="parallel.shard is 3, which does not divide the 4 processes"):
        mesh_of(3, Ranks(0, 4), device)
    assert mesh_of(1, Ranks(0, 4), device) is None and mesh_of(0, Ranks(), device) is None


def test_nothing_is_shared_in_one_process():
    model = torch.nn.Linear(2, 3)
    assert not sharded(model) and whole(model.weight) is model.weight
