"""Encoded files: the tokens of one clip, image or sound in a safetensors file, written and read piece by piece.

For each medium ("video", "image", "audio") two tensors, ``<medium>.values (N, C)`` and ``<medium>.positions (N, 4)``,
and in the metadata what decoding needs: the tokenizer's name and spec, and the extent that it crops back to. Any
safetensors reader opens it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from selfflow_mm.errors import UserError
from selfflow_tokenizers import TokenizerSpec, TokenStream
from selfflow_tokenizers.stream import Extent

FORMAT, VERSION = "selfflow-encoded", 1
_COPY = 2**20  # bytes copied at a time
#: Pixels, and seconds of sound, that the tokens of a piece are decoded to.
_PIXELS, _SECONDS = 2**21, 20.0


@dataclass(frozen=True)
class Track:
    """One medium of an encoded file.

    Attributes:
        tokenizer: what it was called when the file was made: a name, or a folder.
        spec: of that tokenizer; its name ends in a hash of the weights.
        extent: size before encoding, of the whole medium.
        tokens: N.
    """

    tokenizer: str
    spec: TokenizerSpec
    extent: Extent
    tokens: int


class EncodedWriter:
    """An encoded file under construction: tokens go to disk as they come, and ``close`` makes the file of them.

    A safetensors file begins with the shapes of its tensors, which are known at the end: values and positions are
    collected in raw files in a hidden folder beside ``path`` and copied together. A context manager; without ``close``
    nothing is left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._parts = path.with_name(f".{path.name}.parts")
        shutil.rmtree(self._parts, ignore_errors=True)
        self._parts.mkdir()
        self._files: dict[str, BinaryIO] = {}
        self._shapes: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> EncodedWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._parts, ignore_errors=True)

    def add(self, medium: str, stream: TokenStream) -> None:
        """Append the tokens of one row to ``video``, ``image`` or ``audio``."""
        self._append(f"{medium}.values", stream.values[0])
        self._append(f"{medium}.positions", stream.positions[0])

    def close(self, tracks: Mapping[str, Track], about: Mapping[str, str]) -> None:
        """Write the file: ``tracks`` and ``about`` go into its metadata."""
        metadata = {
            "format": FORMAT,
            "version": str(VERSION),
            "tracks": json.dumps({m: _track_to_json(t) for m, t in tracks.items()}),
            **about,
        }
        header: dict[str, Any] = {"__metadata__": metadata}
        offset = 0
        for name, shape in self._shapes.items():
            end = offset + 4 * math.prod(shape)
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # the format aligns data to eight bytes
        beside = self._parts / "whole"
        with open(beside, "wb") as whole:
            whole.write(len(text).to_bytes(8, "little") + text)
            for name, part in self._files.items():
                part.close()
                with open(self._parts / name, "rb") as raw:
                    shutil.copyfileobj(raw, whole, _COPY)
                (self._parts / name).unlink()
        os.replace(beside, self._path)

    def _append(self, name: str, values: Tensor) -> None:
        if name not in self._files:
            self._files[name] = open(self._parts / name, "wb")
            self._shapes[name] = (0, values.shape[1])
        data = values.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
        self._files[name].write(data.tobytes())
        self._shapes[name] = (self._shapes[name][0] + len(data), data.shape[1])


class EncodedFile:
    """An encoded file on disk.

    Attributes:
        path: of the file.
        tracks: medium -> what is known of it.
        about: the rest of the metadata.

    Raises:
        UserError: no such file, not an encoded file, a version this program does not know.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"there is no file '{path}'")
        try:
            with safe_open(self.path, framework="pt") as file:
                self.about = dict(file.metadata() or {})
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        except (SafetensorError, OSError) as error:
            raise UserError(f"'{path}' is not a file that `selfflow-mm encode` wrote: {error}") from error
        if self.about.pop("format", None) != FORMAT:
            raise UserError(f"'{path}' is not a file that `selfflow-mm encode` wrote: its format is not '{FORMAT}'")
        version = self.about.pop("version", None)
        if version != str(VERSION):
            raise UserError(f"'{path}' has version {version}; this release reads {VERSION}")
        try:
            tracks = json.loads(self.about.pop("tracks"))
            self.tracks = {m: _track_from_json(t, shapes[f"{m}.values"][0]) for m, t in tracks.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"'{path}' lacks what decoding needs ({error}); encode the medium again") from error

    def pieces(self, medium: str) -> Iterator[TokenStream]:
        """The tokens of ``medium`` in order, in streams of one row: whole latent frames, each with its extent."""
        track = self.tracks[medium]
        cells = _cells(track)
        if track.extent.samples:
            at_once = max(1, round(_SECONDS * track.spec.latents_per_second))
        else:
            frame = track.spec.time_compression * cells * track.spec.space_compression**2
            at_once = max(1, _PIXELS // frame) * cells
        for start in range(0, track.tokens, at_once):
            end = min(start + at_once, track.tokens)
            # Opened for each piece, or the pages of a mapped file would count as this process's memory.
            with safe_open(self.path, framework="pt") as file:
                values, positions = (
                    file.get_slice(f"{medium}.{n}")[start:end].clone() for n in ("values", "positions")
                )
            extent = _part(track, start // cells, end // cells)
            yield TokenStream.dense(values[None], positions[None], (extent,))

    def stream(self, medium: str) -> TokenStream:
        """All tokens of ``medium`` at once, as ``encode`` of its tokenizer gives them."""
        pieces = list(self.pieces(medium))
        values, positions = (torch.cat([getattr(p, n) for p in pieces], dim=1) for n in ("values", "positions"))
        return TokenStream.dense(values, positions, (self.tracks[medium].extent,))


def _cells(track: Track) -> int:
    """Tokens of one latent frame; 1 for sound."""
    cell = track.spec.space_compression
    return max(1, -(-track.extent.height // cell) * -(-track.extent.width // cell))


def _part(track: Track, start: int, end: int) -> Extent:
    """The extent of latent frames (or latents of a sound) ``start`` to ``end``."""
    whole = track.extent
    if whole.samples:
        step = track.spec.sample_rate / track.spec.latents_per_second
        before, after = (min(whole.samples, round(step * i)) for i in (start, end))
        return Extent(samples=after - before)
    before, after = (min(whole.frames, max(0, 1 + (i - 1) * track.spec.time_compression)) for i in (start, end))
    return Extent(after - before, whole.height, whole.width, whole.fps)


def _track_to_json(track: Track) -> dict[str, Any]:
    return {"tokenizer": track.tokenizer, "spec": track.spec.to_dict(), "extent": asdict(track.extent)}


def _track_from_json(data: dict[str, Any], tokens: int) -> Track:
    return Track(data["tokenizer"], TokenizerSpec.from_dict(data["spec"]), Extent(**data["extent"]), tokens)
