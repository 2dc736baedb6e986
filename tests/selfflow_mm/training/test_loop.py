"""Training: resume to the bit, everything a run writes, and what stops it."""

from __future__ import annotations

import copy
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfflow_mm.config import load_config
from selfflow_mm.config_yaml import parse_yaml
from selfflow_mm.errors import UserError
from selfflow_mm.flow.objectives import Objective
from selfflow_mm.training import engine, loop
from selfflow_mm.training.checkpoint import latest_checkpoint, load_checkpoint, load_group
from selfflow_mm.training.config import OptimizerConfig, TrainConfig


def run(config: Path, out: Path, *overrides: str, resume: bool = False) -> Path:
    return loop.train(load_config(TrainConfig, config, overrides), out, resume=resume)


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
    different = [k for k in left if not torch.equal(left[k], right[k])]
    assert not different


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


def test_a_run_killed_at_any_step_and_resumed_ends_in_the_bits_of_one_that_was_not(small_config, tmp_path):
    run(small_config, tmp_path / "whole")
    with killed_at(5):  # two steps after the checkpoint at 3: these are lost and done again
        run(small_config, tmp_path / "cut")
    assert latest_checkpoint(tmp_path / "cut" / "checkpoints").name == "step-000003"
    run(small_config, tmp_path / "cut", resume=True)
    assert_same(tmp_path / "whole/checkpoints/step-000006", tmp_path / "cut/checkpoints/step-000006")
    assert_same(tmp_path / "whole/model", tmp_path / "cut/model")

    def scalars(out: Path) -> list[dict]:
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        timed = ("seconds", "samples_per_second", "tokens_per_second", "tflops")
        return [{k: v for k, v in line.items() if k not in timed} for line in lines]

    whole, cut = scalars(tmp_path / "whole"), scalars(tmp_path / "cut")
    assert [line["step"] for line in whole] == [line["step"] for line in cut] == [2, 4, 6]
    assert whole[-1] == cut[-1]  # the line at 4 averages steps 3 and 4, of which the resumed run did only the second


def test_a_run_on_clips_of_several_sizes_goes_on_to_the_same_bits(small_config, mixed_clips, tmp_path):
    """In buckets, from plain tars of mixed sizes; killed twice, once before any checkpoint."""
    mixed = [f"data.sources.clips.path={mixed_clips}", "run.steps=9", f"data.latents={tmp_path / 'latents'}"]
    run(small_config, tmp_path / "whole", *mixed)
    for step in (2, 7):
        with killed_at(step):
            run(small_config, tmp_path / "cut", *mixed, resume=step > 2)
    run(small_config, tmp_path / "cut", *mixed, resume=True)
    assert_same(tmp_path / "whole/checkpoints/step-000009", tmp_path / "cut/checkpoints/step-000009")
    assert_same(tmp_path / "whole/model", tmp_path / "cut/model")
    cursors = json.loads((tmp_path / "cut/checkpoints/step-000009/state.json").read_text())["state"]["cursors"]
    assert len({cursor for cursor in cursors if " + audio " in cursor}) > 1 and sum(cursors.values()) == 27
    geometry = json.loads((tmp_path / "whole/model/config.json").read_text())["geometry"]
    assert (geometry["frames"], geometry["height"], geometry["width"]) == (9, 32, 32)


def test_weights_move_and_the_average_follows(small_config, tmp_path):
    run(small_config, tmp_path / "a", "run.ema_half_life=1.0")
    first = tensors(tmp_path / "a/checkpoints/step-000003")
    last = tensors(tmp_path / "a/checkpoints/step-000006")
    # Every task trains the blocks; the layers of a modality that was not drawn rightly stand still.
    model = [k for k in last if k.startswith("model/") and "_blocks." in k]
    moved = [k for k in model if not torch.equal(first[k], last[k])]
    assert model and moved == model
    decay = 0.5 ** (1 / 6)
    name = "single_blocks.0.up.weight"
    # Between steps 3 and 6 the average moves towards the weights by 1 - decay per step, and never past them.
    gap = (last[f"ema/{name}"] - first[f"ema/{name}"]).abs()
    room = (last[f"model/{name}"] - first[f"ema/{name}"]).abs().max()
    assert 0 < float(gap.max()) < float(room) * (1 - decay**3) * 1.5


def test_a_run_folder_holds_what_it_promises(small_config, tmp_path):
    model = run(small_config, tmp_path / "a", "run.sample_every=6")
    out = tmp_path / "a"
    assert json.loads((out / "run.json").read_text())["seed"] == 5
    assert load_config(TrainConfig, out / "config.yaml").run.steps == 6
    line = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    assert {"loss", "l_rep", "grad_norm", "lr", "step"} <= line.keys()
    assert any(k.startswith("cosine/") for k in line) and any(k.startswith("l_gen/") for k in line)
    made = {p.name for p in (out / "samples/step-000006").iterdir()}
    assert {"t2va-00.mp4", "t2va-01.mp4", "t2v-00.mp4", "t2i-00.png"} <= made
    report = (out / "report.html").read_text()
    assert "Samples per second" in report and "TFLOP per second" in report
    assert line["tflops"] > 0 and line["samples_per_second"] > 0
    assert "l_gen/video" in report and "http" not in report.replace("http://www.w3.org", "")
    assert (model / "model.safetensors").exists() and (model / "tokenizers/audio/config.json").exists()
    assert not list(out.rglob("*.tmp"))


def test_sigterm_saves_and_leaves(small_config, tmp_path):
    out = tmp_path / "a"
    command = [sys.executable, "-m", "selfflow_mm.cli.main", "train", str(small_config), "--out", str(out)]
    process = subprocess.Popen([*command, "run.steps=100000", "run.save_every=100000"], stderr=subprocess.DEVNULL)
    log = out / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    saved = latest_checkpoint(out / "checkpoints")
    assert saved is not None and int(saved.name.removeprefix("step-")) >= 2


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(small_config, tmp_path, monkeypatch):
    real = Objective.loss

    def poisoned(self, model, teacher, batch, random, step, totals=None):
        loss, report = real(self, model, teacher, batch, random, step, totals)
        return (
            (loss * float("nan"), {**report, "l_gen/video": loss.detach() * float("nan")})
            if step == 4
            else (loss, report)
        )

    monkeypatch.setattr(Objective, "loss", poisoned)
    with pytest.raises(UserError, match=r"step 4: .*l_gen/video.* is not finite \(source clips, task .*step-000003"):
        run(small_config, tmp_path / "a")
    saved = tensors(latest_checkpoint(tmp_path / "a/checkpoints"))
    assert all(torch.isfinite(v).all() for v in saved.values())


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_a_spoilt_latent_is_named_and_the_repaired_run_goes_on(small_config, tmp_path, monkeypatch, modality):
    """One number of one sample's latents turns into NaN on the way, first met after the checkpoint at step 3."""
    from selfflow_mm.data.latents import LatentDataset

    tasks = "data.sources.clips.tasks={t2va: 1}"
    run(small_config, tmp_path / "whole", tasks)
    real, calls = LatentDataset.stream, 0

    def spoilt(self, name, ids):
        nonlocal calls
        stream = real(self, name, ids)
        calls += name == modality
        if name == modality and calls == 5:
            stream.values[1, 2, 0] = float("nan")
            spoilt.sample = ids[1]
        return stream

    monkeypatch.setattr(LatentDataset, "stream", spoilt)
    with pytest.raises(UserError) as caught:
        run(small_config, tmp_path / "a", tasks)
    sentence = str(caught.value)
    assert f"the {modality} latents of sample {spoilt.sample} are not finite" in sentence
    assert "step 4:" in sentence and "(source clips, task t2va, samples " in sentence and "\n" not in sentence
    checkpoint = latest_checkpoint(tmp_path / "a/checkpoints")
    assert checkpoint.name == "step-000003" and str(checkpoint) in sentence
    assert all(torch.isfinite(v).all() for v in tensors(checkpoint).values())
    monkeypatch.setattr(LatentDataset, "stream", real)
    run(small_config, tmp_path / "a", tasks, resume=True)
    assert_same(tmp_path / "whole/checkpoints/step-000006", tmp_path / "a/checkpoints/step-000006")


POSTHOC = ["run.posthoc_ema.every=2", "run.posthoc_ema.stds=[0.05, 0.1]"]


def test_averages_of_a_killed_run_are_those_of_one_that_was_not(small_config, tmp_path):
    run(small_config, tmp_path / "whole", *POSTHOC, "run.steps=7")
    with killed_at(5):
        run(small_config, tmp_path / "cut", *POSTHOC, "run.steps=7")
    assert (tmp_path / "cut/posthoc_ema/step-000004-std-0.050.safetensors").exists()
    run(small_config, tmp_path / "cut", *POSTHOC, "run.steps=7", resume=True)
    assert_same(tmp_path / "whole/checkpoints/step-000007", tmp_path / "cut/checkpoints/step-000007")
    assert_same(tmp_path / "whole/posthoc_ema", tmp_path / "cut/posthoc_ema")
    names = sorted(p.name for p in (tmp_path / "cut/posthoc_ema").iterdir())
    assert names == [f"step-{n:06d}-std-{std}.safetensors" for n in (2, 4, 6, 7) for std in ("0.050", "0.100")]
    # At steps this early an average of std 0.1 is near the weights themselves, and not them.
    weights = load_group(tmp_path / "cut/checkpoints/step-000007", "model")
    average = load_file(tmp_path / "cut/posthoc_ema/step-000007-std-0.100.safetensors")
    gaps = [(weights[k] - average[k]).abs().max() for k in weights]
    assert 0 < max(gaps) < 1e-2


def test_a_run_of_an_earlier_release_goes_on_as_if_nothing_had_changed(small_config, tmp_path, capsys):
    run(small_config, tmp_path / "whole")
    with killed_at(5):
        run(small_config, tmp_path / "old")
    # Its config knows nothing of what was added since.
    file = tmp_path / "old/config.yaml"
    config = parse_yaml(file.read_text(), "config.yaml")
    for name in ("init",):
        del config[name]
    for name in ("posthoc_ema", "recompute"):
        del config["run"][name]
    config["objective"] = {"name": "self-flow", "gamma": 0.8, "student_layer": 0.3, "teacher_layer": 0.7}
    for name in ("preset", "qkv_bias", "projector_channels", "isolate_conditions", "absolute_positions", "data_std"):
        del config["model"][name]
    file.write_text(json.dumps(config))
    capsys.readouterr()
    loop.train(load_config(TrainConfig, file), tmp_path / "old", resume=True)
    assert "other settings" not in capsys.readouterr().out
    assert_same(tmp_path / "whole/checkpoints/step-000006", tmp_path / "old/checkpoints/step-000006")


def test_averages_cannot_begin_in_the_middle_of_a_run_but_may_end(small_config, tmp_path):
    run(small_config, tmp_path / "a", "run.steps=3")
    with pytest.raises(UserError, match="holds no average of std 0.05, which has to be kept from a run's first step"):
        run(small_config, tmp_path / "a", *POSTHOC, resume=True)
    run(small_config, tmp_path / "b", *POSTHOC, "run.steps=3")
    run(small_config, tmp_path / "b", resume=True)
    assert list(load_checkpoint(tmp_path / "b/checkpoints/step-000006")[1]) == ["model", "ema", "optimizer"]


def test_a_run_may_start_from_the_weights_of_another(small_config, tmp_path, capsys, monkeypatch):
    run(small_config, tmp_path / "a")
    source = f"init={tmp_path / 'a'}"
    starts = []
    real = loop.run_steps

    def noted(settings, optimizer, folder, state, *args, **rest):
        starts.append(copy.deepcopy(state.teacher))
        real(settings, optimizer, folder, state, *args, **rest)

    monkeypatch.setattr(loop, "run_steps", noted)
    run(small_config, tmp_path / "b", source, "run.steps=1")
    first, given = starts[0].state_dict(), load_file(tmp_path / "a/model/model.safetensors")
    assert first.keys() == given.keys() and all(torch.equal(first[k], given[k]) for k in given)
    report = json.loads((tmp_path / "b/init.json").read_text())
    assert report["source"] == str(tmp_path / "a") and report["parameters_fresh"] == 0
    assert "Started from" in capsys.readouterr().out
    # Going on, nothing is taken again: the source may be gone by then.
    shutil.rmtree(tmp_path / "a")
    run(small_config, tmp_path / "b", source, "run.steps=2", resume=True)
    with pytest.raises(UserError):
        run(small_config, tmp_path / "c", source)
    assert not (tmp_path / "c").exists()


def test_recomputing_blocks_changes_no_bit_of_a_run(small_config, tmp_path):
    run(small_config, tmp_path / "a", "run.steps=2")
    run(small_config, tmp_path / "b", "run.steps=2", "run.recompute=blocks")
    assert_same(tmp_path / "a/checkpoints/step-000002", tmp_path / "b/checkpoints/step-000002")


def test_student_and_teacher_are_compiled_as_whole_graphs_and_samples_are_drawn_without(
    small_config, tmp_path, monkeypatch
):
    asked = []

    class Compiled(torch.nn.Module):
        """What torch.compile returns, without the compiler: calls are counted, the rest is the model's."""

        def __init__(self, model):
            super().__init__()
            self.model, self.calls = model, 0

        def forward(self, *args, **kwargs):
            assert not torch.is_inference_mode_enabled()
            self.calls += 1
            return self.model(*args, **kwargs)

        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("model"), name)

    def compiles(model, **options):
        asked.append((Compiled(model), options))
        return asked[-1][0]

    monkeypatch.setattr(torch, "compile", compiles)
    run(small_config, tmp_path / "a", "run.compile=true", "run.sample_every=2", "run.steps=2", "run.prompts=[one]")
    assert [options for _, options in asked] == [{"fullgraph": True, "dynamic": False}] * 2
    assert [model.calls for model, _ in asked] == [2, 2]
    run(small_config, tmp_path / "b", "run.steps=2")
    assert_same(tmp_path / "a/checkpoints/step-000002", tmp_path / "b/checkpoints/step-000002")


@pytest.fixture
def small_encoder(tmp_path: Path) -> Path:
    """A random SigLIP vision tower of width 12."""
    from selfflow_tokenizers._audio_backend import ensure_torchaudio

    ensure_torchaudio()
    from transformers import SiglipVisionConfig, SiglipVisionModel

    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(tmp_path / "siglip")
    return tmp_path / "siglip"


def test_repa_trains_towards_an_encoder_and_resumes(small_config, small_encoder, tmp_path):
    repa = ["objective.name=repa", f"objective.encoders={{video: {small_encoder}, image: {small_encoder}}}"]
    tasks = "data.sources.clips.tasks={t2va: 1, t2i: 1, v2a: 1}"
    run(small_config, tmp_path / "whole", *repa, tasks)
    with killed_at(5):
        run(small_config, tmp_path / "cut", *repa, tasks)
    run(small_config, tmp_path / "cut", *repa, tasks, resume=True)
    assert_same(tmp_path / "whole/checkpoints/step-000006", tmp_path / "cut/checkpoints/step-000006")
    weights = load_group(tmp_path / "whole/checkpoints/step-000006", "model")
    assert weights["projector.2.weight"].shape[0] == 12
    assert not any("siglip" in k or "vision" in k for k in weights)
    lines = [json.loads(line) for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert any(0 < line.get("l_rep", 0) < 2 for line in lines) and any("cosine/video" in line for line in lines)
    assert not any("cosine/audio" in line for line in lines)  # sound has no encoder here
    with pytest.raises(UserError, match="projector_channels is 7, the encoder's features have 12"):
        run(small_config, tmp_path / "bad", *repa, "model.projector_channels=7")
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("name", ["flow", "dual", "diffusion-forcing", "full-masking", "sra", "layersync"])
def test_every_objective_runs_and_tells_its_speed(small_config, tmp_path, name):
    run(small_config, tmp_path / "a", f"objective.name={name}", "run.steps=2", "objective.stop_alignment_at=1")
    line = json.loads((tmp_path / "a/log.jsonl").read_text().splitlines()[-1])
    assert line["samples_per_second"] > 0 and line["tflops"] > 0


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.sources.clips.path=/nowhere"], "/nowhere"),
        (["init=/nowhere"], "/nowhere"),
        (["objective.name=repa"], "encoders are named for repa"),
        (["objective.name=repa", "objective.encoders={video: no/such}"], "no/such is neither a folder"),
        (["run.posthoc_ema.stds=[0.5]"], "run.posthoc_ema: an average's std lies between"),
        (["data.sources.clips.tasks={t2x: 1}"], "known tasks"),
        (["data.sources.clips.tasks={t2va: 0}"], "positive share"),
        (["tokenizers.audio=/nowhere"], "tokenizers.audio: there is no folder ./nowhere."),
        (["model.modalities={video: 7}"], "its tokenizer has 12 channels"),
        (["run.device=tpu9"], "not available here"),
        (["model.widht=32"], "nearest.*model.width"),
    ],
)
def test_impossible_runs_are_refused_and_leave_nothing(small_config, tmp_path, overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        run(small_config, tmp_path / "a", *overrides)
    assert not (tmp_path / "a").exists()


def test_a_run_is_not_overwritten_and_another_shape_is_not_resumed(small_config, tmp_path):
    run(small_config, tmp_path / "a")
    with pytest.raises(UserError, match="--resume"):
        run(small_config, tmp_path / "a")
    with pytest.raises(UserError, match="another shape"):
        run(small_config, tmp_path / "a", "model.single_blocks=1", "run.steps=8", resume=True)


def test_learning_rate_warms_up_stays_and_falls_to_the_end():
    rates = OptimizerConfig(lr=2.0, warmup_steps=4, decay=0.5)
    got = [rates.lr_at(step, 20) for step in range(20)]
    assert got[:4] == [0.5, 1.0, 1.5, 2.0]
    assert got[4:11] == [2.0] * 7
    assert got[-1] == pytest.approx(0.2)
    assert all(a >= b for a, b in zip(got[10:], got[11:], strict=False))


def test_attention_backends_train_to_the_same_loss(small_config, tmp_path):
    logs = {}
    for backend in ("sdpa", "varlen"):
        config = load_config(TrainConfig, small_config, [f"run.attention={backend}", "run.steps=3"])
        loop.train(config, tmp_path / backend)
        lines = (tmp_path / backend / "log.jsonl").read_text().splitlines()
        logs[backend] = [json.loads(line)["loss"] for line in lines]
    assert logs["sdpa"] == pytest.approx(logs["varlen"], rel=1e-5)


def test_a_fixed_decay_is_the_average_between_two_steps(small_config, tmp_path):
    run(small_config, tmp_path / "a", "run.ema_decay=0.9", "run.steps=3", "run.save_every=1", "run.keep=2")
    before, after = (tmp_path / f"a/checkpoints/step-00000{i}" for i in (2, 3))
    old, new = load_group(before, "ema"), load_group(after, "ema")
    for name, weight in load_group(after, "model").items():
        assert torch.allclose(new[name], 0.9 * old[name] + 0.1 * weight, atol=1e-6)
    with pytest.raises(UserError, match="ema_decay lies in"):
        load_config(TrainConfig, small_config, ["run.ema_decay=1"])
