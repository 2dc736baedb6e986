"""Opened data, tokenizers and specs of the dots, as a fine-tuning run makes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from selfflow_robotics.adapter.spec import RobotSpec
from selfflow_robotics.finetune.parts import open_data, robot_spec, robot_statistics, robot_tokenizer
from selfflow_robotics.sources import RobotFiles
from tests.robotics.tiny_robot import config


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None: ...


@dataclass(frozen=True)
class Parts:
    """What a run would work with."""

    config: Any
    files: RobotFiles
    train: tuple[int, ...]
    held_out: tuple[int, ...]
    left_out: tuple[tuple[int, int], ...]
    tokenizer: Any
    spec: RobotSpec


def parts(file: Path, *overrides: str) -> Parts:
    """The parts of a config file's run."""
    settings = config(file, *overrides)
    data, tokenizer = open_data(settings), robot_tokenizer(settings)
    spec = robot_spec(settings, data, robot_statistics(settings, data, None), tokenizer)
    return Parts(settings, data.files, data.train, data.held_out, data.left_out, tokenizer, spec)


@pytest.fixture
def make_parts(dot_config):
    """``make_parts(*overrides)``: of the dots' config."""
    return lambda *overrides: parts(dot_config, *overrides)
