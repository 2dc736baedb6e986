"""The parts a run is made of, built from its config: tokenizers, text encoder, latents, model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from selfflow_tokenizers import ByteTextEncoder, load_tokenizer

from ..data.latents import LatentDataset, encode_dataset, fingerprint
from ..data.shards import ShardDataset
from ..errors import UserError
from ..generation.pipeline import Geometry
from ..models.joint import JointConfig, JointTransformer
from ..weights import find_weights
from .config import SourceConfig, TrainConfig
from .encoders import encoder_width


def load_tokenizers(named: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Path]]:
    """Modality -> tokenizer, and modality -> its folder. A folder named twice is loaded once."""
    folders = {m: find_weights(path) for m, path in named.items()}
    loaded = {folder: load_tokenizer(folder) for folder in dict.fromkeys(folders.values())}
    for modality, folder in folders.items():
        made_for = loaded[folder].spec.modality
        if modality != made_for and (modality, made_for) != ("image", "video"):
            raise UserError(f"tokenizers.{modality}: {folder} is a tokenizer of {made_for}")
    return {m: loaded[folder] for m, folder in folders.items()}, folders


def complete_model_config(config: TrainConfig, tokenizers: Mapping[str, Any], text_encoder: Any) -> JointConfig:
    """The model's config with the channels of its modalities and text taken from the specs."""
    channels = {m: t.spec.channels for m, t in tokenizers.items()}
    stated = config.model.modalities
    for name, count in stated.items():
        if channels.get(name, count) != count:
            raise UserError(f"model.modalities.{name} is {count}, its tokenizer has {channels[name]} channels")
    text = config.model.text_channels or text_encoder.spec.channels
    if text != text_encoder.spec.channels:
        raise UserError(f"model.text_channels is {text}, the text encoder has {text_encoder.spec.channels}")
    completed = replace(config.model, modalities={**channels, **stated}, text_channels=text)
    return completed if config.objective.name != "repa" else _projected(completed, config.objective.encoders)


def _projected(model: JointConfig, encoders: Mapping[str, str]) -> JointConfig:
    """REPA's head gives features as wide as the encoder's."""
    width = encoder_width(encoders)
    if model.projector_channels not in (0, width):
        raise UserError(f"model.projector_channels is {model.projector_channels}, the encoder's features have {width}")
    return replace(model, projector_channels=width)


def blind_to_word_order(model: JointConfig, text_encoder: Any) -> str:
    """A warning where no word could tell its place, or nothing.

    Codes of words say nothing of their order; only the position's index does, and the model may have no channels for
    it (the paper's has none: its text encoder is contextual).
    """
    if model.rope_axes[3] or not isinstance(text_encoder, ByteTextEncoder):
        return ""
    return (
        "note: this model cannot tell the order of words: the bundled text encoder gives each word alone, and "
        f"model.rope_axes {list(model.rope_axes)} leaves the index (the last axis) no channels"
    )


def build_text_encoder() -> ByteTextEncoder:
    return ByteTextEncoder()


def build_model(config: JointConfig, seed: int) -> JointTransformer:
    """A freshly initialised model; the initialisation depends on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return JointTransformer(config)


def encode_sources(
    config: TrainConfig, tokenizers: Mapping[str, Any], folders: Mapping[str, Path], out: Path
) -> dict[str, tuple[SourceConfig, LatentDataset]]:
    """Open or make the latents of every source, each in a folder of its own."""
    root = Path(config.data.latents) if config.data.latents else out / "latents"
    hashes = {m: fingerprint(folder) for m, folder in folders.items()}
    sources = {}
    for name, source in config.data.sources.items():
        if source.ratio > 0:
            data = ShardDataset(source.path)
            sources[name] = (source, encode_dataset(data, tokenizers, hashes, root / name, source.max_samples))
    return sources


def clip_geometry(config: TrainConfig) -> Geometry:
    """The clip sizes of the data, which generation takes for its own when asked for nothing else.

    Samples of a data set are cut alike, so the first with a modality speaks for all; later sources win.
    """
    found: dict[str, Any] = {}
    for source in config.data.sources.values():
        data = ShardDataset(source.path)
        missing = set(data.info["modalities"])
        for i in range(min(len(data), 64)):
            if not missing:
                break
            sample = data[i]
            if "video" in missing and sample.video is not None:
                frames, height, width, _ = sample.video.frames.shape
                found |= {"frames": frames, "height": height, "width": width, "fps": sample.video.fps}
                missing -= {"video", "image"}
            if "image" in missing and sample.image is not None:
                found |= {"height": sample.image.pixels.shape[0], "width": sample.image.pixels.shape[1]}
                missing -= {"image"}
            if "audio" in missing and sample.audio is not None:
                found["samples"] = sample.audio.waveform.shape[1]
                missing -= {"audio"}
    return Geometry(**found)


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA, else MPS, else the CPU."""
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"device '{name}' is not available here ({str(error).splitlines()[0]}); try device auto"
            ) from None
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """``auto``: bfloat16 on CUDA and on CPUs with bfloat16 instructions (elsewhere it is emulated and many times
    slower).
    """
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    if device.type == "cuda":
        return torch.bfloat16
    fast = device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
    return torch.bfloat16 if fast else torch.float32
