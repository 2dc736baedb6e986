"""Gradients per modality: what is missed and what should not be is told, and a run that is right hears nothing."""

from __future__ import annotations

import pytest
import torch

from selfflow_mm.conditions import Conditions
from selfflow_mm.flow.objectives import Batch, Objective, ObjectiveConfig
from selfflow_mm.models.joint import JointConfig, JointTransformer
from selfflow_mm.randomness import Randomness
from selfflow_mm.tokens import TokenStream
from selfflow_mm.training import gradient_watch
from selfflow_mm.training.run_folder import read_warnings
from tests.selfflow_mm.training.test_loop import run

EVERY = "run.log_every=1"


def causes(folder) -> list[str]:
    return [line["cause"] for line in read_warnings(folder)]


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.sources.clips.tasks={t2v: 1}"],
        ["data.sources.clips.tasks={t2va: 1}", "objective.weights={audio: 0}"],
        ["data.sources.clips.tasks={v2a: 1}", "objective.name=flow"],
        ["data.sources.clips.tasks={t2va: 1, t2i: 1}"],
    ],
)
def test_a_run_that_is_right_is_warned_of_nothing(small_config, tmp_path, overrides):
    run(small_config, tmp_path / "a", *overrides, EVERY)
    assert not (tmp_path / "a/warnings.jsonl").exists()


def test_a_head_that_is_detached_is_found_once(small_config, tmp_path, monkeypatch, capfd):
    real = Objective._generation

    def detached(self, predicted, *args):
        predicted = {m: v.detach() if m == "audio" else v for m, v in predicted.items()}
        return real(self, predicted, *args)

    monkeypatch.setattr(Objective, "_generation", detached)
    run(small_config, tmp_path / "a", "data.sources.clips.tasks={t2va: 1}", EVERY)
    (warning,) = read_warnings(tmp_path / "a")
    assert warning["cause"] == "no gradient: media_out.audio" and warning["step"] == 1
    assert capfd.readouterr().err.count(warning["warning"]) == 1
    assert "media_out.audio got no gradient" in (tmp_path / "a/report.html").read_text()


def test_an_input_that_is_detached_is_found_when_its_output_has_moved(small_config, tmp_path, monkeypatch):
    real = JointTransformer.forward

    def detached(self, streams, *args, **kwargs):
        layer = self.media_in["video"]
        handle = layer.register_forward_hook(lambda module, given, out: out.detach())
        try:
            return real(self, streams, *args, **kwargs)
        finally:
            handle.remove()

    monkeypatch.setattr(JointTransformer, "forward", detached)
    run(small_config, tmp_path / "a", "data.sources.clips.tasks={t2va: 1}", EVERY)
    assert [(w["cause"], w["step"]) for w in read_warnings(tmp_path / "a")] == [("no gradient: media_in.video", 2)]


def test_a_gradient_where_none_belongs_is_found(small_config, tmp_path, monkeypatch):
    real = Objective.loss

    def leaking(self, model, *args):
        loss, report = real(self, model, *args)
        return loss + 1e-3 * model.media_out["audio"].weight.sum(), report

    monkeypatch.setattr(Objective, "loss", leaking)
    run(small_config, tmp_path / "a", "data.sources.clips.tasks={t2v: 1}", EVERY)
    assert causes(tmp_path / "a") == ["gradient: media_out.audio"]


def test_a_modality_that_never_comes_is_missed(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(gradient_watch, "PATIENCE", 3)
    run(small_config, tmp_path / "a", "data.sources.clips.tasks={t2v: 1, t2a: 1e-12}", EVERY)
    (warning,) = read_warnings(tmp_path / "a")
    assert warning["cause"] == "never came: audio" and warning["step"] == 3 and "last 3 steps" in warning["warning"]


@pytest.mark.parametrize("name", ["self-flow", "flow"])
def test_a_missing_modality_contributes_nothing(name):
    """A batch of videos trains a model that also has sound as it trains one that has none, to the bit."""
    shape = dict(width=32, heads=2, double_blocks=1, single_blocks=1, mlp_ratio=2, rope_axes=(8, 4, 4, 0))
    both = JointTransformer(JointConfig(**shape, modalities={"video": 3, "audio": 5}, text_channels=4))
    alone = JointTransformer(JointConfig(**shape, modalities={"video": 3}, text_channels=4))
    with torch.no_grad():  # a fresh output layer is zero and would hide much
        for parameter in both.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    weights = both.state_dict()
    alone.load_state_dict({k: weights[k] for k in alone.state_dict()})
    video = TokenStream.dense(torch.randn(2, 6, 3), torch.rand(6, 4))
    text = TokenStream.dense(torch.randn(2, 2, 4), torch.zeros(2, 4))
    batch = Batch({"video": video}, Conditions.named("t2v"), text, torch.arange(2))
    objective = Objective(ObjectiveConfig(name=name))
    losses = []
    for model in (both, alone):
        loss, report = objective.loss(model, model, batch, Randomness(0), 3)
        loss.backward()
        losses.append((loss.item(), report["l_gen/video"].item()))
    assert losses[0] == losses[1]
    gradients = dict(alone.named_parameters())
    for key, parameter in both.named_parameters():
        if ".audio." in key:
            assert parameter.grad is None
        elif key.startswith("projector") and name == "flow":
            assert parameter.grad is None and gradients[key].grad is None
        else:
            assert torch.equal(parameter.grad, gradients[key].grad), key
