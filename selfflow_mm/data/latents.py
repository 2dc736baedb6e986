"""Latents on disk: a data set encoded once, so that training never decodes a video or runs a tokenizer.

    latents.json              format, version, the data set and its contents; per modality the tokenizer's name and hash
                              and how many samples have it; sizes of clips; parts; how many samples were left out; how
                              many captions there are of each kind, where samples say
    part-00000.safetensors    <shape>.values (n, N, C) float16, <shape>.ids (n,): which samples they are of,
                              <shape>.positions (N, 4) float32
    captions.jsonl            one JSON list of captions per sample
    caption_kinds.jsonl       the same of their kinds, empty where a sample does not say; no file where none does
    positions.safetensors     <shape> (N, 4) float32
    quarantine.jsonl          samples that could not be encoded: id, shard, key, reason
    text/                     embeddings of the captions, where they were asked for (``selfflow-text-cache``)

A shape is where a sample's tokens are: samples of as many tokens on another grid, or at other seconds, have another.
The first that a modality has goes by the modality's name, ``video``, the others by their numbers in the order of their
first samples, ``video@1``, ``video@2``. Where no modality has several, the folder is of version 1; else of version 2,
and ``shapes`` in latents.json counts them.

A sample without a modality, or left out, is simply absent from that modality's ids and keeps its number.
``encode_dataset`` writes such folders; ``latents.json`` comes last, so a folder that has one is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import UserError
from ..tokens import TokenStream

FORMAT, VERSION = "selfflow-latents", 1
#: Of latents of several shapes, which readers of version 1 would take for modalities.
VERSION_SEVERAL = 2
#: The file that makes a folder of latents one, and what stands in its place while they are being encoded.
STATE, DRAFT = "latents.json", "draft.json"
CAPTIONS, CAPTION_KINDS, QUARANTINE = "captions.jsonl", "caption_kinds.jsonl", "quarantine.jsonl"
POSITIONS, TEXT = "positions.safetensors", "text"


@dataclass(frozen=True)
class LeftOut:
    """A sample that could not be encoded: its number in the data set, its shard's file, its key, and why."""

    id: int
    shard: str
    key: str
    reason: str


def fingerprint(tokenizer: Any, source: str | Path) -> str:
    """What tells a tokenizer from others: latents are used only with the weights that made them.

    Of a folder of ours the start of SHA-256 over its files. Of any other ``source``, such as a pretrained one, the
    spec's name, which ends in a hash of the weights.
    """
    files = [Path(source) / name for name in ("config.json", "model.safetensors")]
    if not all(file.is_file() for file in files):
        return tokenizer.spec.name
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def shape_name(modality: str, number: int) -> str:
    """What the tensors of a modality's shape are named by."""
    return f"{modality}@{number}" if number else modality


def shape_of_name(name: str) -> tuple[str, int]:
    """Modality and number of a shape: the inverse of :func:`shape_name`."""
    modality, _, number = name.partition("@")
    return modality, int(number or 0)


def grid_of(place: Tensor) -> str:
    """The grid that tokens at ``place`` ``(N, 4)`` fill.

    ``9x4x6`` (latent frames, rows, columns) of a clip, ``4x6`` of a picture, ``52`` of a sound and of what fills none.
    """
    frames, rows, columns = (len(axis.unique()) for axis in place[:, :3].T)
    if frames * rows * columns != len(place) or rows * columns == 1:
        return f"{len(place)}"
    return f"{rows}x{columns}" if frames == 1 else f"{frames}x{rows}x{columns}"


def is_latents(path: str | Path) -> bool:
    """Whether latents lie there, finished or not, rather than raw media."""
    return (Path(path) / STATE).is_file() or (Path(path) / DRAFT).is_file()


class LatentDataset:
    """Encoded samples of one data set, mapped into memory.

    Args:
        folder: of latents.
        max_samples: only the first so many; 0 for all.

    Attributes:
        about: what latents.json says.
        samples: how many the data set has, those left out included.
        captions: per sample, every wording it has.
        caption_kinds: per sample, of what kind each of these is; none where it does not say.
        left_out: the samples that could not be encoded.

    Raises:
        UserError: encoding has not finished, another version, a part is missing or damaged.
    """

    def __init__(self, folder: Path, max_samples: int = 0) -> None:
        self.about = read_about(folder)
        self.folder = folder
        whole = self.about["samples"]
        self.samples: int = min(whole, max_samples) if max_samples else whole
        self.captions: list[tuple[str, ...]] = [tuple(line) for line in _lines(folder / CAPTIONS)][: self.samples]
        self.caption_kinds = self._caption_kinds()
        self.left_out = read_quarantine(folder / QUARANTINE)
        self._shapes: dict[str, dict[int, Tensor]] = {}
        for name, place in _tensors(folder / POSITIONS).items():
            modality, number = shape_of_name(name)
            self._shapes.setdefault(modality, {})[number] = place
        self._names = {modality: _names(modality, shapes) for modality, shapes in self._shapes.items()}
        #: Of each part and shape its number and values (n, N, C).
        self._pieces: dict[str, list[tuple[int, Tensor]]] = {}
        #: Which of these a sample is in, and its row there.
        self._place: dict[str, dict[int, tuple[int, int]]] = {}
        parts = sorted(folder.glob("part-*.safetensors"))
        if len(parts) != self.about.get("parts", len(parts)):
            raise UserError(
                f"{folder} holds {len(parts)} parts, its latents.json says {self.about['parts']}; copy it again"
            )
        for part in parts:
            tensors = _tensors(part)
            for name in tensors:
                if name.endswith(".ids"):
                    shape = name.removesuffix(".ids")
                    modality, number = shape_of_name(shape)
                    pieces = self._pieces.setdefault(modality, [])
                    places = self._place.setdefault(modality, {})
                    places.update({i: (len(pieces), row) for row, i in enumerate(tensors[name].tolist())})
                    pieces.append((number, tensors[f"{shape}.values"]))

    def _caption_kinds(self) -> list[tuple[str, ...]]:
        if "caption_kinds" not in self.about:
            return [()] * self.samples
        path = self.folder / CAPTION_KINDS
        if not path.is_file():
            raise UserError(f"{path} is missing; copy {self.folder} again, or encode the data set again")
        alike: dict[tuple[str, ...], tuple[str, ...]] = {}  # samples say the same few things: each is kept once
        lines = (tuple(line) for line in _lines(path)[: self.samples])
        return [alike.setdefault(kinds, kinds) for kinds in lines]

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self._place)

    def having(self, modalities: tuple[str, ...]) -> list[int]:
        """Ids of the samples that have all these modalities, in order."""
        ids = set(range(self.samples)).intersection(*(self._place.get(m, {}) for m in modalities))
        return sorted(ids)

    def buckets(self, modalities: tuple[str, ...]) -> dict[str, list[int]]:
        """The samples that have all these modalities, by what they share shapes in.

        Returns:
            name -> ids in order; buckets in the order of their first samples. A name has the grid of every modality,
            ``video 9x4x6 + audio 52``, and the same for as long as the folder is the same. No samples, no bucket.
        """
        ids = self.having(modalities)
        if ids and all(len(self._shapes[m]) == 1 for m in modalities):
            return {" + ".join(self._names[m][0] for m in modalities): ids}
        found: dict[tuple[int, ...], list[int]] = {}
        for i in ids:
            found.setdefault(tuple(self._shape(m, i) for m in modalities), []).append(i)
        return {
            " + ".join(self._names[m][k] for m, k in zip(modalities, shapes, strict=True)): own
            for shapes, own in found.items()
        }

    def place(self, modality: str, id: int) -> Tensor:
        """Where the tokens of a sample are: positions ``(N, 4)`` float32."""
        return self._shapes[modality][self._shape(modality, id)]

    def tokens(self, modality: str, id: int) -> int:
        """How many tokens a sample has."""
        return len(self.place(modality, id))

    def stream(self, modality: str, ids: list[int]) -> TokenStream:
        """The tokens ``(B, N, C)`` of samples of one shape, float32.

        Raises:
            UserError: their shapes differ.
        """
        rows = [self._place[modality][i] for i in ids]
        shapes = {self._pieces[modality][piece][0] for piece, _ in rows}
        if len(shapes) > 1:
            sizes = " and ".join(self._names[modality][k] for k in sorted(shapes))
            raise UserError(f"samples {ids} of {self.folder} differ in shape ({sizes}); one stream holds one shape")
        values = torch.stack([self._pieces[modality][piece][1][row] for piece, row in rows]).float()
        return TokenStream.dense(values, self.place(modality, ids[0]))

    def _shape(self, modality: str, id: int) -> int:
        return self._pieces[modality][self._place[modality][id][0]][0]


def refuse_other_tokenizers(folder: Path, names: Mapping[str, str], hashes: Mapping[str, str]) -> None:
    """Latents are read only with the weights that made them.

    Args:
        folder: of latents.
        names: modality -> name of the tokenizer that a run has.
        hashes: modality -> its :func:`fingerprint`.

    Raises:
        UserError: one of them is of another tokenizer; the sentence has both names and hashes.
    """
    about = read_about(folder)
    for modality, theirs in about["tokenizers"].items():
        if modality in hashes and hashes[modality] != theirs:
            made_by = about.get("names", {}).get(modality, "another tokenizer")
            raise UserError(
                f"{folder} holds {modality} latents of {made_by} (hash {theirs}), but tokenizers.{modality} is "
                f"{names[modality]} (hash {hashes[modality]}); name the tokenizer that made them, or encode the data "
                "set again"
            )


def read_about(folder: Path) -> dict[str, Any]:
    """What latents.json says.

    Raises:
        UserError: encoding has not finished; another format or version.
    """
    if not (folder / STATE).is_file() and (folder / DRAFT).is_file():
        raise UserError(f"{folder} is not encoded to its end; give the same `selfflow-mm encode` again to go on")
    about = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if about.get("format") != FORMAT or about.get("version") not in (VERSION, VERSION_SEVERAL):
        raise UserError(
            f"{folder}/latents.json is {about.get('format')} version {about.get('version')}; this release "
            f"reads {FORMAT} {VERSION} and {VERSION_SEVERAL}"
        )
    return about


def read_quarantine(path: Path) -> list[LeftOut]:
    """The samples left out; none where there is no such file."""
    if not path.is_file():
        return []
    return [LeftOut(**line) for line in _lines(path)]


def _names(modality: str, shapes: Mapping[int, Tensor]) -> dict[int, str]:
    """Shapes for people: their grids, and their numbers where several have the same grid."""
    grids = {number: grid_of(place) for number, place in shapes.items()}
    times = Counter(grids.values())
    return {n: f"{modality if times[grid] == 1 else shape_name(modality, n)} {grid}" for n, grid in grids.items()}


def _lines(path: Path) -> list[Any]:
    """What stands in a file of JSON lines. (``splitlines`` would also split at the line separators of Unicode.)"""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is missing or damaged ({error}); copy it again, or encode the data set again"
        ) from None
