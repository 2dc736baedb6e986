"""The reader: what is to be seen in the frames of a clip, by three small networks trained on true ones."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from selfflow_mm.errors import UserError
from selfflow_mm.weights import ROOT
from selfflow_tokenizers.media import Video
from selfflow_tokenizers.tensor_file import save_tensors

from .reader_net import LETTERS, ObjectReader, PixelReader, WordReader

BUNDLED = ROOT / "world_reader" / "model.safetensors"
_AT_ONCE = 33  # frames


class Reader:
    """Reads frames of 64 x 64 pixels, or other sides that are multiples of 8.

    Args:
        pixels, objects, words: the three networks.
    """

    def __init__(self, pixels: PixelReader, objects: ObjectReader, words: WordReader) -> None:
        self.pixels, self.objects, self.words = pixels.eval(), objects.eval(), words.eval()

    @torch.inference_mode()
    def look(self, video: Video) -> Tensor:
        """How probable it is that a pixel shows each of ``reader_net.PIXELS``: float32 ``(T, 11, H, W)``.

        Raises:
            UserError: the sides are no multiples of 8.
        """
        if video.frames.shape[1] % 8 or video.frames.shape[2] % 8:
            raise UserError(
                f"the reader takes frames whose sides are multiples of 8, got {video.frames.shape[2]} x "
                f"{video.frames.shape[1]}; the world's clips have 64 x 64"
            )
        x = video.frames.movedim(-1, 1).float() / 255
        return torch.cat([self.pixels(x[i : i + _AT_ONCE]).softmax(1) for i in range(0, len(x), _AT_ONCE)])

    @torch.inference_mode()
    def name(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of shapes ``(n, 5)`` and materials ``(n, 4)`` of crops ``(n, 32, 32, 4)``: colours in
        [0, 1] and the probability of the object's own colour."""
        shape, material = self.objects(crops.movedim(-1, 1))
        return shape.log_softmax(1), material.log_softmax(1)

    @torch.inference_mode()
    def read(self, strips: Tensor) -> str:
        """The word that all strips uint8 ``(n, 13, 40, 3)`` show in the same place; "" where there is none."""
        scores = self.words(strips.movedim(-1, 1).float() / 255).log_softmax(1).mean(0)
        best = scores.argmax(0).tolist()
        word, start = "", 0
        for column in range(1, len(best) + 1):
            if column == len(best) or best[column] != best[start]:
                if best[start] and column - start >= 2:
                    word += LETTERS[best[start] - 1]
                start = column
        return word

    def save(self, path: Path) -> None:
        """Write the networks in half precision, beside the path and renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        named = {"pixels": self.pixels, "objects": self.objects, "words": self.words}
        tensors = {f"{n}.{k}": v.half().contiguous() for n, net in named.items() for k, v in net.state_dict().items()}
        beside = path.with_name(f".{path.name}.tmp")
        save_tensors(tensors, beside, metadata={"format": "pt"})
        beside.replace(path)

    @classmethod
    def load(cls, path: Path | None = None) -> Reader:
        """The bundled reader, or that of a file.

        Raises:
            UserError: the file is missing or holds something else.
        """
        path = BUNDLED if path is None else path
        if not path.is_file():
            raise UserError(f"there is no reader at {path}; train one with benchmarks/world_reader.py")
        pixels, objects, words = PixelReader(), ObjectReader(), WordReader()
        try:
            tensors = {k: v.float() for k, v in load_file(path).items()}
            for name, net in (("pixels", pixels), ("objects", objects), ("words", words)):
                prefix = f"{name}."
                net.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        except (RuntimeError, SafetensorError) as error:
            raise UserError(f"{path} holds no reader of this release: {str(error).splitlines()[0]}") from None
        return cls(pixels, objects, words)
