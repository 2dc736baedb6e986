"""The files of a text encoder of transformers: where they are, whether they are whole, and which weights they hold.

Everything here reads kilobytes, so that a dry run can tell at once whether an encoder of gigabytes is at hand.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError

#: Files that hold a vocabulary; without one of them transformers silently makes an empty tokenizer.
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json", "*.model", "*.tiktoken", "*.bpe")
#: Tokenizers that need no vocabulary.
_NO_VOCABULARY = ("ByT5Tokenizer",)
#: Keys of config files that say by which software a file was written, not what it holds.
_INCIDENTAL = ("transformers_version", "_name_or_path", "name_or_path", "dtype", "torch_dtype", "tokenizer_file")
#: Bytes looked at in three places of every tensor.
_BLOCK = 1024


@dataclass(frozen=True)
class TextFiles:
    """Folders of one encoder: of the weights, of the tokenizer, and of both (where the model card is)."""

    source: str
    root: Path
    weights: Path
    tokenizer: Path


def find_files(source: str | Path, *, download: bool = False) -> TextFiles:
    """The folders of an encoder, checked as far as names and sizes tell.

    Args:
        source: a folder, or a hub id that lies in the hub's cache. Either a model of its own, or a pipeline that keeps
            its encoder in ``text_encoder`` and ``tokenizer`` (FLUX.2, Wan, LTX).
        download: fetch it from the hub where it is not cached.

    Raises:
        UserError: it is not there, or its config, weights or vocabulary are missing or cut short.
    """
    root = _root(str(source), download)
    nested = not (root / "config.json").is_file() and (root / "text_encoder" / "config.json").is_file()
    weights = root / "text_encoder" if nested else root
    if not (weights / "config.json").is_file():
        raise UserError(f"{source} is no text encoder: it has neither config.json nor text_encoder/config.json")
    tokenizer = root / "tokenizer" if nested or not _has_vocabulary(root) else root
    files = TextFiles(str(source), root, weights, tokenizer if tokenizer.is_dir() else weights)
    if not _has_vocabulary(files.tokenizer):
        raise UserError(
            f"{source} has weights but no tokenizer ({', '.join(VOCABULARIES[:4])} or a .model file); " + _fetch(source)
        )
    _check_sentencepiece(files)
    for path in weight_files(files):
        header(path)
    return files


def weight_files(files: TextFiles) -> list[Path]:
    """The safetensors files that transformers reads.

    Raises:
        UserError: there are none, or one that the index names is missing.
    """
    index = files.weights / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_json(index).get("weight_map", {}).values()))
    else:
        names = ["model.safetensors"]
    missing = [name for name in names if not (files.weights / name).is_file()]
    if missing or not names:
        pickled = sorted(files.weights.glob("*.bin"))
        reason = f"; {pickled[0].name} is pickled, which is never read" if pickled else ""
        raise UserError(f"{files.weights} lacks {missing[0] if missing else 'weights'}{reason}; {_fetch(files.source)}")
    return [files.weights / name for name in names]


def header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensor -> type, shape, offsets.

    Raises:
        UserError: it is no such file, or shorter than its header says.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            raise UserError(f"{path} is no safetensors file or is cut short; fetch it again")
        try:
            found = json.loads(file.read(length))
        except ValueError as error:
            raise UserError(f"{path} is no safetensors file: {error}") from error
    found.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in found.values()), default=0)
    if size != 8 + length + end:
        raise UserError(f"{path} has {size:,} bytes and should have {8 + length + end:,}; fetch it again")
    return found


def fingerprint(files: TextFiles) -> str:
    """Hexadecimal digits that tell one encoder's weights and tokenizer from another's.

    Of every tensor name, type and shape count, and a KiB from its start, its middle and its end: any training moves
    nearly every number of a matrix, so another set of weights shows, and an encoder of 10 GB is told by reading a few
    megabytes. Config and tokenizer files count whole, but for the version of the software that wrote them.
    """
    digest = hashlib.sha256()
    for path in [files.weights / "config.json", *_tokenizer_files(files.tokenizer)]:
        digest.update(path.name.encode())
        if path.suffix == ".json" and path.name != "tokenizer.json":
            kept = {k: v for k, v in _json(path).items() if k not in _INCIDENTAL}
            digest.update(json.dumps(kept, sort_keys=True).encode())
        else:
            digest.update(path.read_bytes())
    tensors: dict[str, tuple[Path, int, dict[str, Any]]] = {}
    for path in weight_files(files):
        entries = header(path)
        end = max((e["data_offsets"][1] for e in entries.values()), default=0)
        start = path.stat().st_size - end
        tensors |= {name: (path, start, entry) for name, entry in entries.items()}
    for name in sorted(tensors):  # by name, so that other shards of the same weights are the same
        path, start, entry = tensors[name]
        begin, end = entry["data_offsets"]
        digest.update(f"{name} {entry['dtype']} {entry['shape']}".encode())
        with open(path, "rb") as file:
            for place in (begin, (begin + end) // 2, max(begin, end - _BLOCK)):
                file.seek(start + place)
                digest.update(file.read(min(_BLOCK, end - place)))
    return digest.hexdigest()


def licence(files: TextFiles) -> str:
    """What the model card's front matter says, else ``unknown``."""
    card = files.root / "README.md"
    if not card.is_file():
        return "unknown"
    front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    found = dict(re.findall(r"^(license|license_name):[ \t]*[\"']?([\w.+-]+)", front[1] if front else "", re.MULTILINE))
    return found.get("license_name") or found.get("license") or "unknown"


def _root(source: str, download: bool) -> Path:
    local = Path(source).expanduser()
    if local.is_dir():
        return local
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) or source.startswith("."):
        raise UserError(f"there is no folder '{source}', and it is no hub id either; a text encoder is 'bytes' or one")
    from huggingface_hub import snapshot_download

    try:
        wanted = _wanted(source) if download else None
        return Path(snapshot_download(source, local_files_only=not download, allow_patterns=wanted))
    except (OSError, ValueError, RuntimeError) as error:  # the hub's errors are of these kinds
        if download:
            raise UserError(f"{source} cannot be downloaded: {str(error).strip().splitlines()[0]}") from error
        raise UserError(
            f"the text encoder '{source}' is neither a folder nor in the hub's cache; " + _fetch(source)
        ) from error


def _wanted(source: str) -> list[str]:
    """The files of a hub repository that make an encoder: no pickles, no other parts of a pipeline."""
    from huggingface_hub import HfApi

    names = HfApi().list_repo_files(source)
    folders = ("",) if "config.json" in names else ("text_encoder/", "tokenizer/")
    endings = (".json", ".safetensors", ".model", ".txt", ".tiktoken", ".jinja")
    chosen = [n for n in names if n == "README.md" or n.endswith(endings)]
    return [n for n in chosen if n == "README.md" or any(n.startswith(f) and "/" not in n[len(f) :] for f in folders)]


def _fetch(source: str | Path) -> str:
    if Path(source).expanduser().is_dir():
        return "save or download the encoder into this folder again"
    folder = str(source).rsplit("/", 1)[-1]
    return (
        f"where there is a network, `hf download {source} --local-dir {folder}` (of a pipeline only --include "
        f"'text_encoder/*' 'tokenizer/*'), then name the folder {folder}"
    )


def _has_vocabulary(folder: Path) -> bool:
    if any(any(folder.glob(pattern)) for pattern in VOCABULARIES):
        return True
    about = folder / "tokenizer_config.json"
    return about.is_file() and _json(about).get("tokenizer_class") in _NO_VOCABULARY


def _check_sentencepiece(files: TextFiles) -> None:
    """Old repositories hold the vocabulary as a SentencePiece model only, which takes two packages to read."""
    folder = files.tokenizer
    if any((folder / name).is_file() for name in ("tokenizer.json", "tekken.json", "vocab.json")):
        return
    if any(folder.glob("*.model")):
        lacking = [
            package
            for module, package in (("sentencepiece", "sentencepiece"), ("google.protobuf", "protobuf"))
            if not _installed(module)
        ]
        if lacking:
            raise UserError(
                f"the tokenizer of {files.source} is a SentencePiece model, which needs a package that is not "
                f"installed: pip install {' '.join(lacking)} (a repository with tokenizer.json does without)"
            )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def _tokenizer_files(folder: Path) -> list[Path]:
    names = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.*", "merges.txt")
    return sorted({path for pattern in (*VOCABULARIES, *names) for path in folder.glob(pattern) if path.is_file()})


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return found
