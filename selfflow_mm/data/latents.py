"""Latents on disk: a data set encoded once, so that training never decodes a video or runs a tokenizer.

    latents.json              format, version, the data set, tokenizers with their hashes, shapes, per-part counts
    part-00000.safetensors    <modality>.values (n, N, C) float16, <modality>.ids (n,): which samples they are of
    captions.jsonl            one JSON list of captions per sample
    positions.safetensors     <modality> (N, 4) float32

Samples of a data set share one shape per modality (``prepare`` sees to that). A sample without a modality is simply
absent from that modality's ids. Parts are written one after another and renamed into place, so an interrupted encoding
goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from selfflow_tokenizers.media import Image
from selfflow_tokenizers.tensor_file import save_tensors

from ..errors import UserError
from ..randomness import Randomness
from ..tokens import TokenStream
from .shards import Sample, ShardDataset

FORMAT, VERSION = "selfflow-latents", 1
PART = 256


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


class LatentDataset:
    """Encoded samples of one data set, mapped into memory.

    Attributes:
        about: what latents.json says.
        captions: per sample, every wording it has.
        positions: modality -> ``(N, 4)``.
    """

    def __init__(self, folder: Path) -> None:
        self.about = _about(folder)
        self.folder = folder
        self.samples: int = self.about["samples"]
        self.captions: list[tuple[str, ...]] = [
            tuple(json.loads(line)) for line in (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        self.positions: dict[str, Tensor] = load_file(folder / "positions.safetensors")
        self._values: dict[str, list[Tensor]] = {}
        self._place: dict[str, dict[int, tuple[int, int]]] = {}
        for part in sorted(folder.glob("part-*.safetensors")):
            tensors = load_file(part)
            for name in tensors:
                if name.endswith(".ids"):
                    modality = name.removesuffix(".ids")
                    values = self._values.setdefault(modality, [])
                    places = self._place.setdefault(modality, {})
                    places.update({i: (len(values), row) for row, i in enumerate(tensors[name].tolist())})
                    values.append(tensors[f"{modality}.values"])

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self._place)

    def having(self, modalities: tuple[str, ...]) -> list[int]:
        """Ids of the samples that have all these modalities, in order."""
        ids = set(range(self.samples)).intersection(*(self._place.get(m, {}) for m in modalities))
        return sorted(ids)

    def stream(self, modality: str, ids: list[int]) -> TokenStream:
        """The tokens ``(B, N, C)`` of these samples, float32."""
        rows = [self._place[modality][i] for i in ids]
        values = torch.stack([self._values[modality][part][row] for part, row in rows]).float()
        return TokenStream.dense(values, self.positions[modality])


def encode_dataset(
    data: ShardDataset, tokenizers: Mapping[str, Any], hashes: Mapping[str, str], folder: Path, max_samples: int = 0
) -> LatentDataset:
    """Encode ``data`` into ``folder``, or open it when it holds the same thing already.

    Args:
        tokenizers: modality -> tokenizer. ``image`` of a video without stills is one frame of it, drawn by the
            sample's id.
        hashes: modality -> :func:`fingerprint` of its tokenizer.
        max_samples: only the first so many; 0 for all.

    Raises:
        UserError: the folder holds latents of other data or tokenizers; samples differ in shape.
    """
    count = min(len(data), max_samples) if max_samples else len(data)
    wanted = {
        "format": FORMAT,
        "version": VERSION,
        "data": str(data.folder),
        "samples": count,
        "tokenizers": dict(hashes),
    }
    state = folder / "latents.json"
    if state.exists():
        about = _about(folder)
        differing = [k for k, v in wanted.items() if about.get(k) != v]
        if differing:
            raise UserError(
                f"{folder} holds latents of another {' and '.join(differing)}; remove the folder or name "
                f"another in data.latents"
            )
        return LatentDataset(folder)

    folder.mkdir(parents=True, exist_ok=True)
    positions: dict[str, Tensor] = {}
    captions: list[tuple[str, ...]] = []
    draft = folder / "draft.json"
    if draft.exists() and json.loads(draft.read_text()) != wanted:
        raise UserError(f"{folder} holds half-encoded latents of other data or tokenizers; remove the folder")
    draft.write_text(json.dumps(wanted))
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,  # decoders release the interpreter's lock
        tqdm(total=count, desc=f"encoding {data.folder.name}", unit="sample") as progress,
    ):
        for start in range(0, count, PART):
            part = folder / f"part-{start // PART:05d}.safetensors"
            side = folder / f"part-{start // PART:05d}.captions.json"
            if part.exists() and side.exists():
                captions += [tuple(c) for c in json.loads(side.read_text())]
                progress.update(min(PART, count - start))
                continue
            samples = list(pool.map(data.__getitem__, range(start, min(start + PART, count))))
            tensors: dict[str, Tensor] = {}
            for modality, tokenizer in tokenizers.items():
                media = {s.id: m for s in samples if (m := media_of(s, modality)) is not None}
                if media:
                    values, place = _encode(tokenizer, modality, list(media.values()), data, list(media))
                    if modality in positions and positions[modality].shape != place.shape:
                        raise UserError(_differ(data, modality, positions[modality].shape[0], place.shape[0]))
                    positions[modality] = place
                    tensors[f"{modality}.values"] = values.half()
                    tensors[f"{modality}.ids"] = torch.tensor(list(media))
            texts = [list(s.captions) for s in samples]
            _replace(side, json.dumps(texts))
            _save(tensors, part)
            if positions:
                _save(positions, folder / "positions.safetensors")
            captions += [tuple(t) for t in texts]
            progress.update(len(samples))
    _replace(folder / "captions.jsonl", "".join(json.dumps(c, ensure_ascii=False) + "\n" for c in captions))
    _replace(state, json.dumps(wanted, indent=1))
    for leftover in [draft, *folder.glob("part-*.captions.json")]:
        leftover.unlink()
    return LatentDataset(folder)


def media_of(sample: Sample, modality: str) -> Any:
    """The sample's medium of a modality, or None. An ``image`` of a video is one of its frames, fixed by the sample's
    id.
    """
    if modality == "image" and sample.image is None and sample.video is not None:
        frames = sample.video.frames
        return Image(frames[Randomness(0).integer("frame of a video", sample.id, len(frames))])
    return getattr(sample, modality, None)


def _encode(
    tokenizer: Any, modality: str, media: list[Any], data: ShardDataset, ids: list[int]
) -> tuple[Tensor, Tensor]:
    values, positions = [], None
    for i in range(0, len(media), 16):
        try:
            stream = tokenizer.encode(media[i : i + 16])
        except UserError as error:
            raise UserError(
                f"{data.folder}, one of samples {ids[i]} to {ids[min(i + 15, len(ids) - 1)]}: {error}"
            ) from None
        if not bool(stream.valid.all()):
            raise UserError(_differ(data, modality, 0, 0))
        if not bool(torch.isfinite(stream.values).all()):
            raise UserError(f"{data.folder}: {modality} latents of samples {ids[i]} and following are not finite")
        if positions is not None and positions.shape != stream.positions.shape[1:]:
            raise UserError(_differ(data, modality, positions.shape[0], stream.positions.shape[1]))
        positions = stream.positions[0].cpu()
        values.append(stream.values.cpu())
    assert positions is not None
    return torch.cat(values), positions.contiguous()


def _differ(data: ShardDataset, modality: str, a: int, b: int) -> str:
    sizes = f" ({a} and {b} tokens)" if a else ""
    return (
        f"{data.folder}: samples differ in the size of their {modality}{sizes}; run `selfflow-mm "
        f"prepare` to cut them alike"
    )


def _about(folder: Path) -> dict[str, Any]:
    about = json.loads((folder / "latents.json").read_text())
    if about.get("format") != FORMAT or about.get("version") != VERSION:
        raise UserError(
            f"{folder}/latents.json is {about.get('format')} version {about.get('version')}; this release "
            f"reads {FORMAT} {VERSION}"
        )
    return about


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    beside = path.with_name(path.name + ".tmp")
    save_tensors(tensors, beside)
    os.replace(beside, path)


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
