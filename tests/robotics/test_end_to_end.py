"""From data to a model that is served, dreams and is graded: the commands, one after another, as a user runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from selfflow_mm.cli.main import main
from selfflow_mm.data.reading import read_media
from selfflow_robotics.adapter import FlowWorldModel, RobotSpec
from selfflow_robotics.interfaces import Observation, Request
from selfflow_robotics.policies import Policy, load_policy
from selfflow_robotics.serving import PolicyClient, RemotePolicy
from selfflow_robotics.sources import open_episodes
from tests.robotics.tiny_robot import write_config, write_data


@pytest.fixture(scope="module")
def begun(still_tokenizer, tmp_path_factory) -> tuple[Path, Path]:
    """Data, and the run that ``finetune-robot`` made of them."""
    folder = tmp_path_factory.mktemp("whole-way")
    data = write_data(folder / "dots" / "1.0.0", {"train": 8, "val": 6}, statistics=False)
    assert main(["robot-data", "stats", str(data), "--out", str(data / "statistics.json")]) == 0
    config = write_config(folder / "dots.yaml", data, still_tokenizer)
    options = ["--out", str(folder / "run"), "data.held_out=val", "run.steps=3"]
    assert main(["finetune-robot", str(config), "--data", str(data), *options]) == 0
    return data, folder / "run"


@pytest.fixture(autouse=True)
def _one_thread(one_thread): ...


def episode(data: Path, number: int = 1):
    files = open_episodes(data, None, "val")
    return files.read(*files.locate(number))


def test_a_served_model_answers_as_the_model_itself(begun):
    data, run = begun
    seen = episode(data)
    images = seen.images["image"].read([0, 3])
    command = [sys.executable, "-m", "selfflow_mm.cli.main", "serve-policy", str(run), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen([*command, "--executed", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        address = re.match(r"ws://127\.0\.0\.1:\d+", line)
        assert address and "chunks of 3 actions, 2 carried out, 3 per second; state optional" in line, line
        beside = Policy(load_policy(run, device="cpu"))
        with PolicyClient(address[0]) as client:
            served = RemotePolicy(client)
            assert (served.about.horizon, served.executed, len(served.about.state_names)) == (3, 2, 8)
            for seed in (0, 5):
                served.reset(seed)
                beside.reset(seed)
                for image, step in zip(images, (0, 3), strict=True):
                    answer = served.act(image, seen.instruction, seen.states[step])
                    assert answer.shape == (3, 7)
                    assert np.abs(answer - beside.act(image, seen.instruction, seen.states[step])).max() < 1e-5
            assert client.act(images[0], "go left").shape == (3, 7)  # without a state
        process.terminate()
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output, errors) == (0, "stopped\n", "")
    finally:
        process.kill()
        process.communicate()


def test_it_imagines_what_recorded_actions_do(begun, tmp_path, capsys):
    data, run = begun
    film = tmp_path / "film.mp4"
    options = ["--data", str(data), "--split", "val", "--episode", "1", "--compare", "--seed", "4", "--json"]
    assert main(["imagine", str(run), *options, "--out", str(film)]) == 0
    done = json.loads(capsys.readouterr().out)
    recorded = episode(data)
    # The last recorded action leads to no recorded picture.
    assert done["length"] == len(recorded) - 1 and done["instruction"] == recorded.instruction
    assert done["in_one_go"] == 3 and done["control_rate"] == 3
    frames = read_media(film).video.frames
    assert len(frames) == len(recorded)  # the present and what follows each action

    # The same as asking the model in Python.
    world = FlowWorldModel.from_pretrained(run, device="cpu")
    now, acts = recorded.images["image"].read([0]), recorded.actions[None, :-1]
    imagined = world.imagine(now, acts, [recorded.instruction], seeds=[4])[0]
    truth = RobotSpec.load(run / "model").pictures(recorded.images["image"].read(range(1, len(recorded))))
    error = ((imagined.astype(float) - truth) ** 2).mean(axis=(1, 2, 3))
    levels = 10 * np.log10(255**2 / error)
    assert done["psnr_rgb_openloop"] == pytest.approx(levels.tolist(), abs=0.006)


def test_it_dreams_with_itself_as_the_policy(begun, tmp_path, capsys):
    data, run = begun
    options = ["--data", str(data), "--split", "val", "--actions", f"policy:{run}", "--length", "5"]
    assert main(["imagine", str(run), *options, "--out", str(tmp_path / "dream.mp4")]) == 0
    assert len(read_media(tmp_path / "dream.mp4").video.frames) == 6


def test_it_is_graded(begun, tmp_path, capsys):
    data, run = begun
    options = ["--data", str(data), "--out", str(tmp_path / "card"), "--device", "cpu", "--clips", "4"]
    sections = ["--only", "open_loop", "moving_region", "counterfactual"]
    assert main(["evaluate-world-model", str(run), *options, *sections, "--horizons", "1", "2", "4"]) == 0
    card = json.loads((tmp_path / "card/card.json").read_text())
    assert card["model"]["name"] == "run" and card["settings"]["fit"] == "stretch"
    assert card["data"]["split"] == "val" and len(card["clips"]) == 4
    assert {"open_loop", "moving_region", "counterfactual"} <= card.keys()
    assert "horizon" in (tmp_path / "card/report.html").read_text().lower()


def test_it_acts_on_the_tabletop(begun, tmp_path, capsys):
    """RT-1's layout is the tabletop's: the policy takes its pictures and states, whatever it has learnt."""
    _, run = begun
    out = tmp_path / "rollout"
    options = ["--tasks", "pick", "--episodes", "1", "--max-steps", "4", "--workers", "0", "--device", "cpu"]
    assert main(["rollout", str(run), "--out", str(out), *options]) == 0
    [header, row] = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert row["task"] == "pick" and row["steps"] == 4 and row["success"] is False


def test_a_policy_loaded_by_name_is_the_flow_policy(begun):
    data, run = begun
    seen = episode(data)
    request = Request(Observation(seen.images["image"].read([0])[0], seen.instruction, seen.states[0]), seed=3)
    plain, guided = load_policy(run, device="cpu"), load_policy(run, device="cpu", steps=1, video=0.5)
    assert plain.about.extra["video"] == "absent" and guided.about.extra["video"] == 0.5
    assert not np.array_equal(plain.chunks([request]), guided.chunks([request]))
