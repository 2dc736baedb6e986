"""Objects followed over the frames of a clip: connected pixels of one colour, linked from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from selfflow_mm.data.world.vocabulary import COLOURS, MATERIALS, SHAPES
from selfflow_tokenizers.media import Video

from .reader import Reader
from .reader_net import PAINTED, SCREEN, crop

#: Fewer connected pixels are no part of an object. The smallest whole object has 120.
SPECK = 12
#: An object shows so many pixels in some frame, and is seen in so many frames.
OBJECT, FRAMES_SEEN = 60, 3
#: Pixels that an object may move between two frames (the fastest falls 7); it is looked for in so many frames.
_STRIDE, _PATIENCE = 13.0, 6
#: Share of its whole area from which on an object counts as whole, and as there.
WHOLE, THERE = 0.82, 0.5


@dataclass(frozen=True)
class Track:
    """One object over the ``T`` frames of a clip.

    Attributes:
        colour: its name.
        area: pixels in each frame, ``(T,)``, those in doubt in part; 0 where it is not seen.
        place: x and y of their mean, ``(T, 2)``, NaN where it is not seen.
        cut: bool ``(T,)``: it touches the picture's border or the screen, so a part of it may be out of sight.
        box: left, top, right, bottom (excluded) ``(T, 4)``, whole pixels.
        shapes, materials: log-probabilities, ``(T, 5)`` and ``(T, 4)``.
    """

    colour: str
    area: np.ndarray
    place: np.ndarray
    cut: np.ndarray
    box: np.ndarray
    shapes: np.ndarray
    materials: np.ndarray

    @property
    def size(self) -> float:
        """Its whole area: the median over frames in which nothing cuts it, else its largest."""
        free = self.area[(self.area > 0) & ~self.cut]
        return float(np.median(free)) if len(free) else float(self.area.max())

    @property
    def there(self) -> np.ndarray:
        """Bool ``(T,)``: at least half of it is seen."""
        return self.area >= THERE * self.size

    @property
    def whole(self) -> np.ndarray:
        """Bool ``(T,)``: nothing cuts it, so that its place can be trusted."""
        return (self.area >= WHOLE * self.size) & ~self.cut

    @property
    def shape(self) -> str:
        """The most probable shape over all frames in which it is whole."""
        return SHAPES[int(self._mean(self.shapes).argmax())]

    @property
    def material(self) -> str:
        """The most probable material, by its look."""
        return MATERIALS[int(self._mean(self.materials).argmax())]

    def _mean(self, scores: np.ndarray) -> np.ndarray:
        frames = self.whole if self.whole.any() else self.area > 0
        return scores[frames].mean(axis=0)


@dataclass(frozen=True)
class _Piece:
    frame: int
    area: float
    place: np.ndarray
    cut: bool
    box: tuple[int, int, int, int]


def follow(video: Video, seen: torch.Tensor, reader: Reader) -> list[Track]:
    """The objects of a clip, those seen first first; ``seen`` is what ``reader.look`` makes of it."""
    tracks = []
    best = seen.argmax(1)
    # A screen stands still: what is read as one now and then is something dark.
    screen = (best == SCREEN).float().mean(0) > 0.5
    near_screen = F.max_pool2d(screen.float()[None], 5, 1, 2)[0] > 0
    for number, colour in enumerate(COLOURS):
        mask = best == PAINTED + number
        if int(mask.sum((1, 2)).max()) >= OBJECT:
            probable = seen[:, PAINTED + number]
            for chain in _link(_pieces(mask, probable, near_screen)):
                if _is_object(chain):
                    tracks.append(_track(colour, chain, video, probable, reader))
    return sorted(tracks, key=lambda track: int(np.argmax(track.area > 0)))


def _is_object(chain: list[_Piece]) -> bool:
    return len(chain) >= FRAMES_SEEN and max(piece.area for piece in chain) >= OBJECT


def _pieces(mask: torch.Tensor, probable: torch.Tensor, near_screen: torch.Tensor) -> list[_Piece]:
    """Connected parts of a mask ``(T, H, W)``, frame by frame.

    Place and area weigh each pixel of a part, and those around it, by how probable it is: to a tenth of a pixel, where
    whole pixels would give a quarter.
    """
    parts = components(mask)
    height, width = mask.shape[1:]
    across, down = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    found = []
    for frame in range(len(mask)):
        names, areas = parts[frame].unique(return_counts=True)
        for name in names[(names > 0) & (areas >= SPECK)]:
            part = parts[frame] == name
            y, x = (axis.numpy() for axis in part.nonzero(as_tuple=True))
            box = (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
            border = box[0] == 0 or box[1] == 0 or box[2] == width or box[3] == height
            around = F.max_pool2d(part.float()[None], 3, 1, 1)[0] * probable[frame]
            total = float(around.sum())
            place = np.array([float((around.sum(0) * across).sum()), float((around.sum(1) * down).sum())]) / total
            cut = border or bool((part & near_screen).any())
            found.append(_Piece(frame, total, place, cut, box))
    return found


def components(mask: torch.Tensor) -> torch.Tensor:
    """Numbers the connected parts (eight neighbours) of bool ``(T, H, W)``: int64, 0 outside, one number per part."""
    here = mask.float()
    numbers = torch.arange(1, here[0].numel() + 1, dtype=torch.float32).view(here.shape[1:]) * here
    while True:  # every pixel takes the largest number around it, until nothing changes
        spread = F.max_pool2d(numbers[:, None], 3, 1, 1)[:, 0] * here
        if torch.equal(spread, numbers):
            return numbers.long()
        numbers = spread


def _link(pieces: list[_Piece]) -> list[list[_Piece]]:
    """Pieces into chains, each to the chain whose last one is nearest, nearest pairs first."""
    chains: list[list[_Piece]] = []
    for frame in sorted({piece.frame for piece in pieces}):
        here = [piece for piece in pieces if piece.frame == frame]
        pairs = []
        for chain in chains:
            last = chain[-1]
            if frame - last.frame <= _PATIENCE or last.cut:  # what a screen hides may stay away for long
                limit = _STRIDE * (frame - last.frame)
                for k, piece in enumerate(here):
                    distance = float(np.hypot(*(piece.place - last.place)))
                    if distance <= limit:
                        pairs.append((distance, id(chain), chain, k))
        taken: set[int] = set()
        for _, name, chain, k in sorted(pairs, key=lambda pair: pair[0]):
            if name not in taken and here[k] is not None and chain[-1].frame < frame:
                chain.append(here[k])
                taken.add(name)
                here[k] = None  # type: ignore[call-overload]
        chains += [[piece] for piece in here if piece is not None]
    return chains


def _track(colour: str, chain: list[_Piece], video: Video, probable: torch.Tensor, reader: Reader) -> Track:
    frames = len(video.frames)
    track = Track(
        colour,
        np.zeros(frames),
        np.full((frames, 2), np.nan),
        np.zeros(frames, dtype=bool),
        np.zeros((frames, 4), dtype=np.int64),
        np.zeros((frames, len(SHAPES))),
        np.zeros((frames, len(MATERIALS))),
    )
    crops = []
    for piece in chain:
        track.area[piece.frame], track.place[piece.frame], track.cut[piece.frame] = piece.area, piece.place, piece.cut
        track.box[piece.frame] = piece.box
        picture = torch.cat([video.frames[piece.frame].float() / 255, probable[piece.frame, ..., None]], -1)
        crops.append(crop(picture, piece.place[0], piece.place[1]))
    shapes, materials = reader.name(torch.stack(crops))
    at = [piece.frame for piece in chain]
    track.shapes[at], track.materials[at] = shapes.numpy(), materials.numpy()
    return track
