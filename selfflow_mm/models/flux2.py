"""FLUX.2's open weights in diffusers' format, taken over into a joint transformer.

Our joint transformer has FLUX.2's layout, so the blocks carry over whole: queries, keys and values of double blocks
become one matrix, the output norm's (scale, shift) become our (shift, scale). FLUX.2 has images and text only; the
layers of other modalities and the projector start fresh. Both sides call noise t = 1 and predict noise - data; the text
tokens are told the image's level. Positions (t, h, w, l) are our (seconds x time_rate, row, column, index).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import UserError
from .joint import JointConfig, JointTransformer
from .transfer import InitReport, Recipe, TensorFiles, differences, read_json, take_over

CLASS_NAME = "Flux2Transformer2DModel"
WEIGHTS = "diffusion_pytorch_model"

#: Fields that must agree for the weights to mean the same, shapes aside.
_MEANING = ("width", "heads", "double_blocks", "single_blocks", "mlp_ratio", "rope_axes", "rope_theta")
#: What our layers have built in: key of FLUX.2's config -> the value it must have.
_BUILT_IN = {"patch_size": 1, "eps": 1e-6, "timestep_guidance_channels": 256}


def find_flux2(folder: Path) -> Path | None:
    """The folder of the transformer in ``folder``, a pipeline of diffusers or the transformer itself; or None."""
    for candidate in (folder / "transformer", folder):
        about = candidate / "config.json"
        if about.is_file() and read_json(about).get("_class_name") == CLASS_NAME:
            return candidate
    return None


def joint_config_from_flux2(about: Mapping[str, Any], where: str = "config.json") -> JointConfig:
    """The shape of a FLUX.2 transformer as ours: images and text, no biases.

    Args:
        about: its ``config.json``; keys that are missing have diffusers' defaults.
        where: named in errors.

    Raises:
        UserError: another class; a guidance-distilled variant, whose velocity depends on an input ours has not; or a
            setting our layers do not have.
    """
    if about.get("_class_name", CLASS_NAME) != CLASS_NAME:
        raise UserError(f"{where} describes a {about['_class_name']}; only {CLASS_NAME} can be read")
    s: dict[str, Any] = {**_DEFAULTS, **{k: v for k, v in about.items() if v is not None}}
    if s["guidance_embeds"]:
        raise UserError(
            f"{where}: this model was distilled for guidance (guidance_embeds is true): it takes the guidance's "
            "strength as an input that our transformer has not; FLUX.2 [klein] can be read"
        )
    for key, value in _BUILT_IN.items():
        if s[key] != value:
            raise UserError(f"{where}: {key} is {s[key]}, but our layers have {value} built in")
    channels = s["in_channels"]
    if s.get("out_channels", channels) != channels:
        raise UserError(f"{where}: out_channels is {s['out_channels']}, but images have {channels} channels")
    try:
        return JointConfig(
            width=int(s["num_attention_heads"]) * int(s["attention_head_dim"]),
            heads=int(s["num_attention_heads"]),
            double_blocks=int(s["num_layers"]),
            single_blocks=int(s["num_single_layers"]),
            mlp_ratio=float(s["mlp_ratio"]),
            rope_axes=tuple(int(a) for a in s["axes_dims_rope"]),  # type: ignore[arg-type]
            rope_theta=float(s["rope_theta"]),
            bias=False,
            qkv_bias=False,
            modalities={"image": int(channels)},
            text_channels=int(s["joint_attention_dim"]),
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} is not a config of {CLASS_NAME}: {error}") from None


def read_flux2_config(folder: Path) -> JointConfig:
    """The config of the transformer in ``folder``; see :func:`joint_config_from_flux2`."""
    found = find_flux2(folder)
    if found is None:
        raise UserError(f"{folder} holds no {CLASS_NAME} of diffusers (a config.json that says so, here or below)")
    return joint_config_from_flux2(read_json(found / "config.json"), str(found / "config.json"))


def load_flux2(model: JointTransformer, folder: Path) -> InitReport:
    """Fill ``model`` with what fits of the FLUX.2 transformer in ``folder``.

    Args:
        model: of any shape; the ``4b`` preset with an image modality of 128 and text of 7680 channels takes all of
            FLUX.2 [klein] 4B.
        folder: a pipeline of diffusers (with ``transformer/``) or the transformer's folder: ``config.json`` and
            safetensors, whole or in shards.

    Raises:
        UserError: no such checkpoint, a broken one, or one of another width, of which nothing would fit.
    """
    theirs = read_flux2_config(folder)
    found = find_flux2(folder)
    assert found is not None
    here, there = asdict(model.config), asdict(theirs)
    if here["width"] != there["width"]:
        raise UserError(f"{found}: width is {there['width']} there and {here['width']} here, so nothing fits")
    notes = differences({k: here[k] for k in _MEANING}, there)
    if here["text_channels"] != there["text_channels"]:
        notes.append(f"its text encoder gives {there['text_channels']} channels, ours {here['text_channels']}")
    if here["modalities"].get("image") != there["modalities"]["image"]:
        channels = here["modalities"].get("image")
        ours = f"ours have {channels}" if channels else "this model has none"
        notes.append(f"its images have {there['modalities']['image']} channels, {ours}")
    if model.config.isolate_conditions:
        notes.append("its text sees the image, this model's does not (isolate_conditions)")
    files = TensorFiles.in_folder(found, WEIGHTS)
    return take_over(model, files, recipes(model.config), str(folder), notes)


def recipes(config: JointConfig) -> dict[str, Recipe]:
    """Name of ours -> FLUX.2's tensors it is made of, in diffusers' names."""
    table: dict[str, tuple[str, ...]] = {
        "level.up": ("time_guidance_embed.timestep_embedder.linear_1",),
        "level.down": ("time_guidance_embed.timestep_embedder.linear_2",),
        "text_in": ("context_embedder",),
        "media_in.image": ("x_embedder",),
        "media_out.image": ("proj_out",),
        "text_modulation.linear": ("double_stream_modulation_txt.linear",),
        "media_modulation.linear": ("double_stream_modulation_img.linear",),
        "single_modulation.linear": ("single_stream_modulation.linear",),
    }
    for i in range(config.double_blocks):
        theirs = f"transformer_blocks.{i}"
        for stream, qkv, out, feed in (
            ("media", ("to_q", "to_k", "to_v"), "to_out.0", "ff"),
            ("text", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out", "ff_context"),
        ):
            ours = f"double_blocks.{i}.{stream}"
            table[f"{ours}.qkv"] = tuple(f"{theirs}.attn.{name}" for name in qkv)
            table[f"{ours}.proj"] = (f"{theirs}.attn.{out}",)
            table[f"{ours}.mlp.up"] = (f"{theirs}.{feed}.linear_in",)
            table[f"{ours}.mlp.down"] = (f"{theirs}.{feed}.linear_out",)
    for i in range(config.single_blocks):
        ours, theirs = f"single_blocks.{i}", f"single_transformer_blocks.{i}.attn"
        table[f"{ours}.up"], table[f"{ours}.down"] = (f"{theirs}.to_qkv_mlp_proj",), (f"{theirs}.to_out",)
    made = {f"{ours}.weight": Recipe(tuple(f"{n}.weight" for n in theirs)) for ours, theirs in table.items()}
    made["out_modulation.linear.weight"] = Recipe(("norm_out.linear.weight",), swap=True)
    for i in range(config.double_blocks):
        for stream, added in (("media", ""), ("text", "added_")):
            for which in ("query", "key"):
                name = f"transformer_blocks.{i}.attn.norm_{added}{which[0]}.weight"
                made[f"double_blocks.{i}.{stream}.norm.{which}.scale"] = Recipe((name,))
    for i in range(config.single_blocks):
        for which in ("query", "key"):
            name = f"single_transformer_blocks.{i}.attn.norm_{which[0]}.weight"
            made[f"single_blocks.{i}.norm.{which}.scale"] = Recipe((name,))
    return made


#: What diffusers takes where config.json is silent.
_DEFAULTS: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 128,
    "num_layers": 8,
    "num_single_layers": 48,
    "attention_head_dim": 128,
    "num_attention_heads": 48,
    "joint_attention_dim": 15360,
    "timestep_guidance_channels": 256,
    "mlp_ratio": 3.0,
    "axes_dims_rope": (32, 32, 32, 32),
    "rope_theta": 2000,
    "eps": 1e-6,
    "guidance_embeds": True,
}
