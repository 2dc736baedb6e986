"""Batches made ahead are those that would have come, and the place is after those that were taken."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from selfflow_mm.config import load_config
from selfflow_mm.errors import UserError
from selfflow_mm.training import loop, prefetch
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.prefetch import Prefetched


class Counting:
    """Batch n of source ``a`` or ``b``, by the step; the place counts each, and a key is there once it was drawn."""

    def __init__(self, fails: tuple[int, ...] = ()) -> None:
        self.counts: dict[str, int] = {}
        self.fails = list(fails)
        self.made: list[int] = []
        self.threads: set[int] = set()

    def at(self, step):
        self.threads.add(threading.get_ident())
        name = "ab"[step * step % 3 == 1]
        self.counts[name] = self.counts.get(name, 0) + 1
        if step in self.fails:
            self.fails.remove(step)
            raise UserError(f"step {step} cannot be read")
        self.made.append(step)
        return name, "task", (step, self.counts[name])

    def numbers(self, name, batch):
        return [name, batch]

    def state_dict(self):
        return {"counts": self.counts}

    def load_state_dict(self, state):
        self.counts = state["counts"]


def test_batches_are_made_ahead_in_another_thread_and_no_more_than_asked_for():
    source = Counting()
    with Prefetched(source, 3) as batches:
        assert batches.at(0) == ("a", "task", (0, 1))
        assert batches.numbers("a", (0, 1)) == ["a", (0, 1)]
        batches._waiting[-1][1].result()
        assert source.made == [0, 1, 2, 3]
        assert batches.state_dict() == {"counts": {"a": 1}}
    assert threading.get_ident() not in source.threads and len(source.threads) == 1
    assert source.counts == {"a": 1}  # the source is left where the batches were taken


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.lists(st.sampled_from(["at", "at", "at", "save", "load"]), max_size=30))
def test_any_order_of_taking_saving_and_going_back_is_as_without(ahead, calls):
    plain, step, kept = Counting(), 0, (0, {"counts": {}})
    with Prefetched(Counting(), ahead) as batches:
        for call in calls:
            if call == "at":
                assert batches.at(step) == plain.at(step)
                step += 1
            elif call == "save":
                place = batches.state_dict()
                assert place == plain.state_dict()
                kept = (step, {"counts": dict(place["counts"])})
            else:
                step, place = kept
                batches.load_state_dict({"counts": dict(place["counts"])})
                plain.load_state_dict({"counts": dict(place["counts"])})


def test_an_error_comes_with_its_step_and_asking_again_goes_on():
    plain, batches = Counting(), Prefetched(Counting(fails=(2,)), 4)
    expected = [plain.at(step) for step in range(6)]
    assert [batches.at(0), batches.at(1)] == expected[:2]
    place = batches.state_dict()
    with pytest.raises(UserError, match="step 2 cannot be read"):
        batches.at(2)
    assert batches.state_dict() == place
    assert [batches.at(step) for step in range(2, 6)] == expected[2:]
    batches.close()


def test_a_step_out_of_turn_starts_from_the_place():
    with Prefetched(Counting(), 2) as batches:
        batches.at(0)
        assert batches.at(5) == ("b", "task", (5, 1))
        assert batches.state_dict() == {"counts": {"a": 1, "b": 1}}


def test_closing_ends_the_thread():
    before = threading.active_count()
    batches = Prefetched(Counting(), 2)
    batches.at(0)
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before


def test_a_run_with_and_without_ends_in_the_same_bits(small_config, tmp_path, monkeypatch):
    taken = []
    real = prefetch.Prefetched.at
    monkeypatch.setattr(prefetch.Prefetched, "at", lambda self, step: taken.append(step) or real(self, step))
    for name, number in (("with", 2), ("without", 0)):
        config = load_config(TrainConfig, small_config, [f"run.prefetch={number}"])
        loop.train(config, tmp_path / name)
    assert taken == list(range(config.run.steps))  # and none by the run without
    left, right = (load_file(tmp_path / n / "model" / "model.safetensors") for n in ("with", "without"))
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
