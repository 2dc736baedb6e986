"""The parts a run is made of, built from its config: tokenizers, text encoder, latents, model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from selfflow_tokenizers import ByteTextEncoder, load_tokenizer
from selfflow_tokenizers.pretrained import ADAPTERS
from selfflow_tokenizers.text import TextEncoder, load_text_encoder
from selfflow_tokenizers.text_cache import CachedTextEncoder

from ..conditions import Conditions
from ..data.encode_dataset import encode_dataset
from ..data.latents import QUARANTINE, LatentDataset, fingerprint, read_about, refuse_other_tokenizers
from ..data.latents_copy import described_at, latents_at
from ..data.shards import ShardDataset
from ..data.sizes import sizes_at
from ..errors import UserError
from ..generation.pipeline import Geometry
from ..models.joint import JointConfig, JointTransformer
from ..weights import BUNDLED, find_weights
from .batches import Batches
from .config import SourceConfig, TextConfig, TrainConfig
from .encoders import encoder_width
from .packing import PackedBatches
from .ranks import Ranks


def load_tokenizers(
    named: Mapping[str, str], load: Callable[[str], Any] = load_tokenizer
) -> tuple[dict[str, Any], dict[str, str]]:
    """Modality -> tokenizer, and modality -> where it is from. What is named twice is loaded once.

    Args:
        named: modality -> folder, bundled or pretrained name, or hub id.
        load: makes a tokenizer of where it is from.

    Raises:
        UserError: there is none of a name, or it is of another modality.
    """
    sources = {m: _tokenizer_source(m, name) for m, name in named.items()}
    loaded = {source: load(source) for source in dict.fromkeys(sources.values())}
    for modality, source in sources.items():
        made_for = loaded[source].spec.modality
        if modality != made_for and (modality, made_for) != ("image", "video"):
            raise UserError(f"tokenizers.{modality}: {source} is a tokenizer of {made_for}")
    return {m: loaded[source] for m, source in sources.items()}, sources


def _tokenizer_source(modality: str, name: str) -> str:
    """A bundled tokenizer's folder; other folders, names of pretrained ones and hub ids stay as they are."""
    if name in BUNDLED or Path(name).expanduser().is_dir():
        return str(find_weights(name))
    adapter, _, _ = name.partition(":")
    if adapter not in ADAPTERS and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(
            f"tokenizers.{modality}: there is no folder '{name}'; give a folder, a hub id, "
            f"{' or '.join(name for name in BUNDLED if '/' in name)}, or a pretrained one ({', '.join(ADAPTERS)}), "
            "with its weights behind a colon where they lie in a folder"
        )
    return name


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


def build_text_encoder(config: TextConfig) -> TextEncoder:
    """The encoder of captions. Its files are checked; its weights are read when they are first needed.

    Raises:
        UserError: it is not here, or settings do not fit it.
    """
    try:
        return load_text_encoder(**config.settings())
    except UserError as error:
        raise UserError(f"text: {error}") from error


def encode_captions(
    config: TrainConfig,
    encoder: TextEncoder,
    sources: Mapping[str, tuple[SourceConfig, LatentDataset]],
    out: Path,
    device: torch.device,
    *,
    quiet: bool = False,
) -> TextEncoder:
    """Encode every caption of the data, the empty one and the prompts ahead of training, and free the encoder.

    Returns:
        an encoder that reads them from the disk; the bundled one, which has nothing to free, as it is.
    """
    if isinstance(encoder, ByteTextEncoder):
        return encoder
    datasets = [data for _, data in sources.values()]
    folder = config.text.cache or out / "text"
    return store_captions(encoder, datasets, folder, device, also=config.run.prompts, quiet=quiet)


def store_captions(
    encoder: TextEncoder,
    datasets: Iterable[LatentDataset],
    folder: str | Path,
    device: torch.device,
    also: Iterable[str] = (),
    *,
    quiet: bool = False,
) -> CachedTextEncoder:
    """Store the embeddings of every caption of data sets, of the empty one and of ``also``, and free the encoder."""
    cached = CachedTextEncoder(encoder.to(device), folder)
    captions = (caption for data in datasets for wordings in data.captions for caption in wordings)
    new = cached.fill(chain(["", *also], captions))
    cached.unload()
    texts, tokens, size = cached.size()
    if not quiet:
        print(
            f"captions: {texts:,} texts of {tokens / texts:.1f} tokens, {size / texts / 1024:.1f} KiB each, "
            f"{size / 2**20:,.1f} MiB in {cached.folder} ({new:,} of them new)"
        )
    return cached


def with_weights(config: JointConfig, weights: Mapping[str, torch.Tensor]) -> JointTransformer:
    """A model with these weights, which are not copied."""
    with torch.device("meta"):
        model = JointTransformer(config)
    model.load_state_dict(weights, assign=True)
    return model


def build_model(config: JointConfig, seed: int) -> JointTransformer:
    """A freshly initialised model; the initialisation depends on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return JointTransformer(config)


def encode_sources(
    config: TrainConfig, tokenizers: Mapping[str, Any], named: Mapping[str, str], out: Path, *, quiet: bool = False
) -> dict[str, tuple[SourceConfig, LatentDataset]]:
    """Open or make the latents of every source, those made here each in a folder of its own."""
    root = Path(config.data.latents) if config.data.latents else out / "latents"
    hashes = {m: fingerprint(tokenizers[m], source) for m, source in named.items()}
    sources = {}
    for name, source in config.data.sources.items():
        if source.ratio > 0:
            if latents := latents_at(source.path):
                data = LatentDataset(latents, source.max_samples)
            else:
                raw = ShardDataset(source.path)
                data = encode_dataset(raw, tokenizers, hashes, root / name, source.max_samples)
            lost = sum(item.id < data.samples for item in data.left_out)
            if lost and not quiet:
                print(f"{name}: {lost} of {data.samples:,} samples are left out, see {data.folder / QUARANTINE}")
            sources[name] = (source, data)
    return sources


def build_batches(
    config: TrainConfig, sources: Mapping[str, tuple[SourceConfig, LatentDataset]], text_encoder: Any, ranks: Ranks
) -> Batches:
    """The batches of a run: packed, or of one task of one source each."""
    settings = (sources, text_encoder, config.run.seed, config.objective.caption_dropout, ranks)
    if config.data.pack:
        return PackedBatches(*settings, budget=config.data.pack, rows=config.run.accumulate)
    return Batches(*settings, pad_text=config.text.pad_to)


def refuse_uneven(config: TrainConfig, model: JointConfig, ranks: Ranks) -> None:
    """Batches can be shared among processes and passes, and heads among those that share a sample's tokens.

    Raises:
        UserError: they cannot.
    """
    if model.heads % ranks.context:
        raise UserError(
            f"parallel.context is {ranks.context} and shares the model's {model.heads} heads in attention; take a "
            "divisor of them"
        )
    if config.data.pack:
        return
    for name, source in config.data.sources.items():
        parts = ranks.shares * config.run.accumulate
        if source.ratio > 0 and source.batch % parts:
            raise UserError(
                f"data.sources.{name}.batch is {source.batch}, which {ranks.shares} processes in "
                f"{config.run.accumulate} passes (run.accumulate) cannot share; take a multiple of {parts}"
            )


def refuse_other_latents(config: TrainConfig, tokenizers: Mapping[str, Any], named: Mapping[str, str]) -> None:
    """Sources that are latents are of this run's tokenizers and have what its tasks need.

    Raises:
        UserError: they are of others, lack a modality, or are not encoded to their end.
    """
    names = {m: t.spec.name for m, t in tokenizers.items()}
    hashes = {m: fingerprint(tokenizers[m], source) for m, source in named.items()}
    for name, source in config.data.sources.items():
        if source.ratio == 0 or (latents := described_at(source.path)) is None:
            continue
        try:
            held = read_about(latents)["tokenizers"]
            refuse_other_tokenizers(latents, names, hashes)
        except UserError as error:
            raise UserError(f"data.sources.{name}: {error}") from None
        for task, share in source.tasks.items():
            lacking = [m for m in Conditions.named(task).modalities if m not in held]
            if share > 0 and lacking:
                raise UserError(
                    f"data.sources.{name}: {source.path} holds latents of {' and '.join(held)} only, and task {task} "
                    f"needs {' and '.join(lacking)}; drop the task, or encode the data set with a tokenizer for it"
                )


def clip_geometry(config: TrainConfig) -> Geometry:
    """The clip sizes of the data, which generation takes for its own when asked for nothing else, as far as they are
    known before anything is encoded.
    """
    return geometry_of(source.path for source in config.data.sources.values())


def geometry_of(paths: Iterable[str]) -> Geometry:
    """The sizes of the samples of data sets, raw or latents; the first that has a modality speaks for it."""
    return _first_of(sizes_at(path) for path in paths)


def encoded_geometry(sources: Mapping[str, tuple[SourceConfig, LatentDataset]]) -> Geometry:
    """The same of what was encoded, where the most common size of each data set is known."""
    return _first_of(data.about.get("sizes") or sizes_at(source.path) for source, data in sources.values())


def _first_of(sizes: Iterable[dict[str, Any]]) -> Geometry:
    found: dict[str, Any] = {}
    for one in sizes:
        found = one | found
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
        known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        if precision not in known:
            raise UserError(f"precision is auto, float32 or bfloat16, not '{precision}'")
        return known[precision]
    if device.type == "cuda":
        return torch.bfloat16
    fast = device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
    return torch.bfloat16 if fast else torch.float32
