"""``selfflow-mm decode``: tokens back to a media file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "decode an encoded file back to a video, sound or image"
EXAMPLES = """examples:
  selfflow-mm decode clip.safetensors --out back.mp4
  selfflow-mm decode clip.safetensors --out sound.wav
  selfflow-mm decode photo.safetensors --out photo.png --tokenizer weights/flux2

FILE is what `selfflow-mm encode` wrote; it names its tokenizers, so --tokenizer is for those that have moved. The
ending of --out says what is written: .mp4 a video with its sound, .wav the sound alone, .png an image.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="FILE", help="a .safetensors file made by `selfflow-mm encode`")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="an .mp4, .wav or .png file")
    parser.add_argument("--tokenizer", action="append", default=[], metavar="T", help="where a tokenizer is now")
    parser.add_argument("--crf", type=int, default=18, help="H.264 quality, 0 best to 51 (default: 18)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda")
    parser.add_argument("--download", action="store_true", help="fetch a tokenizer from the hub where it is not here")


def run(args: argparse.Namespace) -> int:
    from ..data.decode_file import decode_file, media_to_decode
    from ..data.encoded import EncodedFile
    from .seconds_bar import SecondsBar

    file = EncodedFile(args.source)
    chosen = media_to_decode(file, args.out)
    tokenizers = _load(args, file, chosen)
    with SecondsBar("decoding") as bar:
        decode_file(file, args.out, tokenizers, crf=args.crf, progress=bar)
    left = [m for m in file.tracks if m not in chosen]
    print(f"{args.out}: {' and '.join(chosen)}, {args.out.stat().st_size / 1e6:.2f} MB")
    if left:
        print(f"  its {' and '.join(left)} was left out")
    return 0


def _load(args: argparse.Namespace, file: Any, chosen: tuple[str, ...]) -> dict[str, Any]:
    """Medium -> tokenizer: one of ``--tokenizer`` where it is for that medium, else the one the file names."""
    from ..errors import UserError
    from ..training.parts import pick_device
    from ..weights.tokenizers import named_tokenizer

    device = pick_device(args.device)
    given: dict[bool, Any] = {}
    for name in args.tokenizer:
        named = named_tokenizer(name, download=args.download)
        if not any((m == "audio") == (named.spec.modality == "audio") for m in chosen):
            raise UserError(f"'{name}' is a tokenizer of {named.spec.modality}, and {' and '.join(chosen)} is decoded")
        given[named.spec.modality == "audio"] = named
    found: dict[str, Any] = {}
    for medium in chosen:
        tokenizer: Any = given.get(medium == "audio")
        if tokenizer is None:
            track = file.tracks[medium]
            try:
                tokenizer = named_tokenizer(track.tokenizer, download=args.download)
            except UserError as error:
                raise UserError(
                    f"the {medium} of '{args.source}' was encoded by '{track.tokenizer}' ({track.spec.name}), which "
                    f"cannot be loaded ({error}); say where it is with --tokenizer"
                ) from error
        found[medium] = tokenizer.to(device)
    return found
