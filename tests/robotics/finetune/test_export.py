"""``export`` of a robot's run: the spec travels. (LoRA is in test_run.py.)"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from selfflow_mm.cli import main as cli

from .test_run import ask


def test_a_robots_checkpoint_acts_like_the_run(tiny_robot_model, tmp_path: Path) -> None:
    assert cli.main(["export", str(tiny_robot_model.run), "--out", str(tmp_path / "model")]) == 0
    (chunk, film), (same, again) = ask(tiny_robot_model.run), ask(tmp_path / "model")
    assert np.array_equal(chunk, same) and np.array_equal(film, again)
    assert (tmp_path / "model/robot.json").read_text() == (tiny_robot_model.model / "robot.json").read_text()
