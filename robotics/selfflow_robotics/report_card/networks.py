"""The small network that judges films: trained on true pictures only, on the CPU, within minutes, from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..resizing import resize

__all__ = ["SIZE", "Fitting", "apply", "fit", "shrunk"]

#: (height, width) that pictures are brought to.
SIZE = (64, 80)
_CHANNELS = (16, 32, 64, 96)
_RATE, _DECAY = 1e-3, 1e-2
_SHIFT = 3  # pixels: in training all pictures of an update are moved by up to so many, edges repeated


@dataclass(frozen=True)
class Fitting:
    """How long a network learns.

    Attributes:
        updates: of AdamW, learning rate 0.001 falling to 0 in a half cosine.
        batch: examples in each.
    """

    updates: int = 600
    batch: int = 64


class SmallNetwork(nn.Module):
    """``(B, C, 64, 80)`` -> ``(B, outputs)``.

    Four convolutions of stride 2, the first of which also sees where it is (Liu et al. 2018, "CoordConv"); no
    normalisation, so a picture's answer depends on nothing else in its batch.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        widths = (channels + 2, *_CHANNELS)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(narrow, wide, 3, stride=2, padding=1)
            for narrow, wide in zip(widths[:-1], widths[1:], strict=True)
        )
        cells = SIZE[0] * SIZE[1] // 4 ** len(_CHANNELS)
        self.head = nn.Sequential(nn.Linear(_CHANNELS[-1] * cells, 128), nn.GELU(), nn.Linear(128, outputs))
        rows, columns = torch.linspace(-1, 1, SIZE[0]), torch.linspace(-1, 1, SIZE[1])
        self.register_buffer("where", torch.stack(torch.meshgrid(rows, columns, indexing="ij")), persistent=False)
        self.where: Tensor

    def forward(self, pictures: Tensor) -> Tensor:
        x = torch.cat([pictures, self.where.expand(len(pictures), -1, -1, -1)], dim=1)
        for convolution in self.convolutions:
            x = F.gelu(convolution(x))
        return self.head(x.flatten(1))


def shrunk(pictures: np.ndarray) -> np.ndarray:
    """``(..., h, w, 3)`` uint8 -> ``(..., 3, 64, 80)`` uint8, what the network sees of a picture."""
    return np.ascontiguousarray(np.moveaxis(resize(pictures, SIZE, "stretch"), -1, -3))


def fit(
    pictures: np.ndarray,
    rows: np.ndarray,
    targets: np.ndarray,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    seed: int,
    how: Fitting,
    progress: Callable[[int, int], None] = lambda done, planned: None,
) -> SmallNetwork:
    """Train a network on some pictures beside one another.

    Args:
        pictures: ``(P, 3, 64, 80)`` uint8.
        rows: ``(n, k)`` integers: example i sees the k pictures ``rows[i]``, and how they differ from the first.
        targets: ``(n, outputs)`` float32.
        loss: of outputs and targets.
        seed: of the initial weights and the order; the same gives the same network on the same machine.
        how: how long.
        progress: called with updates done and planned.
    """
    random = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallNetwork(3 * (2 * rows.shape[1] - 1), targets.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    wanted = torch.from_numpy(targets)
    for update in range(how.updates):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 + math.cos(math.pi * update / how.updates)) / 2
        chosen = random.integers(0, len(rows), how.batch)
        optimizer.zero_grad()
        loss(network(_input(_shifted(pictures[rows[chosen]], random))), wanted[torch.from_numpy(chosen)]).backward()
        optimizer.step()
        progress(update + 1, how.updates)
    return network.eval()


@torch.no_grad()
def apply(network: SmallNetwork, pictures: np.ndarray, rows: np.ndarray, at_once: int = 256) -> np.ndarray:
    """``(n, outputs)`` float32 of the examples that ``rows`` names, as in :func:`fit`."""
    parts = [network(_input(pictures[rows[i : i + at_once]])) for i in range(0, len(rows), at_once)]
    return torch.cat(parts).numpy()


def _shifted(chosen: np.ndarray, random: np.random.Generator) -> np.ndarray:
    down, right = random.integers(-_SHIFT, _SHIFT + 1, 2)
    rows, columns = (np.clip(np.arange(size) + by, 0, size - 1) for size, by in zip(SIZE, (down, right), strict=True))
    return chosen[..., rows[:, None], columns]


def _input(chosen: np.ndarray) -> Tensor:
    """``(n, k, 3, 64, 80)`` uint8 -> the k pictures and what the later ones differ by from the first, which spares the
    network learning to subtract.
    """
    scaled = torch.from_numpy(chosen).float() / 127.5 - 1
    return torch.cat([scaled, scaled[:, 1:] - scaled[:, :1]], dim=1).flatten(1, 2)
