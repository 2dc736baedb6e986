"""Tokenizers on disk and by name.

A tokenizer of ours is a folder with ``config.json`` (class, sizes, spec, version) and ``model.safetensors``; one around
a pretrained codec has the codec's name there and the library's own files in ``codec/``. Weights may be stored as
float16 and are always loaded as float32. Files are written beside their place and renamed into it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .errors import UserError
from .pretrained import ADAPTERS, adapter
from .spec import TokenizerSpec
from .tensor_file import save_tensors

if TYPE_CHECKING:
    from .audio_tokenizer import AudioTokenizer
    from .pretrained.base import PretrainedCodec
    from .video_tokenizer import VideoTokenizer

FORMAT, VERSION = "selfflow-tokenizer", 1
C = TypeVar("C")


def load_tokenizer(source: str | Path, *, download: bool = False) -> VideoTokenizer | AudioTokenizer:
    """Load a tokenizer, of whichever class it is.

    Args:
        source: a folder that ``save_pretrained`` wrote; a pretrained one by name (``flux2``, or
            ``flux2:FOLDER_OR_ID`` for weights in a folder or under another id); or the hub id of a tokenizer of ours.
        download: fetch what is not on this machine from the hub. Nothing is fetched unless asked for.

    Raises:
        UserError: nothing of that name here, not a tokenizer, a version or class this release cannot read.
    """
    name, _, where = str(source).partition(":")
    if name in ADAPTERS and not Path(source).is_dir():
        return tokenizer_from_codec(adapter(name).from_pretrained(where or None, download=download))
    folder = find_folder(source, download=download)
    data = read_config(folder)
    kind = data["class"]
    if kind not in ("VideoTokenizer", "AudioTokenizer"):
        raise UserError(f"{folder}: a tokenizer of class '{kind}' is unknown to this release")
    if "codec" in data:
        return _load_pretrained(folder, data)
    return _load_own(folder, data, kind)


def tokenizer_from_codec(codec: PretrainedCodec) -> VideoTokenizer | AudioTokenizer:
    """The tokenizer around a pretrained codec, with its authors' normalisation, patching, shifts and licence."""
    from .audio_tokenizer import AudioTokenizer
    from .video_tokenizer import VideoTokenizer

    mean, deviation = codec.statistics()
    about: dict[str, Any] = {
        "name": codec.name,
        "mean": mean,
        "deviation": deviation,
        "train_shift": codec.train_shift,
        "sample_shift": codec.sample_shift,
        "licence": codec.licence,
    }
    model: Any = codec
    if codec.modality == "audio":
        return AudioTokenizer(model, **about)
    return VideoTokenizer(model, patch=codec.patch, **about)


def find_folder(source: str | Path, *, download: bool = False) -> Path:
    """The folder of a path or, out of the hub's cache, of a hub id.

    Raises:
        UserError: there is none.
    """
    path = Path(source).expanduser()
    if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        return path
    from huggingface_hub import snapshot_download

    try:
        files = ["config.json", "model.safetensors", "codec/*"]
        return Path(snapshot_download(str(source), local_files_only=not download, allow_patterns=files))
    except (OSError, ValueError) as error:  # the hub's own errors are of these kinds
        name = str(source).split("/")[-1]
        raise UserError(
            f"{source} is no folder here and not in the hub's cache; fetch it with `hf download {source} --local-dir "
            f"{name}` where there is a network, and name {name}"
        ) from error


def _load_own(folder: Path, data: dict[str, Any], kind: str) -> VideoTokenizer | AudioTokenizer:
    from .audio_autoencoder import AudioAutoencoder, AudioAutoencoderConfig
    from .audio_tokenizer import AudioTokenizer
    from .video_autoencoder import VideoAutoencoder, VideoAutoencoderConfig
    from .video_tokenizer import VideoTokenizer

    if "model" not in data:
        raise UserError(f"{folder}/config.json lacks model; save the tokenizer again")
    tokenizer: VideoTokenizer | AudioTokenizer
    if kind == "VideoTokenizer":
        model: nn.Module = VideoAutoencoder(sizes_from(VideoAutoencoderConfig, data["model"], folder))
    else:
        model = AudioAutoencoder(sizes_from(AudioAutoencoderConfig, data["model"], folder))
    stored = load_weights(model, folder)
    if isinstance(model, VideoAutoencoder):
        tokenizer = VideoTokenizer(model, patch=data.get("patch", 1))
    else:
        assert isinstance(model, AudioAutoencoder)
        tokenizer = AudioTokenizer(model)
    tokenizer.spec, tokenizer.stored = TokenizerSpec.from_dict(data["spec"]), stored
    return tokenizer


def _load_pretrained(folder: Path, data: dict[str, Any]) -> VideoTokenizer | AudioTokenizer:
    from .video_tokenizer import VideoTokenizer

    tokenizer = tokenizer_from_codec(adapter(data["codec"]).from_pretrained(folder / "codec"))
    if isinstance(tokenizer, VideoTokenizer):
        tokenizer = tokenizer.patched(data.get("patch", 1))
    tokenizer.spec = TokenizerSpec.from_dict(data["spec"])
    return tokenizer


def save_tokenizer(
    folder: str | Path,
    tokenizer: VideoTokenizer | AudioTokenizer,
    codec: nn.Module,
    dtype: torch.dtype,
    **settings: Any,
) -> None:
    """Write the weights and then ``config.json``, each beside its place and renamed."""
    from .pretrained.base import PretrainedCodec

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {**settings, "spec": tokenizer.spec.to_dict()}
    if isinstance(codec, PretrainedCodec):
        config["codec"] = codec.name
        beside = folder / ".codec.tmp"
        shutil.rmtree(beside, ignore_errors=True)
        codec.save_pretrained(beside)
        shutil.rmtree(folder / "codec", ignore_errors=True)
        os.replace(beside, folder / "codec")
    else:
        about: Any = codec.config
        config = {"model": asdict(about), **config}
        state = {name: value.detach().to("cpu", dtype).contiguous() for name, value in codec.state_dict().items()}
        beside = folder / ".model.safetensors.tmp"
        save_tensors(state, beside, metadata={"format": "pt"})
        os.replace(beside, folder / "model.safetensors")
    beside = folder / ".config.json.tmp"
    data = {"format": FORMAT, "version": VERSION, "class": type(tokenizer).__name__, **config}
    beside.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, folder / "config.json")


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
    missing = {"class", "spec"} - set(data)
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


def weights_hash(model: nn.Module) -> str:
    """Eight hexadecimal digits that tell one set of weights from another (of their float16 values)."""
    digest = hashlib.sha256()
    state: dict[str, Tensor] = model.state_dict()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]
