"""Training the reader on true frames of clips that are in no test: pixels, objects and letters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from selfflow_mm.data.reading import read_media
from selfflow_mm.data.world.constants import FLOOR_LINE, FPS, FRAMES, STEPS, WIDTH
from selfflow_mm.data.world.holdout import Novelty
from selfflow_mm.data.world.physics import Motion
from selfflow_mm.data.world.picture import render_picture
from selfflow_mm.data.world.scene import BLOCK_HEIGHT, SIZES, Scene, Sign, Thing
from selfflow_mm.data.world.stories import draw_clip
from selfflow_mm.data.world.text import LETTER_WIDTH, PITCH
from selfflow_mm.data.world.vocabulary import COLOURS, MATERIALS, SHAPES
from selfflow_mm.data.writing import encode_mp4
from selfflow_tokenizers.media import Video

from .labels import label
from .reader import Reader
from .reader_net import LETTERS, PAINTED, STRIP_HEIGHT, STRIP_WIDTH, ObjectReader, PixelReader, WordReader, crop, cut

#: Frames taken of each clip.
_OF_A_CLIP = 8
#: The reader is a ruler: it must know a red block as well as any other, so it sees what models are not shown as well.
_NOVELTIES: tuple[Novelty | None, ...] = (None, "material", None, "colour")
#: Shares of the frames that are read after the tokenizer's round trip, and after that of an MP4.
_CODED, _COMPRESSED = 0.35, 0.4


@dataclass(frozen=True)
class ReaderTraining:
    """How the reader is trained.

    Attributes:
        clips: distinct clips whose frames it sees, and as many words.
        steps: of 16 frames, and as many of 64 strips of writing; objects take half as many of 64.
        seed: of clips, weights and the order.
    """

    clips: int = 500
    steps: int = 1200
    seed: int = 70_001


@dataclass(frozen=True)
class _Frames:
    """``pictures`` uint8 ``(n, H, W, 3)``, ``pixels`` int8 ``(n, H, W)``, and for each the ``objects`` that it shows
    wholly: (colour, shape, material, x, y)."""

    pictures: Tensor
    pixels: Tensor
    objects: list[list[tuple[int, int, int, float, float]]]


def train_reader(options: ReaderTraining, tokenizer: Any | None = None) -> Reader:
    """All three networks, trained on one core in some minutes.

    Args:
        options: how much, and the seed.
        tokenizer: of video, whose reconstructions are a part of what is learned from; None: only true frames.
    """
    torch.manual_seed(options.seed)
    frames = _draw(options, tokenizer)
    pixels = train_pixels(options, frames)
    return Reader(pixels, train_objects(options, frames, pixels), train_words(options, tokenizer))


def train_pixels(options: ReaderTraining, frames: _Frames) -> PixelReader:
    """The network that says what each pixel shows."""
    net = PixelReader()
    for chosen in _steps(net, len(frames.pictures), 16, options.steps, "reading pixels"):
        x, target = _spoilt(frames.pictures[chosen].movedim(-1, 1).float() / 255), frames.pixels[chosen].long()
        if torch.rand(()) < 0.5:
            x, target = x.flip(-1), target.flip(-1)
        # Objects fill a tenth of a picture; counted alike, the room would drown them.
        weight = torch.where(target > 0, 3.0, 1.0)
        ((F.cross_entropy(net(x), target, reduction="none") * weight).sum() / weight.sum()).backward()
    return net.eval()


def train_objects(options: ReaderTraining, frames: _Frames, pixels: PixelReader) -> ObjectReader:
    """The network that names shapes and materials, with masks as ``pixels`` finds them."""
    crops, shapes, materials = [], [], []
    for picture, objects in zip(
        frames.pictures, tqdm(frames.objects, desc="cutting out objects", unit="frame"), strict=True
    ):
        x = picture.movedim(-1, 0)[None].float() / 255
        with torch.inference_mode():
            seen = pixels(_spoilt(x)).softmax(1)[0]
        for colour, shape, material, *place in objects:
            middle = [at + float(torch.rand(()) * 3 - 1.5) for at in place]
            mask = (seen[PAINTED + colour] * 255).byte()
            crops.append(crop(torch.cat([picture, mask[..., None]], -1), middle[0], middle[1]))
            shapes.append(shape)
            materials.append(material)
    everything, shape_of, material_of = torch.stack(crops).clone(), torch.tensor(shapes), torch.tensor(materials)
    net = ObjectReader()
    for chosen in _steps(net, len(everything), 64, options.steps // 2, "reading objects"):
        x = everything[chosen].movedim(-1, 1).float() / 255
        x = torch.cat([_spoilt(x[:, :3]), x[:, 3:]], 1)
        if torch.rand(()) < 0.5:
            x = x.flip(-1)
        shape, material = net(x)
        (F.cross_entropy(shape, shape_of[chosen]) + F.cross_entropy(material, material_of[chosen])).backward()
    return net.eval()


def train_words(options: ReaderTraining, tokenizer: Any | None) -> WordReader:
    """The network that reads strips; its words are letters drawn at random, so that it reads and does not guess."""
    strips, targets = _strips(options, tokenizer)
    net = WordReader()
    for chosen in _steps(net, len(strips), 64, options.steps, "reading letters"):
        logits = net(_spoilt(strips[chosen].movedim(-1, 1).float() / 255))
        F.cross_entropy(logits, targets[chosen].long()).backward()
    return net.eval()


def _steps(net: torch.nn.Module, samples: int, batch: int, steps: int, title: str) -> Iterator[Tensor]:
    """The samples of each step; the optimizer steps when the next is asked for."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.01)
    for step in tqdm(range(steps), desc=title, unit="step"):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, 10 * (step + 1) / steps, 1.05 - step / steps)
        optimizer.zero_grad()
        yield torch.randint(samples, (batch,))
        optimizer.step()


def _draw(options: ReaderTraining, tokenizer: Any | None) -> _Frames:
    """Frames of clips that nothing else uses, some after a round trip."""
    pictures, pixels, objects = [], [], []
    for index in tqdm(range(options.clips), desc="drawing clips", unit="clip"):
        rng = np.random.default_rng([options.seed, index])
        scene, motion = draw_clip(rng, _NOVELTIES[index % len(_NOVELTIES)])
        video, seen = render_picture(scene, motion)
        chosen = np.sort(rng.choice(FRAMES, _OF_A_CLIP, replace=False))
        pictures.append(_through(torch.from_numpy(video), rng, tokenizer)[chosen])
        pixels.append(label(scene, motion.states, chosen.tolist()))
        for frame in chosen:
            shown = [k for k in range(len(scene.things)) if seen[k, frame] > 0.9]
            objects.append([_facts(scene.things[k], motion.states[k, frame]) for k in shown])
    return _Frames(torch.cat(pictures), torch.from_numpy(np.concatenate(pixels)).to(torch.int8), objects)


def _facts(thing: Thing, pose: np.ndarray) -> tuple[int, int, int, float, float]:
    kinds = (COLOURS.index(thing.colour), SHAPES.index(thing.shape), list(MATERIALS).index(thing.material))
    return (*kinds, float(pose[0]), float(pose[1]))


def _strips(options: ReaderTraining, tokenizer: Any | None) -> tuple[Tensor, Tensor]:
    """Strips uint8 ``(n, 13, 40, 3)`` and which letter is at each column, int8 ``(n, 40)``."""
    strips, targets = [], []
    for index in tqdm(range(options.clips), desc="writing words", unit="word"):
        rng = np.random.default_rng([options.seed + 1, index])
        on_sign = rng.random() < 0.5
        word = "".join(rng.choice(list(LETTERS), rng.integers(2, 5 if on_sign else 4)))
        if rng.random() < 0.08:
            word = ""
        scene, path = _sign_scene(rng, word) if on_sign and word else _block_scene(rng, word)
        video = torch.from_numpy(render_picture(scene, Motion(np.repeat(path, STEPS // FRAMES, axis=1), (), ()))[0])
        video = _through(video, rng, tokenizer)
        for frame in rng.choice(FRAMES, _OF_A_CLIP, replace=False):
            if scene.sign is not None:
                left, top, right, bottom = scene.sign.box
                middle = ((left + right) / 2, (top + bottom) / 2)
            else:
                middle = (path[0, frame, 0], path[0, frame, 1])
            x, y = (
                round(m + float(rng.uniform(-1.2, 1.2)) - s / 2)
                for m, s in zip(middle, (STRIP_WIDTH, STRIP_HEIGHT), strict=True)
            )
            strips.append(cut(video[frame], x, y))
            targets.append(_columns(word, middle[0] - x))
    return torch.stack(strips), torch.from_numpy(np.stack(targets))


def _columns(word: str, middle: float) -> np.ndarray:
    """Which letter's middle is within two pixels of each column of a strip, 0 for none."""
    target = np.zeros(STRIP_WIDTH, dtype=np.int8)
    for place, letter in enumerate(word):
        centre = middle - (PITCH * len(word) - 1) / 2 + PITCH * place + LETTER_WIDTH / 2
        near = np.abs(np.arange(STRIP_WIDTH) + 0.5 - centre) <= 2.0
        target[near] = 1 + LETTERS.index(letter)
    return target


def _sign_scene(rng: np.random.Generator, word: str) -> tuple[Scene, np.ndarray]:
    sign = Sign(word, int(rng.choice(np.arange(PITCH, WIDTH - PITCH * len(word), PITCH))))
    thing = Thing("ball", "red", "rubber", 15.0)
    return Scene("", (thing,), sign=sign), np.full((1, FRAMES, 3), -99.0)  # the ball is out of sight


def _block_scene(rng: np.random.Generator, word: str) -> tuple[Scene, np.ndarray]:
    colour, material = (str(rng.choice(options)) for options in (COLOURS, MATERIALS))
    block = Thing("block", colour, material, SIZES["block"][1], word=word)
    low = FLOOR_LINE - BLOCK_HEIGHT / 2
    x = rng.uniform(15.0, WIDTH - 15.0, FRAMES)
    y = np.where(rng.random(FRAMES) < 0.5, low, rng.uniform(10.0, low, FRAMES))
    return Scene("", (block,)), np.stack([x, y, rng.normal(0, 0.04, FRAMES)], axis=-1)[None]


def _through(video: Tensor, rng: np.random.Generator, tokenizer: Any | None) -> Tensor:
    """The frames as they are, or after the tokenizer's round trip, or that of a file."""
    draw = rng.random()
    if tokenizer is not None and draw < _CODED:
        with torch.inference_mode():
            return tokenizer.decode(tokenizer.encode([Video(video, FPS)]))[0].frames[: len(video)].clone()
    if draw > 1 - _COMPRESSED:
        found = read_media(encode_mp4(Video(video, FPS), crf=12, fast=True)).video
        assert found is not None
        return found.frames[: len(video)]
    return video


def _spoilt(x: Tensor) -> Tensor:
    """Pictures ``(N, 3, H, W)`` a little blurred, brightened, tinted and noisy, as models make them."""
    n = len(x)
    if torch.rand(()) < 0.6:
        sigma = float(torch.rand(())) * 1.2 + 0.2
        taps = torch.arange(-3, 4).float()
        kernel = torch.exp(-(taps**2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).repeat(3, 1)
        x = F.conv2d(F.pad(x, (3, 3, 0, 0), "replicate"), kernel[:, None, None, :], groups=3)
        x = F.conv2d(F.pad(x, (0, 0, 3, 3), "replicate"), kernel[:, None, :, None], groups=3)
    gain, tint = 1 + 0.08 * torch.randn(n, 1, 1, 1), 0.02 * torch.randn(n, 3, 1, 1)
    noise = 0.03 * torch.rand(n, 1, 1, 1) * torch.randn_like(x)
    return ((x - 0.5) * gain + 0.5 + tint + noise).clamp(0, 1)
