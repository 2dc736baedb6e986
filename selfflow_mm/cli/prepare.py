"""``selfflow-mm prepare``: media of any kind become a data set of equal clips."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "turn videos, sounds, images and captions into a data set"
EXAMPLES = """examples:
  selfflow-mm prepare my-videos data                        a folder; captions from clip.txt beside clip.mp4
  selfflow-mm prepare list.csv data --size 128              a table with the columns path, caption, start, end
  selfflow-mm prepare "speech/*train*.tar" data --seconds 1 WebDataset shards; sounds of one second each
  selfflow-mm prepare pictures data --modalities image --size 32

Every file is listed in data/report.html with what was done to it. docs/data.md has the table of treatments.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="a folder, a .csv or .jsonl table, or WebDataset tars (also URL)")
    parser.add_argument("target", type=Path, metavar="DST", help="new folder for the data set")
    parser.add_argument("--frames", type=int, metavar="T", help="frames of a clip, 1 + 4k (default: 33)")
    parser.add_argument(
        "--seconds", type=float, metavar="S",
        help="length of sounds without picture; also sets --frames to the nearest 1 + 4k (default: that of a clip)",
    )  # fmt: skip
    parser.add_argument("--fps", type=float, default=16.0, metavar="F", help="frames per second (default: 16)")
    parser.add_argument("--size", default="64", metavar="N|HxW", help="pixels, multiples of 16 (default: 64)")
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

    height, _, width = args.size.lower().partition("x")
    if not height.isdigit() or not (width or height).isdigit():
        raise UserError(f"--size is a number of pixels or HEIGHTxWIDTH, got '{args.size}'")
    frames = args.frames
    if frames is None:
        frames = 33 if args.seconds is None else 1 + 4 * max(0, round((args.seconds * args.fps - 1) / 4))
    options = PrepareOptions(
        frames=frames,
        fps=args.fps,
        height=int(height),
        width=int(width or height),
        letterbox=args.letterbox,
        rate=args.rate,
        channels=args.channels,
        seconds=args.seconds,
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
