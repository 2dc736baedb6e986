"""FLUX.2's open weights: a small random instance of diffusers' own class must give our model the same velocity."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfflow_mm.errors import UserError
from selfflow_mm.flow.path import interpolate
from selfflow_mm.models import JointTransformer, preset
from selfflow_mm.models.flux2 import joint_config_from_flux2, load_flux2, read_flux2_config, recipes
from selfflow_mm.tokens import NoiseLevels, TokenStream

SMALL = {
    "in_channels": 8,
    "num_layers": 2,
    "num_single_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "mlp_ratio": 3.0,
    "axes_dims_rope": (4, 4, 4, 4),
    "rope_theta": 2000,
    "guidance_embeds": False,
}
#: config.json of FLUX.2 [klein] 4B's transformer, as public implementations that read it have it.
KLEIN_4B = {
    "_class_name": "Flux2Transformer2DModel",
    "attention_head_dim": 128,
    "axes_dims_rope": [32, 32, 32, 32],
    "eps": 1e-06,
    "guidance_embeds": False,
    "in_channels": 128,
    "joint_attention_dim": 7680,
    "mlp_ratio": 3.0,
    "num_attention_heads": 24,
    "num_layers": 5,
    "num_single_layers": 20,
    "out_channels": None,
    "patch_size": 1,
    "rope_theta": 2000,
    "timestep_guidance_channels": 256,
}


@pytest.fixture(scope="module")
def diffusers() -> Any:
    from selfflow_tokenizers._audio_backend import ensure_torchaudio

    ensure_torchaudio()
    return pytest.importorskip("diffusers", reason="diffusers is in the extra 'pretrained'")


@pytest.fixture(scope="module")
def theirs(diffusers: Any) -> Any:
    torch.manual_seed(3)
    model = diffusers.Flux2Transformer2DModel(**SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms' scales and all: nothing may hide behind a one or a zero
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module", params=["whole", "shards", "pipeline", "bfloat16"])
def stored(theirs: Any, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder of it, and the model that the folder holds."""
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "pipeline":
        theirs.save_pretrained(root / "transformer")
        (root / "model_index.json").write_text("{}")
    elif request.param == "shards":
        theirs.save_pretrained(root, max_shard_size="40KB")
        assert len(list(root.glob("*.safetensors"))) > 2
    elif request.param == "bfloat16":
        import copy

        rounded = copy.deepcopy(theirs).to(torch.bfloat16)
        rounded.save_pretrained(root)
        return root, rounded.float()
    else:
        theirs.save_pretrained(root)
    return root, theirs


def _inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Image tokens and their (t, h, w, l), text tokens and theirs, levels."""
    image, text = torch.randn(2, 12, 8), torch.randn(2, 5, 12)
    h, w = torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij")
    image_ids = torch.stack([torch.full_like(h, 10), h, w, torch.zeros_like(h)], dim=-1).reshape(12, 4)
    text_ids = torch.cat([torch.zeros(5, 3, dtype=torch.int64), torch.arange(5).unsqueeze(1)], dim=1)
    return image, image_ids, text, text_ids, torch.tensor([0.35, 0.9])


def _velocity(model: JointTransformer, name: str = "image") -> Tensor:
    image, image_ids, text, text_ids, t = _inputs()
    seconds = torch.tensor([1 / model.config.time_rate, 1.0, 1.0, 1.0])

    def stream(values: Tensor, ids: Tensor) -> TokenStream:
        positions = (ids * seconds).expand(len(values), -1, -1)
        return TokenStream(values, positions, torch.zeros(values.shape[:2], dtype=torch.int64), full=True)

    streams, texts = {name: stream(image, image_ids)}, stream(text, text_ids)
    levels = {name: NoiseLevels.uniform(t, streams[name].sample), "text": NoiseLevels.uniform(t, texts.sample)}
    with torch.no_grad():
        return model(streams, levels, texts).velocity[name]


def _expected(theirs: Any) -> Tensor:
    image, image_ids, text, text_ids, t = _inputs()
    with torch.no_grad():
        out = theirs(image, encoder_hidden_states=text, timestep=t, img_ids=image_ids, txt_ids=text_ids)
    return out.sample


def test_the_velocity_is_diffusers_velocity(stored: tuple[Path, Any]) -> None:
    folder, theirs = stored
    model = JointTransformer(read_flux2_config(folder))
    report = load_flux2(model, folder)
    torch.manual_seed(1)
    expected = _expected(theirs)
    torch.manual_seed(1)
    ours = _velocity(model)
    assert expected.std() > 0.1
    assert (ours - expected).abs().max() < 1e-4 * max(1.0, float(expected.abs().max()))
    # Everything of theirs has its place, and of ours only the projector is new.
    assert not report.not_taken and not report.notes
    assert {name.split(".")[0] for name in report.fresh} == {"projector"}


def test_the_scheduler_of_diffusers_takes_noise_minus_data_for_velocity(diffusers: Any) -> None:
    """The sign, by the sampler FLUX.2 runs with: stepping along noise - data from any level must end at the data."""
    data, noise = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[0.7])
    x = interpolate(data, noise, torch.tensor(0.7))
    last = scheduler.step(noise - data, scheduler.timesteps[0], x).prev_sample
    assert torch.allclose(last, data, atol=1e-5)
    assert float(scheduler.timesteps[0]) == pytest.approx(700)  # and pipelines pass a thousandth of it


def test_new_modalities_start_fresh_and_what_does_not_fit_is_said(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    config = read_flux2_config(tmp_path)
    from dataclasses import replace

    other = replace(
        config,
        modalities={"image": 8, "audio": 3},
        text_channels=7,
        double_blocks=1,
        single_blocks=4,
        rope_axes=(8, 4, 4, 0),
        qkv_bias=True,
    )
    model = JointTransformer(other)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    report = load_flux2(model, tmp_path)
    weights = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    after = dict(model.named_parameters())
    assert torch.equal(after["media_in.image.weight"], weights["x_embedder.weight"])
    assert all(torch.equal(before[name], after[name]) for name in report.fresh)
    fresh = {name.rsplit(".", 1)[0] for name in report.fresh}
    assert {"media_in.audio", "media_out.audio", "text_in", "projector.0", "single_blocks.3.up"} <= fresh
    assert {"double_blocks.0.media.qkv", "double_blocks.0.text.qkv"} <= fresh  # their biases, which are zero
    assert report.not_taken["context_embedder.weight"] == "shape 32 x 12 there, 32 x 7 here"
    assert report.not_taken["transformer_blocks.1.attn.to_q.weight"] == "no such layer here"
    text = report.text()
    assert "double_blocks is 2 there and 1 here" in text and "rope_axes is [4, 4, 4, 4] there" in text
    assert "its text encoder gives 12 channels, ours 7" in text
    assert "media_in.audio" in text and "single_blocks.0-3" in text
    assert json.loads(json.dumps(report.as_dict()))["parameters_taken"] == sum(report.taken.values())


def test_klein_4b_is_the_preset_and_fills_it() -> None:
    config = joint_config_from_flux2(KLEIN_4B)
    expected = preset("4b", modalities={"image": 128}, text_channels=7680, preset="")
    assert config == expected
    with torch.device("meta"):
        model = JointTransformer(preset("4b"))
    made = recipes(preset("4b"))
    empty = {name for name, _ in model.named_parameters() if name not in made}
    assert {name.rsplit(".", 1)[0] for name in empty} == {
        "media_in.video",
        "media_in.audio",
        "media_out.video",
        "media_out.audio",
        "projector.0",
        "projector.2",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guidance_embeds": True}, r"distilled for guidance .* FLUX.2 \[klein\] can be read"),
        ({"_class_name": "FluxTransformer2DModel"}, "describes a FluxTransformer2DModel; only Flux2Transformer2DModel"),
        ({"eps": 1e-5}, "eps is 1e-05, but our layers have 1e-06 built in"),
        ({"patch_size": 2}, "patch_size is 2"),
        ({"out_channels": 64}, "out_channels is 64, but images have 128"),
        ({"axes_dims_rope": [64, 64]}, "rope_axes needs four even widths"),
        ({"num_layers": "five"}, "is not a config of Flux2Transformer2DModel"),
    ],
)
def test_other_variants_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        joint_config_from_flux2({**KLEIN_4B, **change})


def _tiny_checkpoint(folder: Path) -> Path:
    """Enough of a checkpoint for what must be refused before a weight is read."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_class_name": "Flux2Transformer2DModel", **SMALL}))
    save_file({"x_embedder.weight": torch.zeros(32, 8)}, folder / "diffusion_pytorch_model.safetensors")
    return folder


def test_broken_checkpoints_are_refused_in_one_sentence(tmp_path: Path) -> None:
    good = _tiny_checkpoint(tmp_path / "good")
    model = JointTransformer(read_flux2_config(good))
    assert list(load_flux2(model, good).taken) == ["media_in.image.weight"]

    def refused(name: str, message: str, change) -> None:
        folder = tmp_path / name
        shutil.copytree(good, folder)
        change(folder)
        with pytest.raises(UserError, match=message):
            load_flux2(model, folder)

    weights = "diffusion_pytorch_model.safetensors"
    refused("empty", "holds no Flux2Transformer2DModel", lambda f: (f / "config.json").unlink())
    refused("json", "config.json is broken", lambda f: (f / "config.json").write_text("{"))
    refused("none", "holds neither diffusion_pytorch_model.safetensors nor", lambda f: (f / weights).unlink())
    refused("cut", "is not a readable safetensors file", lambda f: (f / weights).write_bytes(b"1234567890"))

    def sharded(index: Any) -> Any:
        def change(folder: Path) -> None:
            (folder / weights).rename(folder / "one.safetensors")
            (folder / f"{weights}.index.json").write_text(json.dumps(index))

        return change

    refused("no-map", "is not an index", sharded({"weights": {}}))
    refused("no-shard", "lists two.safetensors, which is missing", sharded({"weight_map": {"a": "two.safetensors"}}))
    refused("no-name", "the index names 'a' in one.safetensors", sharded({"weight_map": {"a": "one.safetensors"}}))

    wide = json.loads((good / "config.json").read_text()) | {"num_attention_heads": 4}
    refused("wide", "width is 64 there and 32 here", lambda f: (f / "config.json").write_text(json.dumps(wide)))
