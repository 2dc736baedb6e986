"""Where and in what numbers a run computes."""

from __future__ import annotations

import pytest
import torch

from selfflow_mm.errors import UserError
from selfflow_mm.training.parts import pick_dtype

CPU = torch.device("cpu")


def test_precision_by_name():
    assert pick_dtype("float32", CPU) == torch.float32 and pick_dtype("bfloat16", CPU) == torch.bfloat16
    with pytest.raises(UserError, match="auto, float32 or bfloat16, not 'fp8'"):
        pick_dtype("fp8", CPU)


def test_the_first_source_that_has_a_modality_says_its_default_size(monkeypatch):
    from selfflow_mm.training import parts

    sizes = {
        "sounds": {"samples": 16000},
        "clips": {"frames": 33, "height": 64, "width": 96, "fps": 16, "samples": 33000},
        "pictures": {"height": 32, "width": 32},
    }
    monkeypatch.setattr(parts, "sizes_at", sizes.__getitem__)
    found = parts.geometry_of(["sounds", "clips", "pictures"])
    assert (found.frames, found.height, found.width, found.samples) == (33, 64, 96, 16000)
    assert parts.geometry_of(["pictures", "clips"]).height == 32
