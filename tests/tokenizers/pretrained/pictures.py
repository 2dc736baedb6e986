"""Random small autoencoders of the real classes, and what every adapter of pictures is held to.

Expected tokens are made here from the library's own output by plain indexing, not by the tokenizer's code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selfflow_tokenizers import Image, UserError, Video, VideoTokenizer, ensure_torchaudio, load_tokenizer
from selfflow_tokenizers.folder import tokenizer_from_codec
from selfflow_tokenizers.pretrained import adapter

ensure_torchaudio()
diffusers = pytest.importorskip("diffusers", reason="diffusers is in the extra 'pretrained'")
#: Of the tokens' spread; float32 rounds in another order where a batch or a layout differs.
TOLERANCE = 1e-4


def seeded(cls: Any, **config: Any) -> Any:
    torch.manual_seed(1)
    return cls(**config).eval()


def image_autoencoder(cls: Any = None, **changes: Any) -> Any:
    """An AutoencoderKL (or FLUX.2's) of a few thousand weights that takes 4 x 4 pixels to a cell."""
    blocks = changes.pop("blocks", 3)
    config = {
        "block_out_channels": (8,) * blocks,
        "down_block_types": ("DownEncoderBlock2D",) * blocks,
        "up_block_types": ("UpDecoderBlock2D",) * blocks,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
    }
    return seeded(cls or diffusers.AutoencoderKL, **(config | changes))


def clip(frames: int, height: int, width: int, fps: float = 12.0) -> Video:
    generator = torch.Generator().manual_seed(frames * height + width)
    return Video(torch.randint(256, (frames, height, width, 3), generator=generator, dtype=torch.uint8), fps)


def picture(height: int, width: int) -> Image:
    return Image(clip(1, height, width).frames[0])


def pixels(frames: Tensor) -> Tensor:
    """uint8 ``(T, H, W, 3)`` -> what diffusers' processors give: float ``(1, 3, T, H, W)`` in [-1, 1]."""
    return (2 * (frames.float() / 255) - 1).permute(3, 0, 1, 2)[None]


def bytes_of(sample: Tensor) -> Tensor:
    """``(1, 3, T, H, W)`` of a decoder -> float ``(T, H, W, 3)`` in 0 .. 255, before rounding."""
    return ((sample[0].clamp(-1, 1) + 1) / 2 * 255).permute(1, 2, 3, 0)


def tokens_of(latents: Tensor, patch: int) -> Tensor:
    """Normalised latents ``(1, C, T, h, w)`` -> ``(N, C patch^2)``: cell after cell of a token, tokens row by row."""
    _, _, frames, rows, columns = latents.shape
    tokens = []
    for t in range(frames):
        for row in range(0, rows, patch):
            for column in range(0, columns, patch):
                cells = [latents[0, :, t, row + i, column + j] for i in range(patch) for j in range(patch)]
                tokens.append(torch.cat(cells))
    return torch.stack(tokens)


def make(name: str, module: nn.Module) -> VideoTokenizer:
    tokenizer = tokenizer_from_codec(adapter(name)(module))
    assert isinstance(tokenizer, VideoTokenizer)
    return tokenizer


def check_tokens(tokenizer: VideoTokenizer, medium: Image | Video, latents: Tensor, sample: Tensor) -> None:
    """Encoding gives the library's normalised ``latents``, and decoding those gives its ``sample``."""
    stream = tokenizer.encode([medium])
    expected = tokens_of(latents, tokenizer.patch)
    assert stream.values.shape == (1, *expected.shape)
    spread = float(expected.std(0).mean())  # over the places of the picture: nothing dead is compared
    assert spread > 1e-3
    assert float((stream.values[0] - expected).abs().max()) <= TOLERANCE * spread
    (decoded,) = tokenizer.decode(stream)
    assert type(decoded) is type(medium)
    frames = decoded.frames if isinstance(decoded, Video) else decoded.pixels[None]
    difference = (frames.float() - bytes_of(sample)).abs()
    assert float(bytes_of(sample).std()) > 1 and float(difference.max()) <= 0.5 + 0.02


def check_sizes(tokenizer: VideoTokenizer) -> None:
    """Media of odd sizes come back whole out of one padded batch, and their size does not change the others."""
    cell, step = tokenizer.spec.space_compression, tokenizer.spec.time_compression
    media = [clip(2 + step, cell + 1, 2 * cell - 1), picture(3 * cell, 2 * cell - 1), clip(1, 2 * cell, 2 * cell)]
    together = tokenizer.encode(media)
    found = tokenizer.decode(together)
    assert [type(m) for m in found] == [Video, Image, Video]
    for medium, other in zip(media, found, strict=True):
        same = tokenizer.decode(tokenizer.encode([medium]))[0]
        assert shape(medium) == shape(other)
        assert int((content(same).int() - content(other).int()).abs().max()) <= 1


def content(medium: Image | Video) -> Tensor:
    return medium.pixels if isinstance(medium, Image) else medium.frames


def shape(medium: Image | Video) -> tuple[int, ...]:
    return tuple(content(medium).shape)


def check_positions(tokenizer: VideoTokenizer, frames: int, latent_frames: int) -> None:
    """Seconds are the middle of the frames a latent frame stands for; a still is at 0."""
    cell, step, fps = tokenizer.spec.space_compression, tokenizer.spec.time_compression, 12.0
    where = tokenizer.encode([clip(frames, 2 * cell, 2 * cell, fps)]).positions[0]
    covered = [[0]] + [list(range(1 + step * j, 1 + step * (j + 1))) for j in range(latent_frames - 1)]
    assert covered[-1][-1] == frames - 1
    middle = [(sum(c) / len(c) + 0.5) / fps for c in covered]
    expected = [[second, row, column, 0] for second in middle for row in range(2) for column in range(2)]
    torch.testing.assert_close(where, torch.tensor(expected))
    assert tokenizer.encode([picture(2 * cell, 2 * cell)]).positions[0, :, 0].tolist() == [0.0] * 4


def check_files(name: str, tokenizer: VideoTokenizer, medium: Image | Video, folder: Path) -> None:
    """Saved and loaded: the same bits; the library's files alone load by name."""
    tokenizer.save_pretrained(folder)
    again = load_tokenizer(folder)
    by_name = load_tokenizer(f"{name}:{folder / 'codec'}")
    values = tokenizer.encode([medium]).values
    for other in (again, by_name):
        assert isinstance(other, VideoTokenizer) and other.spec == tokenizer.spec and other.patch == tokenizer.patch
        stream = other.encode([medium])
        assert torch.equal(stream.values, values)
        assert torch.equal(content(other.decode(stream)[0]), content(tokenizer.decode(stream)[0]))


def check_errors(name: str, folder: Path, wrong: nn.Module, download: str) -> None:
    """Weights that are not here, and those of another class: a sentence each, with the command that fetches them."""
    target = download.partition(" ")[0].rpartition("/")[2]
    with pytest.raises(UserError) as caught:
        load_tokenizer(name)
    sentence = str(caught.value)
    assert f"`hf download {download} --local-dir {target}`" in sentence and f"name {name}:{target}" in sentence
    wrong.save_pretrained(folder)  # type: ignore[operator]
    with pytest.raises(UserError) as caught:
        load_tokenizer(f"{name}:{folder}")
    assert type(wrong).__name__ in str(caught.value) and adapter(name).library.split(":")[1] in str(caught.value)
    with pytest.raises(UserError, match="holds no") as caught:
        load_tokenizer(f"{name}:{folder.parent}")
    for error in (sentence, str(caught.value)):
        assert "\n" not in error


def check_mixed_precision(tokenizer: VideoTokenizer, medium: Image | Video) -> None:
    """bfloat16 products change values by a few percent of their spread, and nothing fails."""
    frames = content(medium)[None] if isinstance(medium, Video) else content(medium)[None, None]
    exact, rough = (tokenizer.encode_batch(frames, bfloat16=b) for b in (False, True))
    assert rough.dtype == torch.float32
    assert 0 < float((rough - exact).abs().mean()) < 0.05 * float(exact.std())
    rows, columns = (-(-size // tokenizer.spec.space_compression) for size in frames.shape[2:4])
    exact, rough = (tokenizer.decode_batch(exact, rows, columns, bfloat16=b).float() for b in (False, True))
    assert float((rough - exact).abs().mean()) < 0.05 * float(exact.std())
