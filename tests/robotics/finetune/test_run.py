"""A fine-tuning run from data to a model that acts: what it writes, stops, goes on with, and starts from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selfflow_mm.config import load_config
from selfflow_mm.errors import UserError
from selfflow_mm.generation.pipeline import Geometry, Pipeline
from selfflow_mm.generation.sampling import SamplingConfig
from selfflow_mm.models.joint import JointConfig, JointTransformer
from selfflow_mm.training import engine
from selfflow_mm.training.checkpoint import latest_checkpoint, load_checkpoint, load_group
from selfflow_mm.training.export import export_run
from selfflow_robotics.adapter import FlowPolicy, FlowWorldModel, RobotModel, RobotSpec
from selfflow_robotics.finetune.config import FinetuneConfig
from selfflow_robotics.finetune.latents import CachedWindows
from selfflow_robotics.finetune.run import finetune
from selfflow_robotics.interfaces import Observation, Request
from selfflow_tokenizers import ByteTextEncoder, VideoTokenizer
from tests.robotics.tiny_robot import WIDTH, config, picture, write_data


def run(file: Path, out: Path, *overrides: str, resume: bool = False) -> Path:
    return finetune(config(file, *overrides), out, resume=resume)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Of a checkpoint by group and name, of another folder by file and name."""
    if (folder / "state.json").exists():
        groups = load_checkpoint(folder)[1]
    else:
        groups = {f.name: load_file(f) for f in sorted(folder.glob("*.safetensors"))}
    return {f"{group}/{name}": value for group, named in groups.items() for name, value in named.items()}


def assert_same(a: Path, b: Path) -> None:
    left, right = tensors(a), tensors(b)
    assert left.keys() == right.keys() and left
    assert not [k for k in left if not torch.equal(left[k], right[k])]


def log(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """The run inside dies at the beginning of a step, without a chance to save."""

    class Killed(BaseException):
        pass

    real = engine.take_step

    def dies(settings, optimizer, state, *args):
        if state.step == step:
            raise Killed
        return real(settings, optimizer, state, *args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(engine, "take_step", dies)
        yield


def ask(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """A chunk of actions, and what is imagined of it, from a folder."""
    policy = FlowPolicy.from_pretrained(folder, device="cpu", precision="float32")
    world = FlowWorldModel.from_pretrained(folder, device="cpu", precision="float32")
    state = np.zeros(len(policy.about.state_names)) if policy.about.state_names else None
    chunk = policy.chunks([Request(Observation(picture(0.3, 0.5), "go right", state), seed=4)])
    return chunk, world.imagine(picture(0.3, 0.5)[None], chunk, ["go right"], seeds=[2])


# --- what a run writes


def test_a_run_folder_holds_what_it_promises(tiny_robot_model):
    out = tiny_robot_model.run
    assert json.loads((out / "run.json").read_text())["kind"] == "robot"
    assert load_config(FinetuneConfig, out / "config.yaml").data.held_out == "val"
    last = log(out)[-1]
    assert last["step"] == 4 and {"loss", "l_rep", "grad_norm", "lr", "tflops", "samples_per_second"} <= last.keys()
    metrics = json.loads((out / "offline.json").read_text())
    assert metrics["episodes"] == 2 and metrics["windows"] == 4
    assert set(metrics["actions"]) >= {"model", "mean_action", "no_motion", "gripper_accuracy", "gripper_majority"}
    assert set(metrics["video"]) == {
        f"psnr_rgb_at{k}_{what}" for k in (1, 2, 3) for what in ("openloop", "copy_present")
    }
    report = (out / "report.html").read_text()
    for said in ("Mean absolute error of actions", "PSNR in dB after each action", "Held-out clips", "grad_norm"):
        assert said in report
    assert "http" not in report.replace("http://www.w3.org", "")
    assert sorted(p.name for p in (out / "samples/step-000004").iterdir())[0] == "world-00.mp4"
    model = tiny_robot_model.model
    assert {p.name for p in model.iterdir()} == {"config.json", "model.safetensors", "robot.json", "tokenizers"}
    assert not [p for p in out.rglob("*") if ".tmp" in p.name]
    assert not (out / "init.json").exists()  # it started from nothing


def test_the_model_loads_acts_and_imagines_from_the_run_and_from_the_model(tiny_robot_model):
    chunk, film = ask(tiny_robot_model.run)
    assert chunk.shape == (1, 3, 7) and np.isfinite(chunk).all() and film.shape == (1, 3, 32, 32, 3)
    again, other = ask(tiny_robot_model.model)
    assert np.array_equal(chunk, again) and np.array_equal(film, other)
    model = RobotModel.from_pretrained(tiny_robot_model.run, device="cpu")
    assert model.steps == 2 and model.name == "run"
    spec = RobotSpec.load(tiny_robot_model.model)
    assert model.spec == spec and spec.tasks == ("policy", "joint", "world", "video", "inverse")
    assert spec.statistics.dataset == "dots"
    # It is a pipeline's folder, too, with a clip's size.
    pipeline = Pipeline.from_pretrained(tiny_robot_model.model)
    assert (pipeline.geometry.frames, pipeline.geometry.fps) == (4, 3.0)


def test_the_exported_weights_are_the_average(tiny_robot_model):
    exported = load_file(tiny_robot_model.model / "model.safetensors")
    ema = load_group(tiny_robot_model.run / "checkpoints/step-000004", "ema")
    weights = load_group(tiny_robot_model.run / "checkpoints/step-000004", "model")
    assert exported.keys() == ema.keys() and all(torch.equal(exported[k], ema[k]) for k in ema)
    assert any(not torch.equal(weights[k], ema[k]) for k in ema)


def test_a_folder_that_is_no_robot_model_is_refused(tiny_robot_model, tmp_path):
    with pytest.raises(UserError, match="is no robot model: it has no robot.json"):
        FlowPolicy.from_pretrained("tiny")
    with pytest.raises(UserError, match="there is no weights folder"):
        FlowPolicy.from_pretrained("nowhere")
    folder = shutil.copytree(tiny_robot_model.model, tmp_path / "model")
    data = json.loads((folder / "robot.json").read_text())
    (folder / "robot.json").write_text(json.dumps(data | {"statistics": None}))
    with pytest.raises(UserError, match="holds no statistics, so its actions have no units"):
        FlowPolicy.from_pretrained(folder)


# --- stopping and going on


@pytest.mark.parametrize("way", ["kept latents", "streamed clips"])
def test_a_killed_run_ends_in_the_bits_of_one_that_was_not(dot_config, clip_tokenizer, tmp_path, way, capsys):
    settings = ["run.sample_every=3", "run.posthoc_ema.every=4"]
    if way == "streamed clips":
        settings += [f"tokenizer={clip_tokenizer}", "data.video_rate=12", "data.horizon=2", "data.fit=pad"]
    run(dot_config, tmp_path / "whole", *settings)
    with killed_at(5):  # two steps after the checkpoint at 3: these are lost and done again
        run(dot_config, tmp_path / "cut", *settings)
    assert latest_checkpoint(tmp_path / "cut/checkpoints").name == "step-000003"
    capsys.readouterr()
    run(dot_config, tmp_path / "cut", *settings, resume=True)
    assert "other settings" not in capsys.readouterr().out
    for part in ("checkpoints/step-000006", "model", "posthoc_ema"):
        assert_same(tmp_path / "whole" / part, tmp_path / "cut" / part)
    for name in ("offline.json", "model/robot.json", "model/config.json"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "cut" / name).read_text()
    assert (tmp_path / "whole/latents").exists() == (way == "kept latents")
    whole, cut = log(tmp_path / "whole"), log(tmp_path / "cut")
    assert [line["step"] for line in whole] == [line["step"] for line in cut] == [2, 4, 6]
    timed = ("seconds", "samples_per_second", "tokens_per_second", "tflops")
    assert {k: v for k, v in whole[-1].items() if k not in timed} == {
        k: v for k, v in cut[-1].items() if k not in timed
    }
    for step in ("step-000003", "step-000006"):
        assert (tmp_path / "whole/samples" / step / "offline.json").is_file()
    # A run that is done is not done again.
    run(dot_config, tmp_path / "whole", *settings, resume=True)
    assert_same(tmp_path / "whole/model", tmp_path / "cut/model")
    assert log(tmp_path / "whole") == whole


def test_a_run_goes_on_with_its_own_data_only(dot_config, tmp_path, capsys):
    run(dot_config, tmp_path / "a", "run.steps=3")
    capsys.readouterr()
    run(dot_config, tmp_path / "a", "run.steps=4", "optimizer.lr=1e-4", resume=True)
    assert "going on with other settings than before: optimizer.lr, run.steps" in capsys.readouterr().out
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        run(dot_config, tmp_path / "a")
    with pytest.raises(UserError, match="holds latents of other episodes"):
        run(dot_config, tmp_path / "a", "data.episodes=3", resume=True)
    with pytest.raises(UserError, match=r"stopped with \d+ windows of its data"):
        run(dot_config, tmp_path / "a", "data.stride=2", resume=True)
    before = {path: path.read_bytes() for path in (tmp_path / "a/model").iterdir() if path.is_file()}
    with pytest.raises(UserError, match="has another modalities; go on with the settings that it was begun with"):
        run(dot_config, tmp_path / "a", "data.state=absent", resume=True)
    assert all(path.read_bytes() == content for path, content in before.items())  # what was done is not spoilt


def test_unfinished_runs_act_with_their_newest_checkpoint(dot_config, tmp_path):
    with killed_at(5):
        run(dot_config, tmp_path / "cut")
    chunk, _ = ask(tmp_path / "cut")
    save_file(load_group(tmp_path / "cut/checkpoints/step-000003", "ema"), tmp_path / "cut/model/model.safetensors")
    assert np.array_equal(ask(tmp_path / "cut")[0], chunk)


def test_a_spoilt_window_is_named(dot_config, tmp_path, monkeypatch):
    real, calls = CachedWindows.take, []

    def spoilt(self, *args):
        windows = real(self, *args)
        calls.append(windows.names[2])
        if len(calls) == 5:
            windows.video[2, 1, 0] = float("nan")
        return windows

    monkeypatch.setattr(CachedWindows, "take", spoilt)
    with pytest.raises(UserError) as caught:
        run(dot_config, tmp_path / "a")
    sentence = str(caught.value)
    assert "step 4:" in sentence and "source robot" in sentence and "\n" not in sentence
    assert f"the video latents of sample {calls[4]} are not finite themselves" in sentence
    assert "step-000003" in sentence
    saved = tensors(latest_checkpoint(tmp_path / "a/checkpoints"))
    assert all(torch.isfinite(v).all() for v in saved.values())


# --- settings


def test_plain_flow_matching_has_no_teacher_to_follow(dot_config, tmp_path):
    run(dot_config, tmp_path / "a", "objective.name=flow", "run.steps=2", "tasks={policy: 1}")
    [line] = log(tmp_path / "a")
    assert "l_rep" not in line and "l_gen/action" in line
    with pytest.raises(UserError, match="was not trained for 'world'"):
        FlowWorldModel.from_pretrained(tmp_path / "a", device="cpu")
    assert set(json.loads((tmp_path / "a/offline.json").read_text())) == {"windows", "episodes", "horizon", "actions"}
    assert not (tmp_path / "a/samples/step-000002").exists() or not list((tmp_path / "a/samples").rglob("*.mp4"))


def test_a_model_of_half_precision_without_state(dot_config, tmp_path):
    model = run(dot_config, tmp_path / "a", "data.state=absent", "run.weights=float16", "run.steps=2")
    assert {v.dtype for v in load_file(model / "model.safetensors").values()} == {torch.float16}
    assert not any("state" in name for name in load_file(model / "model.safetensors"))
    assert FlowPolicy.from_pretrained(model, device="cpu").about.state_names == ()
    ask(model)


def test_data_without_statistics_are_measured_into_the_run(dot_config, tmp_path):
    data = write_data(tmp_path / "bare" / "1.0.0", {"train": 6}, statistics=False)
    run(dot_config, tmp_path / "a", f"data.path={data}", "run.steps=2")
    assert (tmp_path / "a/statistics.json").is_file() and not (data / "statistics.json").exists()
    stated = json.loads((tmp_path / "a/statistics.json").read_text())
    assert json.loads((tmp_path / "a/model/robot.json").read_text())["statistics"] == stated


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    from tests.tokenizers import texts

    return texts.t5(tmp_path_factory.mktemp("text") / "t5")


@pytest.mark.parametrize("latents", ["kept", "off"])
def test_instructions_of_an_encoder_of_transformers(dot_config, t5, tmp_path, latents):
    """Held-out instructions are met first while samples are drawn, where no gradient is kept, then in training."""
    settings = [f"text.encoder={t5}", "run.sample_every=1", "run.steps=3", "objective.caption_dropout=0.5"]
    settings += ["data.latents=off"] if latents == "off" else []
    model = run(dot_config, tmp_path / "a", *settings)
    assert list((tmp_path / "a/text").rglob("part-*.safetensors")) or latents == "off"
    chunk, _ = ask(model)
    assert np.isfinite(chunk).all()
    with pytest.raises(UserError, match="text encoder"):
        run(dot_config, tmp_path / "a", resume=True)  # with the bundled one


# --- what it starts from


@pytest.fixture(scope="module")
def joint_start(still_tokenizer, tmp_path_factory) -> Path:
    """A joint model of video and sound: width 32, text of the bundled encoder."""
    from selfflow_tokenizers import AudioAutoencoder, AudioAutoencoderConfig, AudioTokenizer

    with torch.random.fork_rng():
        torch.manual_seed(9)
        sound = AudioTokenizer(
            AudioAutoencoder(AudioAutoencoderConfig(latent_channels=4, widths=(8, 8, 8), blocks=(1, 1, 1)))
        )
        video, text = VideoTokenizer.from_pretrained(still_tokenizer), ByteTextEncoder()
        shape = JointConfig(
            width=32, heads=2, double_blocks=1, single_blocks=2, mlp_ratio=2, rope_axes=(8, 4, 4, 0),
            modalities={"video": 12, "audio": 4}, text_channels=text.spec.channels,
        )  # fmt: skip
        model = JointTransformer(shape)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("start") / "joint"
    tokenizers = {"video": video, "audio": sound}
    Pipeline(model, tokenizers, Geometry(), SamplingConfig(), text_encoder=text).save_pretrained(folder)
    return folder


def test_a_run_says_what_it_took(dot_config, joint_start, tmp_path, capsys, monkeypatch):
    seen = []

    def first(settings, optimizer, folder, state, *args, **rest):
        seen.append({k: v.clone() for k, v in state.model.state_dict().items()})
        raise KeyboardInterrupt

    monkeypatch.setattr("selfflow_robotics.finetune.run.run_steps", first)
    with pytest.raises(KeyboardInterrupt):
        run(dot_config, tmp_path / "a", f"init={joint_start}")
    given, start = load_file(joint_start / "model.safetensors"), seen[0]
    report = json.loads((tmp_path / "a/init.json").read_text())
    fresh = {name for name in start if name.split(".")[1:2] in (["action"], ["state"])}
    assert set(report["fresh"]) == fresh and len(fresh) == 8  # weight and bias, in and out, of both
    assert set(report["taken"]) == set(start) - fresh
    assert all(torch.equal(start[name], given[name]) for name in report["taken"])
    assert set(report["not_taken"]) == {name for name in given if ".audio." in name}
    assert set(report["not_taken"].values()) == {"this model has no audio"}
    assert "Started from" in capsys.readouterr().out


def test_sound_may_stay_in_the_model(dot_config, joint_start, tmp_path):
    given = load_file(joint_start / "model.safetensors")
    start = shutil.copytree(joint_start, tmp_path / "start")
    settings = [f"init={start}", "audio=kept", "optimizer.weight_decay=0.1"]
    with killed_at(5):
        run(dot_config, tmp_path / "a", *settings)
    shutil.rmtree(start)  # a run that goes on needs nothing of it
    model = run(dot_config, tmp_path / "a", *settings, resume=True)
    found = load_file(model / "model.safetensors")
    kept = [name for name in given if ".audio." in name]
    assert kept and all(torch.equal(found[name], given[name]) for name in kept)
    assert not torch.equal(found["single_blocks.0.up.weight"], given["single_blocks.0.up.weight"])
    pipeline = Pipeline.from_pretrained(model)
    assert set(pipeline.tokenizers) == {"video", "audio"} and pipeline.model.config.modalities["audio"] == 4
    ask(model)


def test_sound_that_is_not_there_cannot_stay(dot_config, tiny_robot_model, tmp_path):
    with pytest.raises(UserError, match="audio: kept, but .* has no sound to keep"):
        run(dot_config, tmp_path / "a", f"init={tiny_robot_model.model}", "audio=kept")
    assert not (tmp_path / "a").exists()


LORA = ["lora.rank=2", "lora.alpha=4", "optimizer.lr=1e-2"]


def test_lora_trains_beside_the_weights_and_is_merged(dot_config, joint_start, tmp_path):
    given = load_file(joint_start / "model.safetensors")
    start = shutil.copytree(joint_start, tmp_path / "start")
    settings = [f"init={start}", *LORA]
    whole = run(dot_config, tmp_path / "whole", *settings)
    final = load_group(tmp_path / "whole/checkpoints/step-000006", "model")
    ema = load_group(tmp_path / "whole/checkpoints/step-000006", "ema")
    optimizer = load_group(tmp_path / "whole/checkpoints/step-000006", "optimizer")
    adapted = {name.removesuffix(".lora_a") for name in final if name.endswith(".lora_a")}
    assert "single_blocks.0.up" in adapted and len(adapted) > 4
    # The base stands still, to the bit, in the weights and in their average.
    new = ("media_in.", "media_out.", "projector.")
    frozen = [n for n in given if n in final and not n.startswith(new)]
    assert frozen and all(torch.equal(final[n], given[n]) and torch.equal(ema[n], given[n]) for n in frozen)
    assert all(any(name.startswith((*new, f"{a}.lora_")) for a in adapted) for name in optimizer)
    assert all(final[f"{name}.lora_b"].any() for name in adapted)
    assert not torch.equal(final["media_in.video.weight"], given["media_in.video.weight"])
    # Merged: W + (alpha / rank) B A, of the averages.
    exported = load_file(whole / "model.safetensors")
    assert not [name for name in exported if "lora" in name]
    for name in adapted:
        merged = given[f"{name}.weight"] + 2 * ema[f"{name}.lora_b"] @ ema[f"{name}.lora_a"]
        assert torch.allclose(exported[f"{name}.weight"], merged, atol=1e-6)
    ask(whole)
    # `export` merges the checkpoint's to the same bits.
    export_run(tmp_path / "whole", tmp_path / "again")
    assert_same(tmp_path / "again", whole)

    # Killed, and the start gone: the same bits.
    with killed_at(5):
        run(dot_config, tmp_path / "cut", *settings)
    shutil.rmtree(start)
    run(dot_config, tmp_path / "cut", *settings, resume=True)
    assert_same(tmp_path / "whole/checkpoints/step-000006", tmp_path / "cut/checkpoints/step-000006")
    assert_same(whole, tmp_path / "cut/model")
    assert_same(tmp_path / "whole", tmp_path / "cut")  # lora.safetensors


def test_an_adapter_goes_on_where_it_was(dot_config, joint_start, tmp_path, monkeypatch):
    run(dot_config, tmp_path / "a", f"init={joint_start}", *LORA)
    own = load_file(tmp_path / "a/lora.safetensors")
    ema = load_group(tmp_path / "a/checkpoints/step-000006", "ema")
    assert all(torch.equal(own[name], ema[name]) for name in own) and len(own) < len(ema)
    seen = []

    def first(settings, optimizer, folder, state, *args, **rest):
        seen.append(state.model.state_dict())
        raise KeyboardInterrupt

    monkeypatch.setattr("selfflow_robotics.finetune.run.run_steps", first)
    with pytest.raises(KeyboardInterrupt):
        run(dot_config, tmp_path / "b", f"init={joint_start}", *LORA, f"adapter={tmp_path / 'a'}")
    assert all(torch.equal(seen[0][name], ema[name]) for name in ema)
    with pytest.raises(UserError, match="adapter: .* cannot be read"):
        run(dot_config, tmp_path / "c", f"init={joint_start}", *LORA, "adapter=nowhere")
    with pytest.raises(UserError, match="adapter names the weights of a LoRA; set lora.rank"):
        run(dot_config, tmp_path / "c", f"init={joint_start}", f"adapter={tmp_path / 'a'}")
    assert not (tmp_path / "c").exists()


def test_a_robot_model_can_be_fine_tuned_again(dot_config, tiny_robot_model, tmp_path):
    model = run(dot_config, tmp_path / "a", f"init={tiny_robot_model.run}", "run.steps=1")
    report = json.loads((tmp_path / "a/init.json").read_text())
    assert report["fresh"] == [] and report["not_taken"] == {}
    ask(model)


# --- does it learn?


def test_a_few_hundred_steps_beat_the_mean_action(dot_config, tmp_path):
    """The action is 0.3 of the way from the hand's place, which is in the state, to a goal that the words name."""
    data = write_data(tmp_path / "dots" / "1.0.0", {"train": 60, "val": 9})
    run(
        dot_config, tmp_path / "a", f"data.path={data}", "data.held_out=val", "data.held_out_episodes=9",
        "tasks={policy: 1}", "objective.name=flow", "objective.caption_dropout=0",
        "objective.timesteps={action: {kind: uniform, shift: 1}}", "data.state_dropout=0", "data.horizon=2",
        "data.batch=24", "run.steps=220", "run.save_every=1000", "run.log_every=50", "run.ema_half_life=0.05",
        "optimizer.lr=8e-3", "optimizer.decay=0.5", "sampling.steps=5", "offline.windows=40", "offline.batch=40",
    )  # fmt: skip
    actions = json.loads((tmp_path / "a/offline.json").read_text())["actions"]
    for name in ("x", "y", "yaw"):
        ours, mean = actions["model"]["mae"][name], actions["mean_action"]["mae"][name]
        assert ours < 0.6 * mean, f"{name}: {ours:.4f} of {mean:.4f}"
    assert actions["model"]["mae"]["x"] < 0.5 * actions["mean_action"]["mae"]["x"]
    losses = [line["loss"] for line in log(tmp_path / "a")]
    assert losses[-1] < 0.5 * losses[0]


def test_pictures_are_where_the_dot_is():
    """Of the test's world itself: the expert's dot is drawn at its place, or nothing above could be learnt."""
    shown = picture(0.75, 0.25)
    rows, columns = np.nonzero(shown[..., 0] == 250)
    assert rows.mean() == pytest.approx(0.25 * 24 + 3.5, abs=0.5)
    assert columns.mean() == pytest.approx(0.75 * (WIDTH - 8) + 3.5, abs=0.5)
