"""Reading and writing ImageNet transformers: the released ``.pt`` file, copies of it, training checkpoints, and ours.

    net = load_imagenet("selfflow_imagenet256.pt")
    save_imagenet(net, "selfflow_imagenet256.safetensors")

Our files are safetensors with the shape of the network in their metadata; of others it is read off the tensors.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from selfflow_tokenizers.tensor_file import save_tensors

from ..config import from_dict
from ..errors import UserError
from .imagenet import IMAGENET_XL_2, ImageNetConfig, SelfFlowPerTokenDiT

FORMAT, VERSION = "selfflow-imagenet", 1
#: Under these names a checkpoint may keep its weights; the first that is there counts. The paper evaluates the EMA.
WRAPPERS = ("ema", "model", "state_dict")
#: What data-parallel training, torch.compile, our own training, and wrappers laid flat put before every name.
PREFIXES = ("module.", "_orig_mod.", "net.", *(f"{wrapper}." for wrapper in WRAPPERS))
_HEADS = {IMAGENET_XL_2.hidden_size: IMAGENET_XL_2.num_heads}


def load_imagenet(
    path: Path | str, config: ImageNetConfig | None = None, *, num_heads: int | None = None
) -> SelfFlowPerTokenDiT:
    """The network in a file, on the CPU in float32.

    Args:
        path: ``.pt`` or ``.pth`` (read with ``weights_only=True``, so that no code in it runs) or ``.safetensors``; the
            weights bare or under ``ema``, ``model`` or ``state_dict``, with or without ``module.`` before their names.
        config: the network's shape. None takes it from our own files' metadata, else from the tensors' shapes; patches
            are then 2 x 2, as in all released files.
        num_heads: what the shapes do not show; width 1152 has 16 unless named.

    Raises:
        UserError: a file that cannot be read, holds other things than tensors, or does not match; with the missing and
            unexpected names and the shapes that differ.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    ending = path.suffix.lower()
    if ending == ".safetensors":
        weights, stored = _read_safetensors(path)
    elif ending in (".pt", ".pth"):
        weights, stored = _read_pickle(path), None
    else:
        raise UserError(f"{path}: weights are .pt, .pth or .safetensors files")
    weights = _without_prefix(weights)
    config = config or stored or infer_config(weights, str(path), num_heads)
    if num_heads is not None and num_heads != config.num_heads:
        raise UserError(f"{path}: its network has {config.num_heads} heads, num_heads says {num_heads}")
    with torch.device("meta"):
        net = SelfFlowPerTokenDiT.from_config(config)
    _check_match(net.state_dict(), weights, str(path))
    # A copy, because tensors of a .pt lie in a mapping of the file, which somebody may overwrite.
    net.load_state_dict({k: v.to(torch.float32, copy=True) for k, v in weights.items()}, assign=True)
    return net.eval()


def save_imagenet(net: SelfFlowPerTokenDiT, path: Path | str) -> Path:
    """Write a ``.safetensors`` file with the config in its metadata; it appears when it is complete."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: an ImageNet transformer is written as .safetensors")
    about = {"format": FORMAT, "version": VERSION, "config": asdict(net.config)}
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        tensors = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
        save_tensors(tensors, beside, metadata={"format": "pt", "selfflow": json.dumps(about)})
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be written: {error}") from error
    finally:
        beside.unlink(missing_ok=True)
    return path


def infer_config(weights: Mapping[str, Tensor], where: str, num_heads: int | None = None) -> ImageNetConfig:
    """The shape of the network from the shapes of its weights; patches are taken to be 2 x 2.

    Raises:
        UserError: the weights are of another family, or the number of heads is needed.
    """
    read = {
        "pos_embed": 3,
        "x_embedder.proj.weight": 2,
        "final_layer.linear.weight": 2,
        "y_embedder.embedding_table.weight": 2,
        "blocks.0.mlp.fc1.weight": 2,
    }
    lacking = [name for name, ndim in read.items() if name not in weights or weights[name].ndim != ndim]
    if lacking:
        raise UserError(
            f"{where} holds no ImageNet transformer of this family: {_some(lacking)} missing or of another rank among "
            f"its {len(weights)} tensors ({_some(sorted(weights))})"
        )
    _, tokens, width = weights["pos_embed"].shape
    channels, outputs = weights["x_embedder.proj.weight"].shape[1], weights["final_layer.linear.weight"].shape[0]
    patch = IMAGENET_XL_2.patch_size
    if math.isqrt(tokens) ** 2 != tokens or channels % patch**2 or outputs not in (channels, 2 * channels):
        raise UserError(
            f"{where}: {tokens} tokens of {channels} channels in and {outputs} out are no square of 2 x 2 patches; "
            "give the config"
        )
    heads = num_heads or _HEADS.get(width)
    if heads is None:
        raise UserError(
            f"{where}: the shapes do not show how many heads a width of {width} has; give num_heads (--num-heads)"
        )
    return ImageNetConfig(
        input_size=math.isqrt(tokens) * patch,
        patch_size=patch,
        in_channels=channels // patch**2,
        hidden_size=width,
        depth=1 + max(int(m[1]) for m in (re.match(r"blocks\.(\d+)\.", name) for name in weights) if m),
        num_heads=heads,
        mlp_ratio=weights["blocks.0.mlp.fc1.weight"].shape[0] / width,
        num_classes=weights["y_embedder.embedding_table.weight"].shape[0],
        learn_sigma=outputs == 2 * channels,
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], ImageNetConfig | None]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("selfflow", "null"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        return weights, None
    if about.get("version") != VERSION:
        raise UserError(f"{path} is {FORMAT} version {about.get('version')}; this release reads {VERSION}")
    return weights, from_dict(ImageNetConfig, about["config"], str(path))


def _read_pickle(path: Path) -> dict[str, Tensor]:
    with open(path, "rb") as file:
        if file.read(2)[:1] not in (b"P", b"\x80"):  # a zip archive (since 2020) or a bare pickle
            raise UserError(f"{path} is no PyTorch file")
    try:
        # Mapped where the format allows it: of a training checkpoint with optimizer state only the weights are read.
        state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds Python objects beside tensors, which could run code when read; save the weights alone, "
            "torch.save(model.state_dict(), ...), where the file comes from"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read as a PyTorch file: {str(error).splitlines()[0]}") from error
    for name in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
            break
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        raise UserError(
            f"{path} holds no weights: a mapping from names to tensors, bare or under {', '.join(WRAPPERS)}"
        )
    others = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise UserError(f"{path}: {_some(others)} among its weights are no tensors")
    return {str(name): value for name, value in state.items()}


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    while weights and (prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in weights)), None)):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _check_match(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], where: str) -> None:
    missing, unexpected = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    other = [
        f"{name} is {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    ]
    faults = [
        f"{len(names)} {what} ({_some(names)})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", other))
        if names
    ]
    if faults:
        raise UserError(f"{where} does not match the network of its shape: {', '.join(faults)}")


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
