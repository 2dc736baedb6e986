"""EMA against its closed form."""

from __future__ import annotations

import pytest
import torch

from selfflow_mm.training import ema


def test_after_n_steps_of_a_constant_the_average_is_the_closed_form():
    model = torch.nn.Linear(3, 2, dtype=torch.float64)
    average = ema.copy_for_ema(model)
    start = [p.clone() for p in average.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    for _ in range(50):
        ema.update(average, model, 0.9)
    for first, now in zip(start, average.parameters(), strict=True):
        assert torch.allclose(now, first + 1 - 0.9**50, atol=1e-12)
        assert not now.requires_grad


def test_half_life_is_the_stated_share_of_a_short_run_and_the_papers_at_its_length():
    assert ema.decay_for(2000, 0.02) ** (0.02 * 2000) == pytest.approx(0.5)
    assert ema.decay_for(1_000_000, 0.02) == ema.PAPER_DECAY == 0.9999
