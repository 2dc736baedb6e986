"""Requests of many episodes in one thread: who shares a batch, and who pays for a failure."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import Observation, Request
from selfflow_robotics.serving.batching import Batcher
from tests.robotics.serving.toys import Telling, told

IMAGE = np.full((4, 4, 3), 9, np.uint8)


def request(number: int, text: str = "") -> Request:
    return Request(Observation(IMAGE, text or "x" * number), seed=number, query=number)


class Held(Telling):
    """Does not begin its first call before ``go`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.begun = threading.Event(), threading.Event()

    def chunks(self, requests: Sequence[Request]) -> np.ndarray:
        self.begun.set()
        assert self.go.wait(5)
        return super().chunks(requests)


def test_what_waits_shares_a_batch() -> None:
    policy = Held()
    batcher = Batcher(policy, max_batch=4)
    first = batcher.submit([request(0)])
    assert policy.begun.wait(5)
    later = [batcher.submit([request(n)])[0] for n in range(1, 8)]
    policy.go.set()
    for n, future in enumerate(first + later):
        assert np.array_equal(future.result(5), told(request(n)))
    assert policy.batches == [1, 4, 3] and policy.threads == {"policy"}
    batcher.close()


def test_requests_given_together_are_one_batch() -> None:
    policy = Telling()
    batcher = Batcher(policy)
    futures = batcher.submit([request(n) for n in range(16)])
    assert np.array_equal(futures[9].result(5), told(request(9)))
    assert policy.batches == [16]
    batcher.close()


@pytest.mark.parametrize(("text", "error"), [("fail", RuntimeError), ("mistake", UserError), ("shape", RuntimeError)])
def test_a_failure_costs_its_own_request_alone(text: str, error: type[Exception]) -> None:
    policy = Telling()
    batcher = Batcher(policy)
    futures = batcher.submit([request(1), request(2, text), request(3)])
    assert np.array_equal(futures[0].result(5), told(request(1)))
    assert np.array_equal(futures[2].result(5), told(request(3)))
    with pytest.raises(error):
        futures[1].result(5)
    assert policy.batches == [3, 1, 1, 1]
    batcher.close()


def test_requests_that_nobody_waits_for_are_not_asked() -> None:
    policy = Held()
    batcher = Batcher(policy)
    batcher.submit([request(0)])
    assert policy.begun.wait(5)
    gone, kept = batcher.submit([request(1), request(2)])
    assert gone.cancel()
    policy.go.set()
    assert np.array_equal(kept.result(5), told(request(2)))
    assert policy.batches == [1, 1]
    batcher.close()


def test_waiting_for_a_batch_to_fill() -> None:
    policy = Telling()
    batcher = Batcher(policy, max_batch=2, max_wait=5.0)
    one = batcher.submit([request(1)])[0]
    other = batcher.submit([request(2)])[0]
    assert one.result(4) is not None and other.result(4) is not None, "a full batch waits no longer"
    assert policy.batches == [2]
    batcher.close()


def test_closing_answers_what_waits_and_takes_no_more() -> None:
    policy = Held()
    batcher = Batcher(policy, max_batch=1)
    futures = batcher.submit([request(n) for n in range(3)])
    batcher.close(timeout=0)
    policy.go.set()
    assert [f.result(5)[0, 5] for f in futures] == [0, 1, 2]
    with pytest.raises(UserError, match="stopping"):
        batcher.submit([request(1)])


@pytest.mark.parametrize(
    ("settings", "sentence"), [({"max_batch": 0}, "at least one"), ({"max_wait": 11}, "between 0")]
)
def test_mistakes(settings: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Batcher(Telling(), **settings)
