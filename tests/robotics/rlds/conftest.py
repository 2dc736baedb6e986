from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("rlds_examples", Path(__file__).with_name("examples.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def protobuf() -> Any:
    """``build`` and ``example_class``: messages of Google's protobuf runtime."""
    pytest.importorskip("google.protobuf")
    return _load()


@pytest.fixture
def bridge(shared_data: Path) -> Path:
    """The real file: 25 episodes of 10 steps of BridgeData."""
    folder = shared_data / "rlds" / "bridge_dataset" / "1.0.0"
    if not folder.is_dir():
        pytest.skip("there is no Bridge data set")
    return folder
