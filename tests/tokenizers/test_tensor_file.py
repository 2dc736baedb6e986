"""Files of tensors have the permissions of any other file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfflow_tokenizers.tensor_file import save_tensors


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX systems")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_what_a_file_may_be_read_by_follows_the_mask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        save_tensors({"x": torch.arange(3)}, tmp_path / "x.safetensors", {"format": "pt"})
    finally:
        os.umask(before)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask
    assert load_file(tmp_path / "x.safetensors")["x"].tolist() == [0, 1, 2]
