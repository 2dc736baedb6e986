"""Named shapes of the joint transformer, as data.

Counting convention, the same for every preset: all parameters that sampling needs, so without the projector, which
serves training only; one input and one output layer for image, video and audio tokens of 128, 48 and 64 channels (the
autoencoders of FLUX.2, Wan2.2 and Songbloom); text of 7680 channels (FLUX.2 [klein] 4B's text encoder; the paper names
none). ``tiny`` is counted with the channels it ships with.

What is the paper's (app. A.3): width 1152, 16 heads, MLP ratio 4, SwiGLU, biases on q, k and v, RoPE with 24 channels
for each of time, row and column, 7 double- and 14 single-stream blocks for 625 M, and total depths 8, 14, 21 and 28 for
its scaling runs of 290 M, 420 M, 625 M and 1 B. How the other depths split into double and single blocks is not
published. We keep the width and let the split follow from the name: at width 1152 a double block has 42.5 M parameters
and a single one 21.2 M, so the total depth leaves one split each within 2 % of the name (1 B has two, 17 + 11 and
18 + 10). ``4b`` is the open FLUX.2 [klein] 4B.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch

from ..config import register_presets
from ..errors import UserError
from .joint import JointConfig, JointTransformer

#: Channels the counts are stated for: modality -> channels of its tokens, and channels of the text tokens.
MODALITIES: dict[str, int] = {"image": 128, "video": 48, "audio": 64}
TEXT_CHANNELS = 7680

PAPER = "the paper"
OURS = "ours"
FLUX2 = "FLUX.2 [klein] 4B's config.json"

#: What all sizes of the paper's family share.
_FAMILY: dict[str, Any] = {
    "width": 1152,
    "heads": 16,
    "mlp_ratio": 4.0,
    "bias": False,
    "qkv_bias": True,
    "rope_axes": (24, 24, 24, 0),
    "rope_theta": 2000.0,
    "time_rate": 24.0,
    "projector_ratio": 2.0,
    "absolute_positions": False,
}

#: Name -> the fields of JointConfig it sets: everything that shapes the blocks. Channels come from the tokenizers.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "width": 192,
        "heads": 4,
        "double_blocks": 2,
        "single_blocks": 4,
        "mlp_ratio": 2.0,
        "bias": True,
        "qkv_bias": True,
        "rope_axes": (24, 10, 10, 4),
        "rope_theta": 100.0,
        "time_rate": 96.0,
        "projector_ratio": 1.0,
        "absolute_positions": True,
    },
    "290m": {**_FAMILY, "double_blocks": 4, "single_blocks": 4},
    "420m": {**_FAMILY, "double_blocks": 4, "single_blocks": 10},
    "625m": {**_FAMILY, "double_blocks": 7, "single_blocks": 14},
    "675m": {**_FAMILY, "double_blocks": 8, "single_blocks": 14},
    "1b": {**_FAMILY, "double_blocks": 18, "single_blocks": 10},
    "4b": {
        "width": 3072,
        "heads": 24,
        "double_blocks": 5,
        "single_blocks": 20,
        "mlp_ratio": 3.0,
        "bias": False,
        "qkv_bias": False,
        "rope_axes": (32, 32, 32, 32),
        "rope_theta": 2000.0,
        "time_rate": 24.0,
        "projector_ratio": 2.0,
        "absolute_positions": False,
    },
}

#: One line for each preset.
ABOUT: dict[str, str] = {
    "tiny": "the shape of the bundled model, which trains on two CPU cores",
    "290m": "the paper's scaling run of total depth 8",
    "420m": "the paper's scaling run of total depth 14",
    "625m": "the paper's model for image, video and sound",
    "675m": "one double block more than 625m: the size of the robot's model",
    "1b": "the paper's scaling run of total depth 28",
    "4b": "the shape of FLUX.2 [klein] 4B, whose open weights it can start from (init: FOLDER)",
}

_FAMILY_SOURCES = {
    "width": PAPER,
    "heads": PAPER,
    "mlp_ratio": PAPER,
    "bias": f"{OURS}: the paper names biases of q, k and v only",
    "qkv_bias": PAPER,
    "rope_axes": f"{PAPER} (app. A.3), which leaves none to the order of text",
    "rope_theta": f"{OURS}, FLUX.2's value",
    "time_rate": f"{OURS}: latents .04 s apart turn by about one radian",
    "projector_ratio": "the paper's released ImageNet weights",
    "absolute_positions": f"{PAPER} names rotary ones only",
}
_SPLIT = {name: f"{OURS}: {PAPER} gives the total depth, the count gives the split" for name in ("single", "double")}
_SCALING = {**_FAMILY_SOURCES, **{f"{name}_blocks": text for name, text in _SPLIT.items()}}
_OPEN_FIELDS = ("width", "heads", "double_blocks", "single_blocks", "mlp_ratio", "rope_axes", "rope_theta", "bias")

#: Preset -> field -> where its value comes from.
SOURCES: dict[str, dict[str, str]] = {
    "tiny": {name: OURS for name in PRESETS["tiny"]},
    "290m": _SCALING,
    "420m": _SCALING,
    "625m": {**_FAMILY_SOURCES, "double_blocks": PAPER, "single_blocks": PAPER},
    "675m": {**_FAMILY_SOURCES, "double_blocks": f"{OURS}: one more than 625m", "single_blocks": PAPER},
    "1b": _SCALING,
    "4b": {
        **{name: FLUX2 for name in (*_OPEN_FIELDS, "qkv_bias")},
        "time_rate": f"{OURS}: FLUX.2 makes no video",
        "projector_ratio": "the paper's released ImageNet weights",
        "absolute_positions": FLUX2,
    },
}

#: The channels of the bundled model's own tokenizers and text encoder.
_TINY_CHANNELS: tuple[dict[str, int], int] = ({"image": 96, "video": 96, "audio": 64}, 192)


def channels_of(name: str) -> tuple[dict[str, int], int]:
    """The channels preset ``name`` is counted with: per modality, and of text."""
    modalities, text = _TINY_CHANNELS if name == "tiny" else (MODALITIES, TEXT_CHANNELS)
    return dict(modalities), text


def preset(
    name: str, *, modalities: Mapping[str, int] | None = None, text_channels: int | None = None, **changes: Any
) -> JointConfig:
    """The named preset as a config that can be built.

    Args:
        name: one of :data:`PRESETS`.
        modalities: modality -> channels of its tokens; the counting convention's unless given.
        text_channels: of the text tokens; likewise.
        changes: any other field of :class:`JointConfig`, in place of the preset's value.

    Raises:
        UserError: there is no such preset (the nearest is named), or the changes make it impossible.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name.lower(), PRESETS, n=1, cutoff=0.5)
        hint = f"the nearest is '{near[0]}'" if near else f"there are {', '.join(PRESETS)}"
        raise UserError(f"there is no preset '{name}' of the joint transformer; {hint}")
    counted, counted_text = channels_of(name)
    channels = {
        "modalities": dict(counted if modalities is None else modalities),
        "text_channels": counted_text if text_channels is None else text_channels,
    }
    return JointConfig(**{"preset": name, **PRESETS[name], **channels, **changes})


def count_parameters(config: JointConfig) -> dict[str, int]:
    """Exact parameters by top-level part, the projector included, from a model that takes no memory (meta device)."""
    with torch.device("meta"):
        model = JointTransformer(config)
    return {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}


def counted(counts: Mapping[str, int]) -> int:
    """The count by this page's convention: everything but the projector."""
    return sum(count for part, count in counts.items() if part != "projector")


register_presets(JointConfig, PRESETS)
