"""SIMPLER's suites: the official numbers of trials, and SIMPLER's own scripts where they are at hand."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.simpler import SUITES, Trial, trials

COUNTS = {
    "google-visual-matching": {
        "pick_coke_can": 300,
        "move_near": 240,
        "open_drawer": 108,
        "close_drawer": 108,
        "place_apple_in_closed_top_drawer": 108,
    },
    "google-variant-aggregation": {
        "pick_coke_can": 675,
        "move_near": 480,
        "open_drawer": 189,
        "close_drawer": 189,
        "place_apple_in_closed_top_drawer": 189,
    },
    "google-cameras": {"pick_coke_can": 150, "move_near": 120},
    "widowx": {"spoon_on_towel": 24, "carrot_on_plate": 24, "stack_cube": 24, "put_eggplant_in_basket": 24},
}
SCRIPTS = {
    "google-visual-matching": [
        "rt1_pick_coke_can_visual_matching.sh",
        "rt1_move_near_visual_matching.sh",
        "rt1_drawer_visual_matching.sh",
        "rt1_put_in_drawer_visual_matching.sh",
    ],
    "google-variant-aggregation": [
        "rt1_pick_coke_can_variant_agg.sh",
        "rt1_move_near_variant_agg.sh",
        "rt1_drawer_variant_agg.sh",
        "rt1_put_in_drawer_variant_agg.sh",
    ],
    "widowx": ["octo_bridge.sh"],
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_official_numbers_of_trials(name: str) -> None:
    found = trials(name)
    assert Counter(trial.arrangement.task for trial in found) == COUNTS[name]
    assert [trial.number for trial in found] == list(range(sum(COUNTS[name].values())))
    assert len({_facts(trial) for trial in found}) == len(found)  # none twice


def test_every_variant_has_as_many_trials_as_the_tables_say() -> None:
    cans = [t.arrangement for t in trials("google-variant-aggregation", ["pick_coke_can"])]
    assert set(Counter(a.variant for a in cans).values()) == {75} and len({a.variant for a in cans}) == 9
    near = Counter(t.arrangement.variant for t in trials("google-variant-aggregation", ["move_near"]))
    assert set(near.values()) == {60} and len(near) == 8
    drawers = Counter(t.arrangement.variant for t in trials("google-variant-aggregation", ["open_drawer"]))
    assert set(drawers.values()) == {27} and len(drawers) == 7
    looks = Counter(t.arrangement.variant for t in trials("google-visual-matching"))
    assert set(looks.values()) == {75 + 60 + 54 + 27} and len(looks) == 4


def test_the_papers_trials() -> None:
    found = trials("paper")
    groups = Counter("drawer" if "_drawer" in t.arrangement.task[:13] else t.arrangement.task for t in found)
    assert groups == {
        "pick_coke_can": 2 * 15,
        "drawer": 2 * 18,
        "move_near": 2 * 10,
        "place_apple_in_closed_top_drawer": 2 * 7,
    }
    assert Counter(t.arrangement.task for t in found)["open_drawer"] == 18
    assert {t.repeat for t in found} == {0, 1} and len({(_facts(t), t.repeat) for t in found}) == len(found)


def test_fewer_trials_are_spread_over_all_variants_and_keep_their_numbers() -> None:
    every = trials("google-visual-matching")
    few = trials("google-visual-matching", ["pick_coke_can"], 12)
    assert len({(t.arrangement.variant, t.arrangement.part) for t in few}) == 12
    assert all(every[t.number] == t for t in few)
    assert trials("widowx", ["stack_cube"], 99) == [t for t in trials("widowx") if t.arrangement.task == "stack_cube"]


def test_the_robots_rotation_is_the_evaluators() -> None:
    """Against rotations by matrices: half a turn about z, then the yaw."""
    for trial in trials("google-visual-matching", per_task=20):
        w, x, y, z = trial.start.quaternion
        assert (x, y) == (0, 0) and w * w + z * z == pytest.approx(1)
        turn = np.array([[w * w - z * z, -2 * w * z], [2 * w * z, w * w - z * z]])
        angle = trial.start.yaw + np.pi
        np.testing.assert_allclose(turn, [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("googel",), "no suite 'googel'; there are google-visual-matching"),
        (("widowx", ["move_near"]), "suite 'widowx' has no task 'move_near'; it has spoon_on_towel"),
        (("widowx", [], -1), "at least 1"),
    ],
)
def test_what_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        trials(*arguments)


def test_all_is_the_sum_of_the_three() -> None:
    three = [_facts(t) for name in COUNTS if name != "google-cameras" for t in trials(name)]
    assert [_facts(t) for t in trials("all")] == three and set(SUITES) == {*COUNTS, "paper", "all"}


@pytest.mark.skipif("SIMPLER_HOME" not in os.environ, reason="SIMPLER_HOME names no checkout of SimplerEnv")
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_of_simpler_ask_for_the_same_episodes(name: str, tmp_path: Path) -> None:
    """Each script is run with a ``python`` that writes down what it is asked for."""
    log, stub = tmp_path / "log.jsonl", tmp_path / "python"
    noted = f'import json, sys\nprint(json.dumps(sys.argv[1:]), file=open("{log}", "a"))\n'
    stub.write_text(f"#!{sys.executable}\n{noted}")
    stub.chmod(0o755)
    for script in SCRIPTS[name]:
        path = Path(os.environ["SIMPLER_HOME"]) / "scripts" / script
        subprocess.run(["bash", str(path)], check=True, capture_output=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    asked = {facts for line in log.read_text().splitlines() for facts in _expanded(json.loads(line))}
    cameras = trials("google-cameras") if name == "google-variant-aggregation" else []
    assert asked == {_facts(trial) for trial in [*trials(name), *cameras]}


def _facts(trial: Trial) -> tuple[Any, ...]:
    """All that the simulator is told."""
    a, s = trial.arrangement, trial.start
    options = dict(a.options) | ({"shader_dir": "rt"} if a.ray_tracing else {})
    places = () if s.objects is None else tuple(round(v, 9) for v in s.objects)
    return (
        a.environment, a.scene, a.overlay, a.robot, a.control_rate, a.simulation_rate, a.limit,
        tuple(round(v, 9) for v in s.robot), round(s.yaw, 9), places, s.episode,
        tuple(sorted(options.items(), key=str)),
    )  # fmt: skip


def _expanded(argv: list[str]) -> list[tuple[Any, ...]]:
    """What SIMPLER's argument parser and evaluator make of a command line."""
    said: dict[str, list[str]] = {}
    for word in argv:
        if word.startswith("--"):
            said[word[2:].removesuffix("-range")] = values = []
        elif said:
            values.append(word)
    options = dict(pair.split("=") for pair in said.get("additional-env-build-kwargs", []))
    literal = {k: ast.literal_eval(v) if v in ("True", "None") else v for k, v in options.items()}
    if "enable-raytracing" in said:
        literal["shader_dir"] = "rt"
    robot_x, robot_y = (_grid(said[f"robot-init-{axis}"]) for axis in "xy")
    turns = [float(v) for v in said["robot-init-rot-rpy"]]
    assert said["robot-init-rot-quat-center"] == ["0", "0", "0", "1"] and turns[:6] == [0, 0, 1, 0, 0, 1]
    if said.get("obj-variation-mode") == ["episode"]:
        low, high = map(int, said["obj-episode"])
        objects: list[tuple[tuple[float, ...], int | None]] = [((), n) for n in range(low, high)]
    else:
        objects = [(place, None) for place in product(*(_grid(said[f"obj-init-{axis}"]) for axis in "xy"))]
    return [
        (
            said["env-name"][0], said["scene-name"][0], Path(said.get("rgb-overlay-path", [""])[0]).name,
            said["robot"][0], int(said["control-freq"][0]), int(said["sim-freq"][0]), int(said["max-episode-steps"][0]),
            (x, y), round(turns[6], 9), places, episode, tuple(sorted(literal.items(), key=str)),
        )
        for x, y, (places, episode) in product(robot_x, robot_y, objects)
    ]  # fmt: skip


def _grid(words: list[str]) -> list[float]:
    low, high, count = map(float, words)
    return [round(float(v), 9) for v in np.linspace(low, high, int(count))]
