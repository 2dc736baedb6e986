"""The three small networks that read pictures of the bundled world: pixels, objects and writing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selfflow_mm.data.world.vocabulary import COLOURS, MATERIALS, SHAPES

#: What a pixel can show; from ``PAINTED`` on, an object of a colour.
PIXELS: tuple[str, ...] = ("room", "sign", "screen", *COLOURS)
SIGN, SCREEN, PAINTED = 1, 2, 3
#: Side of the square around an object, pixels; the widest, a block, has 27.
CROP = 32
#: What a column of a strip of writing can show: nothing, or one of the letters.
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: Height and width in pixels of a strip of writing; the strip of a sign of four letters is 36 wide.
STRIP_HEIGHT, STRIP_WIDTH = 13, 40


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.ReLU())


class PixelReader(nn.Module):
    """A U-Net over half the resolution, whose outputs are shuffled back to whole pixels.

    ``forward``: float32 frames ``(N, 3, H, W)`` in [0, 1], sides multiples of 8 -> logits ``(N, 11, H, W)`` of what
    each pixel shows, in the order of :data:`PIXELS`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(_block(12, 24), _block(24, 24))
        self.middle = nn.Sequential(_block(24, 40), _block(40, 40))
        self.coarse = nn.Sequential(_block(40, 64), _block(64, 64))
        self.up_middle = _block(64 + 40, 40)
        self.up_fine = _block(40 + 24, 32)
        self.head = nn.Conv2d(32, 4 * len(PIXELS), 1)

    def forward(self, frames: Tensor) -> Tensor:
        fine = self.fine(F.pixel_unshuffle(frames - 0.5, 2))
        middle = self.middle(F.max_pool2d(fine, 2))
        coarse = self.coarse(F.max_pool2d(middle, 2))
        middle = self.up_middle(torch.cat([F.interpolate(coarse, scale_factor=2), middle], 1))
        fine = self.up_fine(torch.cat([F.interpolate(middle, scale_factor=2), fine], 1))
        return F.pixel_shuffle(self.head(fine), 2)


class ObjectReader(nn.Module):
    """Names the shape and material of one object.

    ``forward``: ``(N, 4, 32, 32)``, a square of the picture around an object's middle in [0, 1] and how probable it is
    that each pixel is of its colour -> logits ``(N, 5)`` of shapes and ``(N, 4)`` of materials.
    """

    def __init__(self) -> None:
        super().__init__()
        half = nn.MaxPool2d(2)
        self.net = nn.Sequential(_block(4, 16), half, _block(16, 32), half, _block(32, 48), half)
        self.head = nn.Sequential(
            nn.Linear(48 * (CROP // 8) ** 2, 96), nn.ReLU(), nn.Linear(96, len(SHAPES) + len(MATERIALS))
        )

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        shape, material = self.head(self.net(crops - 0.5).flatten(1)).split((len(SHAPES), len(MATERIALS)), 1)
        return shape, material


class WordReader(nn.Module):
    """Reads a strip of writing column by column.

    ``forward``: strips ``(N, 3, 13, 40)`` in [0, 1] -> logits ``(N, 27, 40)`` of nothing (0) or the letter (1 to 26)
    whose middle is at that column, give or take two pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        lower = nn.MaxPool2d((2, 1))  # columns stay columns
        self.net = nn.Sequential(_block(3, 16), lower, _block(16, 32), lower, _block(32, 48))
        self.head = nn.Sequential(
            nn.Conv1d(48 * 3, 96, 5, padding=2), nn.ReLU(), nn.Conv1d(96, 1 + len(LETTERS), 3, padding=1)
        )

    def forward(self, strips: Tensor) -> Tensor:
        return self.head(self.net(strips - 0.5).flatten(1, 2))


def cut(picture: Tensor, left: int, top: int, width: int = STRIP_WIDTH, height: int = STRIP_HEIGHT) -> Tensor:
    """A rectangle of ``(H, W, C)``, continued with the border's pixels where it leaves the picture."""
    rows = torch.arange(top, top + height).clamp(0, picture.shape[0] - 1)
    columns = torch.arange(left, left + width).clamp(0, picture.shape[1] - 1)
    return picture[rows][:, columns]


def crop(picture: Tensor, x: float, y: float) -> Tensor:
    """The square around a place, ``(H, W, C)`` to ``(CROP, CROP, C)``."""
    return cut(picture, round(x - CROP / 2), round(y - CROP / 2), CROP, CROP)
