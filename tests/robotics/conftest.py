"""Small robot data, tokenizers and a fine-tuned model, for every test that needs some; see ``tiny_robot``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch


@dataclass(frozen=True)
class TinyRobot:
    """A fine-tuned model and the data it was made of.

    Attributes:
        run: folder of the run, which the commands take.
        model: the exported model in it.
        data: RLDS in RT-1's layout, splits ``train`` and ``val``, with ``statistics.json`` beside it.
    """

    run: Path
    model: Path
    data: Path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Models this small are no work to share: on a busy machine two threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def dot_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten demonstrations to train on and four of split ``val``."""
    from tests.robotics.tiny_robot import write_data

    return write_data(tmp_path_factory.mktemp("dots") / "1.0.0", {"train": 10, "val": 4})


@pytest.fixture(scope="session")
def still_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that encodes frame by frame."""
    from tests.robotics.tiny_robot import write_tokenizer

    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "still")


@pytest.fixture(scope="session")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that joins four frames."""
    from tests.robotics.tiny_robot import write_tokenizer

    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "clip", frames=4)


@pytest.fixture
def dot_config(dot_data: Path, still_tokenizer: Path, tmp_path: Path) -> Path:
    """A config file of a six-step run."""
    from tests.robotics.tiny_robot import write_config

    return write_config(tmp_path / "dots.yaml", dot_data, still_tokenizer)


@pytest.fixture(scope="session")
def tiny_robot_model(dot_data: Path, still_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRobot:
    """A model of a few steps: 7 actions, 8 state numbers, pictures of 32 x 32 at 3 Hz, horizon 3. It has learnt nothing
    worth looking at, but does all there is to do.
    """
    from selfflow_robotics.finetune.run import finetune
    from tests.robotics.tiny_robot import config, write_config

    folder = tmp_path_factory.mktemp("tiny-robot")
    file = write_config(folder / "config.yaml", dot_data, still_tokenizer)
    model = finetune(config(file, "data.held_out=val", "run.steps=4"), folder / "run")
    return TinyRobot(folder / "run", model, dot_data)
