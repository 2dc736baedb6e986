"""``selfflow-mm encode``: a media file, a folder of them, or a data set to tokens."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..data.encode_file import NamedTokenizer

HELP = "encode a video, sound or image, a folder of them, or a data set, to latent tokens"
EXAMPLES = """examples:
  selfflow-mm encode clip.mp4 --video tiny/video --audio tiny/audio --out clip.safetensors
  selfflow-mm encode photo.jpg --tokenizer flux2:weights/flux2 --out photo.safetensors
  selfflow-mm encode talks/ --tokenizer runs/audio/tokenizer --out talks-encoded
  selfflow-mm decode clip.safetensors --out back.mp4
  selfflow-mm encode world latents --video tiny/video --audio tiny/audio --workers 4
  selfflow-mm train tiny.yaml --out runs/first data.sources.world.path=latents

--tokenizer takes any, and what it is for decides what it encodes. Memory does not grow with the length of a film where
the tokenizer can go piece by piece. Of a folder every media file is encoded, to DIR/NAME.safetensors; those that are
there are left alone, so a stopped job goes on.

A data set (what `prepare` and `make-world` write, or WebDataset tars) is encoded once, and `train` reads the result in
its place. The same command goes on after a stop. Samples that cannot be encoded are listed in DST/quarantine.jsonl.
"""


#: Options that only a data set has.
_OF_DATA = ("image", "workers", "text", "text_tokens")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=_source, metavar="SRC", help="a media file, a folder of them, or a data set (a URL, too)"
    )
    parser.add_argument("target", type=Path, nargs="?", metavar="DST", help="the same as --out")
    parser.add_argument(
        "--out", type=Path, metavar="DST", help="a .safetensors file; of a folder or a data set, a folder"
    )
    parser.add_argument(
        "--tokenizer", action="append", default=[], metavar="T", help="for pictures or sound; twice for both"
    )
    parser.add_argument("--video", metavar="T", help="tokenizer of the picture")
    parser.add_argument("--audio", metavar="T", help="tokenizer of the sound")
    parser.add_argument(
        "--size", metavar="N|HxW", help="resize frames: their shorter side, or both (default: as they are)"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda")
    data = parser.add_argument_group("of a data set")
    data.add_argument(
        "--image", metavar="T", help="tokenizer of images, and of one frame of each video (default: T of --video)"
    )
    data.add_argument("--workers", type=int, metavar="N", help="processes on a CPU (default: all cores); 0 takes none")
    data.add_argument("--text", metavar="ENCODER", help="also store what this text encoder makes of the captions")
    data.add_argument("--text-tokens", type=int, metavar="N", help="at most so many tokens of a caption (default: 256)")
    parser.add_argument("--download", action="store_true", help="fetch a tokenizer from the hub where it is not here")


def _source(word: str) -> Path | str:
    """A URL stays a word: a path would lose one of its slashes."""
    return word if "://" in word else Path(word)


def run(args: argparse.Namespace) -> int:
    from ..errors import UserError

    if (args.target is None) == (args.out is None):
        raise UserError("say once where the result goes: selfflow-mm encode SRC DST, or --out DST")
    args.out = args.out or args.target
    from .encode_data import encode_data, is_data_set

    data = is_data_set(args.source)
    if not data and not args.source.exists():
        raise UserError(f"there is no '{args.source}'")
    if not (args.tokenizer or args.video or args.audio or args.image):
        raise UserError("name a tokenizer with --video, --audio or --tokenizer, such as --video tiny/video")
    if data:
        return encode_data(args)
    if unread := [f"--{n.replace('_', '-')}" for n in _OF_DATA if getattr(args, n) is not None]:
        raise UserError(f"{unread[0]} is for data sets, and '{args.source}' is a medium or a folder of media")
    if args.source.is_file():
        if args.out.suffix != ".safetensors":
            raise UserError(f"encoded files are safetensors, but --out is '{args.out.name}'; end it in .safetensors")
        tokenizers = _load(args)
        print(_one(args.source, args.out, tokenizers, args.size))
        return 0
    return _folder(args)


def _folder(args: argparse.Namespace) -> int:
    from ..data.prepare_sources import list_items
    from ..errors import UserError

    if args.out.is_file():
        raise UserError(f"--out is the file '{args.out}'; of a folder the results go into a folder")
    items = [item for item in list_items(args.source) if item.problem is None]
    if not items:
        raise UserError(f"'{args.source}' holds no videos, images or sounds")
    tokenizers = _load(args)
    failed = 0
    for number, item in enumerate(items, 1):
        target = args.out / f"{item.name}.safetensors"
        if target.exists():
            print(f"[{number}/{len(items)}] {target} is there")
            continue
        try:
            assert isinstance(item.path, Path), "of stores only data sets are read"
            print(f"[{number}/{len(items)}] {_one(item.path, target, tokenizers, args.size)}")
        except UserError as error:
            failed += 1
            print(f"[{number}/{len(items)}] left out: {error}")
    if failed:
        raise UserError(
            f"{failed} of {len(items)} files of '{args.source}' could not be encoded; the others are in {args.out}"
        )
    return 0


def _one(source: Path, target: Path, tokenizers: dict[str, NamedTokenizer], size: str | None) -> str:
    from ..data.encode_file import encode_file
    from .seconds_bar import SecondsBar

    with SecondsBar("encoding") as bar:
        encoded = encode_file(
            source, target, picture=tokenizers.get("picture"), sound=tokenizers.get("sound"), size=size, progress=bar
        )
    tokens = ", ".join(f"{t.tokens:,} tokens of {m}" for m, t in encoded.tracks.items())
    lines = [f"{target}: {tokens}, {target.stat().st_size / 1e6:.2f} MB", *(f"  {note}" for note in encoded.notes)]
    return "\n".join(lines)


def _load(args: argparse.Namespace) -> dict[str, NamedTokenizer]:
    """``picture`` and ``sound`` to the tokenizers named."""
    from ..data.encode_file import NamedTokenizer
    from ..errors import UserError
    from ..training.parts import pick_device
    from ..weights.tokenizers import named_tokenizer, place_of

    device = pick_device(args.device)
    found: dict[str, NamedTokenizer] = {}
    wanted = [*((t, None) for t in args.tokenizer), (args.video, "picture"), (args.audio, "sound")]
    for name, option in wanted:
        if name is None:
            continue
        tokenizer: Any = named_tokenizer(name, download=args.download).to(device)
        kind = "sound" if tokenizer.spec.modality == "audio" else "picture"
        if option not in (None, kind):
            raise UserError(f"--{'video' if option == 'picture' else 'audio'} {name} is a tokenizer of {kind}s")
        if kind in found:
            raise UserError(f"{found[kind].name} and {name} are both for {kind}s; name one of them")
        found[kind] = NamedTokenizer(place_of(name), tokenizer)
    return found
