"""Starting a run from other weights: what fits is taken bit for bit, the rest stays, and the report says which."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from selfflow_mm.errors import UserError
from selfflow_mm.models import ImageNetConfig, JointConfig, JointTransformer, SelfFlowPerTokenDiT, preset
from selfflow_mm.models.flux2 import recipes
from selfflow_mm.training.checkpoint import save_checkpoint
from selfflow_mm.training.initialise import InitReport, initialise
from selfflow_mm.weights import find_weights

CONFIG = JointConfig(
    width=32,
    heads=2,
    double_blocks=1,
    single_blocks=2,
    mlp_ratio=2.0,
    rope_axes=(8, 4, 4, 0),
    modalities={"video": 6, "audio": 4},
    text_channels=8,
)


def _model(config: JointConfig = CONFIG, seed: int = 0) -> JointTransformer:
    torch.manual_seed(seed)
    return JointTransformer(config)


def _stored(folder: Path, config: JointConfig = CONFIG, seed: int = 7) -> dict[str, torch.Tensor]:
    """A model folder with random weights (none of them zero); its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    tensors = {n: torch.randn(p.shape) for n, p in _model(config).named_parameters()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"format": "selfflow-model", "version": 1, "model": asdict(config)}))
    return tensors


def _check(model: JointTransformer, report: InitReport, tensors: dict[str, torch.Tensor], start) -> None:
    """What the report says was taken is the source's, bit for bit; what it calls fresh is as it was."""
    now = dict(model.named_parameters())
    assert set(report.taken) | set(report.fresh) == set(now) and not set(report.taken) & set(report.fresh)
    assert all(torch.equal(now[n], tensors[n]) for n in report.taken)
    assert all(torch.equal(now[n], start[n]) for n in report.fresh)


def test_a_model_of_the_same_shape_is_taken_whole(tmp_path: Path) -> None:
    tensors = _stored(tmp_path)
    model = _model()
    report = initialise(model, str(tmp_path))
    _check(model, report, tensors, {})
    assert not report.fresh and not report.not_taken and not report.notes
    assert report.text().startswith(f"Started from {tmp_path}:")
    assert report.as_dict()["parameters_taken"] == sum(p.numel() for p in model.parameters())


def test_other_depth_modalities_and_channels(tmp_path: Path) -> None:
    tensors = _stored(tmp_path)
    other = replace(CONFIG, double_blocks=2, single_blocks=1, modalities={"video": 6, "image": 6}, text_channels=5)
    model = _model(other)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    report = initialise(model, str(tmp_path))
    _check(model, report, tensors, start)
    assert {n.split(".")[0] for n in report.fresh} == {"text_in", "media_in", "media_out", "double_blocks"}
    assert "text_in.bias" in report.taken  # its weight does not fit, its bias does
    assert report.not_taken["media_in.audio.weight"] == "this model has no audio"
    assert report.not_taken["single_blocks.1.up.weight"] == "this model has 1 single blocks"
    assert report.not_taken["text_in.weight"] == "shape 32 x 8 there, 32 x 5 here"
    text = report.text()
    assert "note: double_blocks is 1 there and 2 here" in text and "note: single_blocks is 2 there and 1 here" in text
    assert "double_blocks.1" in text and "media_in.image" in text


def test_another_width_is_refused_with_the_reason(tmp_path: Path) -> None:
    _stored(tmp_path)
    wide = replace(CONFIG, width=64, rope_axes=(8, 12, 12, 0), modalities={"image": 3}, projector_ratio=1.0)
    with pytest.raises(UserError, match="nothing of .* fits this model: width is 32 there, 64 here"):
        initialise(_model(wide), str(tmp_path))


def test_the_bundled_model_by_name() -> None:
    model = _model(preset("tiny"))
    report = initialise(model, "tiny")
    stored = load_file(find_weights("tiny") / "model.safetensors")
    assert not report.fresh and not report.not_taken and not report.notes
    assert all(torch.equal(p, stored[n].float()) for n, p in model.named_parameters())


def test_a_run_gives_its_final_weights_or_its_newest_ema(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    with pytest.raises(UserError, match="has no checkpoint yet"):
        initialise(_model(), str(run))
    final = _stored(run / "model")
    (run / "model" / "model.safetensors").unlink()
    weights = {name: torch.full_like(t, 2.0) for name, t in final.items()}
    for step in (3, 5):
        ema = {name: torch.full_like(t, float(step)) for name, t in final.items()}
        save_checkpoint(run / "checkpoints", step, {"model": weights, "ema": ema}, {})
    model = _model()
    assert not initialise(model, str(run)).fresh
    assert all(bool((p == 5).all()) for p in model.parameters())
    assert not initialise(model, str(run / "checkpoints" / "step-000003")).fresh
    assert all(bool((p == 3).all()) for p in model.parameters())
    save_file(final, run / "model" / "model.safetensors")
    initialise(model, str(run))
    assert all(torch.equal(p, final[n]) for n, p in model.named_parameters())


def test_flux2_is_recognised(tmp_path: Path) -> None:
    config = replace(CONFIG, bias=False, qkv_bias=False, modalities={"image": 6, "audio": 4}, mlp_ratio=3.0)
    about = {
        "_class_name": "Flux2Transformer2DModel",
        "num_layers": 1,
        "num_single_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 6,
        "joint_attention_dim": 8,
        "axes_dims_rope": [8, 4, 4, 0],
        "guidance_embeds": False,
    }
    shapes = dict(_model(config).named_parameters())
    theirs: dict[str, torch.Tensor] = {}
    for name, recipe in recipes(config).items():
        for part, source in zip(shapes[name].chunk(len(recipe.names)), recipe.names, strict=True):
            theirs[source] = torch.randn(part.shape)
    folder = tmp_path / "transformer"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(about))
    save_file(theirs, folder / "diffusion_pytorch_model.safetensors")
    model = _model(config)
    report = initialise(model, str(tmp_path))
    assert {n.rsplit(".", 1)[0] for n in report.fresh} == {
        "media_in.audio",
        "media_out.audio",
        "projector.0",
        "projector.2",
    }
    assert torch.equal(model.double_blocks[0].media.qkv.weight[32:64], theirs["transformer_blocks.0.attn.to_k.weight"])
    net = SelfFlowPerTokenDiT.from_config(ImageNetConfig(8, 2, 4, 32, 1, 2))
    with pytest.raises(UserError, match="only a joint transformer can start"):
        initialise(net, str(tmp_path))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no weights folder 'nowhere'"):
        initialise(_model(), "nowhere")
    with pytest.raises(UserError, match="is no model to start from: it holds no config.json"):
        initialise(_model(), str(tmp_path))
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(UserError, match="its config.json says 'UNet2DModel'"):
        initialise(_model(), str(tmp_path))
    with pytest.raises(UserError, match="its config.json says"):
        initialise(_model(), "tiny/video")
