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
