"""Decoders: latents of the ImageNet transformer to pixels.

A decoder is any function from latents ``(B, C, H, W)`` float32, as the transformer models them (SD-VAE latents are
scaled by 0.18215), to uint8 pixels ``(B, H', W', 3)`` on any device. Named on the command line:

    sd-vae                stabilityai/sd-vae-ft-ema from the hub's cache, which the released weights were trained with
    sd-vae:FOLDER_OR_ID   an AutoencoderKL saved by diffusers
    module:function       your own
    latents               none: the latents themselves are written
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError

Decoder = Callable[[Tensor], Tensor]

LATENTS = "latents"
SD_VAE = "stabilityai/sd-vae-ft-ema"


def load_decoder(spec: str, device: torch.device | str = "cpu") -> Decoder | None:
    """The decoder of a name (see the module's docstring), or None for ``latents``.

    Raises:
        UserError: an unknown name, a missing package, weights that are not on this machine.
    """
    if spec == LATENTS:
        return None
    kind, _, rest = spec.partition(":")
    if kind == "sd-vae":
        return StableDiffusionVAE(rest or SD_VAE, device)
    if rest:
        return _own(kind, rest)
    raise UserError(f"there is no decoder '{spec}'; name sd-vae, sd-vae:FOLDER_OR_ID, module:function or latents")


class StableDiffusionVAE:
    """The decoder half of a diffusers ``AutoencoderKL``, in float32, a few images at a time.

    Args:
        source: a folder, or the id of a model in the hub's cache; nothing is downloaded.
        device: where to decode.

    Raises:
        UserError: diffusers or the weights are missing.
    """

    def __init__(self, source: str, device: torch.device | str = "cpu") -> None:
        from selfflow_tokenizers.pretrained.stable_diffusion import StableDiffusionCodec

        try:
            codec = StableDiffusionCodec.from_pretrained(source)
        except UserError as error:
            raise UserError(f"{error}; or take --decoder latents, which decodes nothing") from error
        self.codec = codec.to(device)
        self.mean, self.deviation = (values.to(device) for values in codec.statistics())

    @torch.inference_mode()
    def __call__(self, latents: Tensor) -> Tensor:
        raw = latents.permute(0, 2, 3, 1).float() * self.deviation + self.mean
        images = self.codec.decode(raw[:, None])[:, 0]
        # [-1, 1] to 0..255, rounded to nearest.
        return (127.5 * images + 127.5).round().clamp(0, 255).to(torch.uint8)


def check_decoder(decoder: Decoder, spec: str, latents: Tensor) -> tuple[int, ...]:
    """Decode ``latents`` once and say the shape of an image, ``(H, W, 3)``.

    Raises:
        UserError: the decoder does not take these latents, or gives something else than uint8 ``(B, H, W, 3)``.
    """
    shape = tuple(latents.shape[1:])
    try:
        images = decoder(latents)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"the decoder {spec} fails on latents of shape {shape}: {reason}") from error
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != 3:
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise UserError(f"the decoder {spec} must give uint8 pixels (B, H, W, 3), it gives {got}")
    return tuple(images.shape[1:])


def _own(module: str, name: str) -> Decoder:
    # A console script has its own folder on the path instead of the one it is called in.
    sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise UserError(f"the decoder {module}:{name} cannot be imported: {error}") from error
    finally:
        sys.path.pop(0)
    if not callable(function):
        raise UserError(f"the decoder {module}:{name}: {module} has no function {name}")
    return function
