"""``selfflow-mm finetune-robot``: what people type, and what they get for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from selfflow_mm.cli.main import main
from selfflow_mm.config import load_config
from selfflow_mm.training.stopping import Stopped
from selfflow_robotics.finetune.config import FinetuneConfig
from tests.robotics.tiny_robot import write_data

CONFIGS = sorted(p.stem for p in (Path(__file__).parents[3] / "configs/robot").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _one_thread(one_thread): ...


def test_a_run_from_the_command_line_and_on(dot_config, dot_data, tiny_robot_model, tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--data", str(dot_data), "--init", str(tiny_robot_model.model), "--out", str(out)]
    assert main(["finetune-robot", str(dot_config), "data.path=elsewhere", "run.steps=2", *options]) == 0
    said = capsys.readouterr().out
    assert f"The model is in {out / 'model'}, the report at {out / 'report.html'}" in said
    assert f"selfflow-mm serve-policy {out}" in said and "Started from" in said
    config = load_config(FinetuneConfig, out / "config.yaml")
    assert config.data.path == str(dot_data) and config.init == str(tiny_robot_model.model)
    # Going on needs no more than the folder.
    assert main(["finetune-robot", "--out", str(out), "--resume", "run.steps=3"]) == 0
    assert [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()] == [2, 3]
    assert len(json.loads((out / "run.json").read_text())["resumed"]) == 1


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(dot_config, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main(["finetune-robot", str(dot_config), "--dry-run", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "Data: 8 episodes" in said and "2 held out; google_robot at 3 actions a second" in said
    assert "Window: 3 actions of 7 numbers, 4 frames of 32 x 32 at 3 a second" in said
    # Four tokens a frame: one frame for a policy, four for a world model, which is given three actions.
    assert "policy    20% of batches, tokens: video 4, action 3, state 1" in said
    assert "world     20% of batches, tokens: video 16, action 3, text" in said
    assert "video     20% of batches, tokens: video 16, text" in said
    assert "FLOPs" in said and "GiB" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_the_parameters_of_a_dry_run_are_the_models(dot_config, tiny_robot_model, capsys):
    from safetensors.torch import load_file

    assert main(["finetune-robot", str(dot_config), "--dry-run"]) == 0
    weights = load_file(tiny_robot_model.model / "model.safetensors")
    assert f"Parameters: {sum(v.numel() for v in weights.values()):,} " in capsys.readouterr().out


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.video_rate=4"], "no whole multiple of the control rate"),
        (["data.camera=wrist"], "has no camera 'wrist'"),
        (["data.split=test"], "split"),
        (["data.held_out=test"], "split"),
        (["data.held_out_episodes=0"], "at least 1"),
        (["data.statistics=nowhere"], "nowhere"),
        (["tokenizer=nowhere"], "tokenizer: there is no folder 'nowhere'"),
        (["text.encoder=nobody/nothing"], "text"),
        (["model.modalities={action: 3}"], "model.modalities.action is 3"),
        (["tasks={dance: 1}"], "tasks names 'dance'"),
        (["lora.rank=2"], "name one with --init"),
        (["objective.mask_ratio={action: 0.7}"], "mask_ratio.action"),
        (["--data", "nowhere"], "there is no 'nowhere'"),
        (["--init", "nowhere"], "there is no weights folder 'nowhere'"),
        (["run.colour=red"], "colour"),
    ],
)
def test_mistakes_cost_one_sentence(dot_config, tmp_path, capsys, overrides, sentence, dry):
    out = tmp_path / "run"
    assert main(["finetune-robot", str(dot_config), "--out", str(out), *overrides, *["--dry-run"] * dry]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and sentence in errors[0] and errors[0].startswith("selfflow-mm: ")
    assert not out.exists()


def test_mistakes_of_the_command_itself(dot_config, dot_data, tmp_path, capsys):
    assert main(["finetune-robot", str(dot_config)]) == 2
    assert "finetune-robot needs --out DIR" in capsys.readouterr().err
    assert main(["finetune-robot", "--out", str(tmp_path / "a")]) == 2
    assert "a CONFIG is needed, for example robot/tabletop_tiny.yaml" in capsys.readouterr().err
    assert main(["finetune-robot", str(dot_config), "--out", str(tmp_path / "a"), "--resume"]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert main(["finetune-robot", str(dot_config), "data.path=''", "--out", str(tmp_path / "a")]) == 2
    assert "name a folder with --data" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert main(["finetune-robot", str(dot_config), "--out", str(dot_config)]) == 2
    assert f"--out is the file '{dot_config}'; name a folder" in capsys.readouterr().err


def test_more_lora_than_the_model_has_is_refused_before_there_is_a_folder(dot_config, tiny_robot_model, tmp_path):
    options = ["--init", str(tiny_robot_model.model), "--out", str(tmp_path / "a")]
    assert main(["finetune-robot", str(dot_config), *options, "lora.rank=200"]) == 2
    assert main(["finetune-robot", str(dot_config), *options, "lora.rank=2", "lora.targets=[nothing]"]) == 2
    assert main(["finetune-robot", str(dot_config), *options, "model.width=64", "model.rope_axes=[16, 8, 8, 0]"]) == 2
    assert not (tmp_path / "a").exists()


def test_a_stopped_run_says_so(dot_config, tmp_path, capsys, monkeypatch):
    def stopped(*args, **rest):
        raise Stopped("stopped at step 3 with everything saved; go on with --resume")

    monkeypatch.setattr("selfflow_robotics.finetune.run.run_steps", stopped)
    assert main(["finetune-robot", str(dot_config), "--out", str(tmp_path / "a")]) == 130
    assert "finetune-robot: stopped at step 3" in capsys.readouterr().out


@pytest.fixture(scope="session")
def both_rates(dot_data, tmp_path_factory):
    """The dots at RT-1's 3 Hz, and the same at Bridge's 5."""
    slow = dot_data
    fast = write_data(tmp_path_factory.mktemp("fast") / "1.0.0", {"train": 3, "val": 2})
    layout = (Path(__file__).parents[3] / "robotics/selfflow_robotics/layouts/fractal20220817_data.yaml").read_text()
    layout = layout.replace("control_rate: 3", "control_rate: 5")
    (fast / "layout.yaml").write_text(layout.replace("name: fractal20220817_data", "name: faster"))
    return {3: slow, 5: fast}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_that_ships_can_be_looked_at(name, both_rates, still_tokenizer, clip_tokenizer, capsys):
    """With bundled parts in place of those that have to be downloaded or trained."""
    compressed = "tabletop" not in name
    rate = 5 if "bridge" in name else 3
    overrides = [f"tokenizer={clip_tokenizer if compressed else still_tokenizer}", "text.encoder=bytes"]
    overrides.append("data.split=train")  # recipes may train on several splits; this data set has one
    assert main(["finetune-robot", f"robot/{name}.yaml", *overrides, "--data", str(both_rates[rate]), "--dry-run"]) == 0
    said = capsys.readouterr().out
    config = load_config(FinetuneConfig, f"robot/{name}")
    frames = 1 + config.data.horizon * round((config.data.video_rate or rate) / rate)
    assert f"Window: {config.data.horizon} actions of 7 numbers, {frames} frames of" in said
    assert config.objective.name == "self-flow"
    if "tabletop" not in name:
        assert (frames - 1) % 4 == 0 and config.tokenizer == "wan2.2"
    if name == "paper_625m":
        assert frames == 49 and config.data.horizon == 6


def test_a_config_that_ships_runs(both_rates, still_tokenizer, tmp_path):
    """The tabletop's, with a smaller model: every setting of it is used."""
    overrides = [
        f"tokenizer={still_tokenizer}", "init=''", "model.width=32", "model.heads=2", "model.double_blocks=1",
        "model.single_blocks=1", "model.rope_axes=[8, 2, 2, 4]", "data.height=32", "data.width=48", "data.batch=4",
        "run.steps=2", "run.device=cpu", "offline.windows=2", "data.split=train",
    ]  # fmt: skip
    out = tmp_path / "run"
    options = ["--data", str(both_rates[3]), "--out", str(out)]
    assert main(["finetune-robot", "robot/tabletop_tiny.yaml", *overrides, *options]) == 0
    about = json.loads((out / "model/config.json").read_text())
    assert about["model"]["isolate_conditions"] and about["sampling"]["shift"] == {"video": 4, "action": 3}
    assert not shutil.rmtree(out)
