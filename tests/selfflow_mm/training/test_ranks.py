"""Several processes: means, gradients and places, against numbers worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from selfflow_mm.errors import UserError
from selfflow_mm.training.ranks import Ranks, joined
from tests.processes import side_by_side

#: What each of two processes does; rank r has gradients r + 1 and so on.
_WORK = """
import json, sys
import torch
from torch import nn
from selfflow_mm.training.ranks import joined

with joined() as ranks:
    r = ranks.rank
    model = nn.Module()
    model.a = nn.Parameter(torch.zeros(2, 3))
    model.b = nn.Parameter(torch.zeros(4))
    model.unused = nn.Parameter(torch.zeros(5))
    model.frozen = nn.Parameter(torch.zeros(6), requires_grad=False)
    model.a.grad = torch.arange(6.0).view(2, 3) * (r + 1)
    model.b.grad = torch.full((4,), 10.0 - 4 * r)
    ranks.mean_gradients(model)
    found = {
        "rank": [ranks.rank, ranks.world, ranks.first, ranks.share(6)],
        "a": model.a.grad.tolist(),
        "b": model.b.grad.tolist(),
        "none": [model.unused.grad is None, model.frozen.grad is None],
        "mean": {k: float(v) for k, v in ranks.mean({"x": torch.tensor(1.0 + r), "y": torch.tensor(-4.0 * r)}).items()},
        "empty": ranks.mean({}),
        "any": [ranks.any(flag, torch.device("cpu")) for flag in (False, r == 1, True)],
        "gather": ranks.gather({"place": 3 * r, "names": ["e", r]}),
        "rows": sorted(range(r, 6, ranks.world)),
    }
    ranks.wait()
    open(sys.argv[1], "w").write(json.dumps(found))
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    side_by_side(2, _WORK, str(folder / "{rank}"))
    return [json.loads((folder / str(rank)).read_text()) for rank in (0, 1)]


def test_every_gradient_becomes_the_mean(both):
    for found in both:
        assert found["a"] == [[0, 1.5, 3], [4.5, 6, 7.5]]  # (1 + 2) / 2 times 0 to 5
        assert found["b"] == [8, 8, 8, 8]
        assert found["none"] == [True, True]


def test_means_flags_and_places(both):
    for rank, found in enumerate(both):
        assert found["rank"] == [rank, 2, rank == 0, 3]
        assert found["mean"] == {"x": 1.5, "y": -2.0} and found["empty"] == {}
        assert found["any"] == [False, True, True]
        assert found["gather"] == [{"place": 0, "names": ["e", 0]}, {"place": 3, "names": ["e", 1]}]


def test_one_process_communicates_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as ranks:
        assert ranks == Ranks(0, 1) and ranks.first and not torch.distributed.is_initialized()
        model = torch.nn.Linear(2, 2)
        model.weight.grad = torch.ones(2, 2)
        ranks.mean_gradients(model)
        assert torch.equal(model.weight.grad, torch.ones(2, 2))
        assert ranks.mean({"x": torch.tensor(2.0)}) == {"x": torch.tensor(2.0)}
        assert ranks.any(True, torch.device("cpu")) and not ranks.any(False, torch.device("cpu"))
        assert ranks.gather({"a": 1}) == [{"a": 1}]
        ranks.wait()


def test_shares_are_even_or_refused():
    assert Ranks(1, 4).share(12) == 3 and Ranks().share(7) == 7
    with pytest.raises(UserError, match="a batch of 10 cannot be shared by 4 processes; take a multiple"):
        Ranks(0, 4).share(10)
