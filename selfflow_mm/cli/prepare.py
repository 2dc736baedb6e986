"""``selfflow-mm prepare``: media of any kind become a data set of equal clips, or of buckets of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeVar

Number = TypeVar("Number", int, float)

HELP = "turn videos, sounds, images and captions into a data set"
EXAMPLES = """examples:
  selfflow-mm prepare my-videos data                        a folder; captions from clip.txt beside clip.mp4
  selfflow-mm prepare list.csv data --size 128              a table with the columns path, caption, start, end
  selfflow-mm prepare "speech/*train*.tar" data --seconds 1 WebDataset shards; sounds of one second each
  selfflow-mm prepare pictures data --modalities image --size 32
  selfflow-mm prepare pictures data --size 256 --buckets auto      sizes of about 256 x 256, up to 2:1
  selfflow-mm prepare my-videos data --frames 9,17,33 --buckets 64x64,48x80,80x48

Every file is listed in data/report.html with what was done to it. docs/data.md has the table of treatments.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="a folder, a .csv or .jsonl table, or WebDataset tars (also URL)")
    parser.add_argument("target", type=Path, metavar="DST", help="new folder for the data set")
    parser.add_argument(
        "--frames", metavar="T[,T...]",
        help="frames of a clip, 1 + 4k; of several, the longest that a film fills (default: 33)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", metavar="S[,S...]",
        help="length of sounds without picture; of several, the longest that a sound fills; also sets --frames to the "
        "nearest 1 + 4k (default: that of a clip)",
    )  # fmt: skip
    parser.add_argument("--fps", type=float, default=16.0, metavar="F", help="frames per second (default: 16)")
    parser.add_argument("--size", metavar="N|HxW", help="pixels, multiples of 16 (default: 64)")
    parser.add_argument(
        "--buckets", metavar="auto|HxW,HxW...",
        help="several sizes: a picture gets that nearest in aspect ratio; auto: those of about as many pixels as "
        "--size, up to 2:1",
    )  # fmt: skip
    parser.add_argument("--letterbox", action="store_true", help="whole pictures on black, instead of their centre")
    parser.add_argument("--rate", type=int, default=16_000, metavar="HZ", help="samples per second (default: 16000)")
    parser.add_argument("--channels", type=int, default=2, help="1 or 2 (default: 2)")
    parser.add_argument(
        "--modalities", nargs="+", choices=("video", "audio", "image"), metavar="M",
        help="keep only these of video, audio, image (default: all)",
    )  # fmt: skip
    parser.add_argument("--crf", type=int, default=18, help="H.264 quality, 0 best to 51 (default: 18)")
    parser.add_argument("--no-name-captions", action="store_true", help="never make captions from file names")
    parser.add_argument("--limit", type=int, metavar="N", help="take only the first N files")
    parser.add_argument("--samples-per-shard", type=int, default=500, metavar="N", help="(default: 500)")
    parser.add_argument("--workers", type=int, metavar="W", help="processes (default: all cores)")


def run(args: argparse.Namespace) -> int:
    from selfflow_mm.data.prepare import prepare
    from selfflow_mm.data.prepare_options import PrepareOptions
    from selfflow_mm.errors import UserError
    from selfflow_mm.evaluation.prepare_report import write_prepare_page

    if args.size and args.buckets not in (None, "auto"):
        raise UserError("--buckets names the sizes; --size goes with --buckets auto")
    height, width = _size(args.size or "64", "--size")
    seconds = _numbers(float, args.seconds, "--seconds") if args.seconds else ()
    frames = _numbers(int, args.frames, "--frames") if args.frames else ()
    frames = frames or tuple(1 + 4 * max(0, round((s * args.fps - 1) / 4)) for s in seconds) or (33,)
    options = PrepareOptions(
        frames=frames if len(frames) > 1 else frames[0],
        fps=args.fps,
        height=height,
        width=width,
        buckets=_buckets(args.buckets, height, width),
        letterbox=args.letterbox,
        rate=args.rate,
        channels=args.channels,
        seconds=seconds if len(seconds) > 1 else seconds[0] if seconds else None,
        modalities=tuple(args.modalities) if args.modalities else None,
        crf=args.crf,
    )
    report = prepare(
        args.source,
        args.target,
        options,
        workers=args.workers,
        limit=args.limit,
        samples_per_shard=args.samples_per_shard,
        name_captions=not args.no_name_captions,
    )
    page = write_prepare_page(args.target, report)
    print(report.summary())
    print(f"the data set is in {args.target}; look at {page}")
    return 0


def _size(text: str, name: str) -> tuple[int, int]:
    """``N`` or ``HxW`` -> (height, width)."""
    from selfflow_mm.errors import UserError

    height, _, width = text.lower().partition("x")
    if not height.isdigit() or not (width or height).isdigit():
        raise UserError(f"{name} is a number of pixels or HEIGHTxWIDTH, got '{text}'")
    return int(height), int(width or height)


def _numbers(kind: type[Number], text: str, name: str) -> tuple[Number, ...]:
    """Numbers with commas between them."""
    from selfflow_mm.errors import UserError

    try:
        return tuple(kind(number) for number in text.split(","))
    except ValueError:
        raise UserError(f"{name} takes a number, or several with commas between them, got '{text}'") from None


def _buckets(text: str | None, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """The sizes of ``--buckets``; those of ``auto`` have about ``height`` x ``width`` pixels."""
    from selfflow_mm.data.prepare_buckets import aspect_buckets

    if text is None:
        return ()
    if text == "auto":
        return aspect_buckets(height, width)
    return tuple(dict.fromkeys(_size(size, "a size of --buckets") for size in text.split(",")))
