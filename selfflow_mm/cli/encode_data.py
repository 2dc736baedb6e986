"""``selfflow-mm encode`` of a data set: latents of every sample, once."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path


def is_data_set(source: Path | str) -> bool:
    """Whether this is a prepared data set or WebDataset tars (a folder, a glob or one), rather than media. Of stores
    nothing else is read.
    """
    if isinstance(source, str):
        return True
    if source.is_dir():
        return (source / "dataset.json").is_file() or any(source.glob("*.tar"))
    return source.suffix == ".tar"


def encode_data(args: argparse.Namespace) -> int:
    """Encode, and say what there is now."""
    from safetensors import SafetensorError

    from selfflow_tokenizers import load_tokenizer

    from ..data.encode_dataset import encode_dataset
    from ..data.latents import fingerprint
    from ..data.parallel import available_cores
    from ..data.shards import ShardDataset
    from ..errors import UserError
    from ..training.config import TextConfig
    from ..training.parts import build_text_encoder, load_tokenizers, pick_device, store_captions
    from .inspect import latents

    if args.size is not None:
        raise UserError("--size is for media files; the clips of a data set are cut by `selfflow-mm prepare`")
    if args.workers is not None and args.workers < 0:
        raise UserError(f"--workers is 0 or more, got {args.workers}")
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"'{args.out}' is a file; the latents of a data set go into a folder")
    device = pick_device(args.device)
    on_cpu = device.type == "cpu"
    if args.workers and not on_cpu:
        raise UserError(f"--workers are for a CPU, and the device is {device}; leave it out, or take --device cpu")
    text = None
    if args.text is not None:
        tokens = TextConfig.max_tokens if args.text_tokens is None else args.text_tokens
        text = build_text_encoder(TextConfig(encoder=args.text, max_tokens=tokens))
        if args.text == "bytes":
            raise UserError("the text encoder 'bytes' needs no stored embeddings; leave --text out")
    elif args.text_tokens is not None:
        raise UserError("--text-tokens is for the encoder that --text names")
    load = partial(load_tokenizer, download=args.download)
    tokenizers, sources = load_tokenizers(_by_modality(args), load)
    data = ShardDataset(args.source)
    for tokenizer in tokenizers.values():
        tokenizer.to(device)
    hashes = {m: fingerprint(tokenizers[m], source) for m, source in sources.items()}
    workers = available_cores() if args.workers is None and on_cpu else args.workers or 0
    try:
        found = encode_dataset(data, tokenizers, hashes, args.out, workers=workers, sources=sources, load=load)
    except (OSError, SafetensorError) as error:  # a full disk, a store that is gone
        raise UserError(f"stopped: {error}; the same command goes on where it was") from error
    if text is not None:
        store_captions(text, [found], args.out / "text", device)
    print("\n".join(latents(args.out)))
    extra = f" text.encoder={args.text} text.cache={args.out / 'text'}" if text is not None else ""
    print(f"Train on them with data.sources.NAME.path={args.out}{extra}")
    return 0


def _by_modality(args: argparse.Namespace) -> dict[str, str]:
    """Modality -> name of its tokenizer, in the order of a training configuration."""
    from ..errors import UserError
    from ..weights.tokenizers import named_tokenizer

    found: dict[str, str] = {}

    def put(modality: str, name: str) -> None:
        if found.setdefault(modality, name) != name:
            raise UserError(f"{found[modality]} and {name} are both for {modality}; name one of them")

    for modality in ("video", "audio", "image"):
        if getattr(args, modality) is not None:
            put(modality, getattr(args, modality))
    for name in args.tokenizer:
        put(named_tokenizer(name, download=args.download).spec.modality, name)
    if "video" in found:
        found.setdefault("image", found["video"])  # as training has it: a still is a video of one frame
    return {m: found[m] for m in ("image", "video", "audio") if m in found}
