"""Adapters to pretrained autoencoders of diffusers and transformers (extra ``pretrained``).

To add one: a subclass of :class:`~.base.PretrainedCodec` in a file here, and its line in :data:`ADAPTERS`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from .base import PretrainedCodec

#: name -> file in this folder and class; files are imported when first used.
ADAPTERS: dict[str, tuple[str, str]] = {
    "sd-vae": ("stable_diffusion", "StableDiffusionCodec"),
    "flux2": ("flux2", "Flux2Codec"),
    "dc-ae": ("dc_ae", "DeepCompressionCodec"),
    "rae": ("rae", "RepresentationCodec"),
    "wan2.2": ("wan", "WanCodec"),
    "ltx2-video": ("ltx2_video", "LTX2VideoCodec"),
    "ltx2-audio": ("ltx2_audio", "LTX2AudioCodec"),
    "oobleck": ("oobleck", "OobleckCodec"),
    "avae": ("avae", "AVAECodec"),
    "dac": ("dac", "DACCodec"),
    "mimi": ("mimi", "MimiCodec"),
}


def adapter(name: str) -> type[PretrainedCodec]:
    """The adapter of a name.

    Raises:
        UserError: there is none.
    """
    if name not in ADAPTERS:
        raise UserError(f"there is no pretrained tokenizer '{name}'; there are {', '.join(ADAPTERS)}")
    file, cls = ADAPTERS[name]
    return getattr(import_module(f".{file}", __name__), cls)
