"""Tokenizers on disk: a folder with ``config.json`` (class, sizes, spec, version) and ``model.safetensors``.

Weights may be stored as float16 and are always loaded as float32. Files are written beside their
place and renamed into it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .errors import UserError

if TYPE_CHECKING:
    from .audio_tokenizer import AudioTokenizer
    from .video_tokenizer import VideoTokenizer

FORMAT, VERSION = "selfflow-tokenizer", 1
C = TypeVar("C")


def load_tokenizer(folder: str | Path) -> VideoTokenizer | AudioTokenizer:
    """Load the tokenizer a folder holds, of whichever class its config.json names.

    Raises:
        UserError: no such folder, not a tokenizer, a version or class this release cannot read.
    """
    from .audio_tokenizer import AudioTokenizer
    from .video_tokenizer import VideoTokenizer

    kind = read_config(folder)["class"]
    for known in (VideoTokenizer, AudioTokenizer):
        if kind == known.__name__:
            return known.from_pretrained(folder)
    raise UserError(f"{folder}: a tokenizer of class '{kind}' is unknown to this release")


def read_config(folder: str | Path) -> dict[str, Any]:
    """The checked contents of a tokenizer's ``config.json``."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a tokenizer's folder: it has no config.json")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UserError(f"{path} is not the config of a tokenizer: its format is not '{FORMAT}'")
    if data.get("version") != VERSION:
        raise UserError(f"{path}: tokenizer version {data.get('version')} cannot be read; this release reads {VERSION}")
    missing = {"class", "model", "spec"} - set(data)
    if missing:
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}; save the tokenizer again")
    return data


def sizes_from(cls: type[C], data: dict[str, Any], where: str | Path) -> C:
    """Build a model config from JSON values; lists become tuples, unknown names are refused."""
    unknown = set(data) - {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if unknown:
        raise UserError(f"{where}: unknown sizes in config.json: {', '.join(sorted(unknown))}")
    try:
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})
    except TypeError as error:
        raise UserError(f"{where}: the sizes in config.json are not numbers: {error}") from error


def load_weights(model: nn.Module, folder: str | Path) -> torch.dtype:
    """Fill ``model`` (float32) from ``model.safetensors``; names and shapes must match exactly.

    Returns:
        the type the weights are stored as.
    """
    path = Path(folder) / "model.safetensors"
    try:
        state = load_file(path)
        model.load_state_dict({name: value.float() for name, value in state.items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"{path} does not hold this tokenizer's weights: {reason}") from error
    return next(iter(state.values())).dtype


def save(folder: str | Path, kind: str, model: nn.Module, config: dict[str, Any], dtype: torch.dtype) -> None:
    """Write ``model.safetensors`` and then ``config.json``, each beside its place and renamed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    beside = folder / ".model.safetensors.tmp"
    save_file(state, beside, metadata={"format": "pt"})
    beside.chmod(0o644)  # safetensors makes it readable for its owner only
    os.replace(beside, folder / "model.safetensors")
    beside = folder / ".config.json.tmp"
    data = {"format": FORMAT, "version": VERSION, "class": kind, **config}
    beside.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, folder / "config.json")


def weights_hash(model: nn.Module) -> str:
    """Eight hexadecimal digits that tell one set of weights from another (of their float16 values)."""
    digest = hashlib.sha256()
    state: dict[str, Tensor] = model.state_dict()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]
