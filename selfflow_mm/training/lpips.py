"""LPIPS: how different two pictures look, by the features of a network that tells objects apart.

Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR
2018, eq. 1, with VGG16 and the authors' weights of version 0.1. Two files in one folder hold what it needs:

- ``vgg16*.pth`` or ``vgg16*.safetensors``: torchvision's VGG16, trained on ImageNet (its classifier is not read);
- ``vgg.pth`` or ``vgg.safetensors``: the learned weights of the five layers, from ``lpips/weights/v0.1`` of the
  authors' package.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError

#: The convolutions of VGG16 by their places in torchvision's ``features``, up to relu1_2, 2_2, 3_3, 4_3 and 5_3.
STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
#: Pixels in [-1, 1] -> VGG16's input: ImageNet's mean and deviation, stated for that range.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
#: Pixels a side must have for the last stage to see one.
SMALLEST = 16


class Lpips(nn.Module):
    """The distance of pictures; frozen, but gradients pass to the pictures.

    Args:
        vgg: torchvision's state dict of VGG16 (``features.0.weight``, ...).
        linear: weights of the layers, ``lin0.model.1.weight`` ``(1, C, 1, 1)`` to ``lin4...``, not negative.
    """

    def __init__(self, vgg: Mapping[str, Tensor], linear: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict({str(i): _convolution(vgg, i) for stage in STAGES for i in stage})
        for i, stage in enumerate(STAGES):
            weight = linear[f"lin{i}.model.1.weight"].float().view(1, -1, 1, 1)
            if weight.shape[1] != vgg[f"features.{stage[-1]}.bias"].shape[0]:
                raise KeyError(f"lin{i} has {weight.shape[1]} channels")
            self.register_buffer(f"linear{i}", weight.clone())
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Pictures ``(B, 3, H, W)`` in [-1, 1], sides of 16 pixels or more -> distances ``(B,)``; 0 is the same."""
        total = output.new_zeros(len(output))
        for i, (a, b) in enumerate(zip(self.features(output), self.features(target), strict=True)):
            # eq. 1: squared differences of features of unit length, weighted by channel, averaged over the picture.
            difference = (_unit(a) - _unit(b)).square() * self.get_buffer(f"linear{i}")
            total = total + difference.sum(1).mean((1, 2))
        return total

    def features(self, pictures: Tensor) -> list[Tensor]:
        """What the five stages see, ``(B, C, H / 2^i, W / 2^i)`` each."""
        x = (pictures - self.get_buffer("shift")) / self.get_buffer("scale")
        seen = []
        for i, stage in enumerate(STAGES):
            x = F.max_pool2d(x, 2) if i else x
            for place in stage:
                x = F.relu(self.convolutions[str(place)](x))
            seen.append(x)
        return seen


def _convolution(vgg: Mapping[str, Tensor], place: int) -> nn.Conv2d:
    weight, bias = vgg[f"features.{place}.weight"], vgg[f"features.{place}.bias"]
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def _unit(x: Tensor) -> Tensor:
    # vector_norm has a gradient of 0 where all channels are 0 (black pictures); the root of a sum has none.
    x = x.float()
    return x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-10)


def lpips_folder() -> Path:
    """Where LPIPS is looked for: ``$SELFFLOW_WEIGHTS/lpips``, else ``~/.cache/selfflow/lpips``."""
    root = os.environ.get("SELFFLOW_WEIGHTS")
    return (Path(root) if root else Path.home() / ".cache/selfflow").expanduser() / "lpips"


def lpips_files(folder: Path) -> tuple[Path, Path] | None:
    """VGG16's weights and the layers' weights in ``folder``; None where one of them is missing."""
    vgg = [path for end in ("safetensors", "pth") for path in sorted(folder.glob(f"vgg16*.{end}"))]
    linear = [path for end in ("safetensors", "pth") if (path := folder / f"vgg.{end}").is_file()]
    return (vgg[0], linear[0]) if vgg and linear else None


def where_to_put(folder: Path) -> str:
    """One sentence for those who want LPIPS and have no weights of it."""
    return (
        f"LPIPS needs vgg16-397923af.pth (https://download.pytorch.org/models/vgg16-397923af.pth) and vgg.pth "
        f"(lpips/weights/v0.1 of the Python package lpips) in {folder}"
    )


def load_lpips(folder: Path) -> Lpips:
    """Read the two weight files in ``folder``.

    Raises:
        UserError: one is missing, or is not what its name says.
    """
    files = lpips_files(folder)
    if files is None:
        raise UserError(where_to_put(folder))
    try:
        return Lpips(_read(files[0]), _read(files[1]))
    except (KeyError, RuntimeError, AttributeError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder}: {files[0].name} and {files[1].name} are no weights of LPIPS: {reason}") from error


def _read(file: Path) -> Mapping[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, EOFError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} cannot be read as weights: {reason}") from error
    except Exception as error:  # what unpickling raises where a file holds more than tensors
        raise UserError(f"{file} is no file of tensors alone: {type(error).__name__}") from error
