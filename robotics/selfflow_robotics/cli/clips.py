"""``selfflow-mm robot-data clips``: pictures of robot episodes as a data set to train tokenizers on."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "cut stills or clips out of robot episodes, as a data set for train-tokenizer and train"
EXAMPLES = """examples:
  selfflow-mm robot-data clips fractal20220817_data stills --size 96x112 --stills 8 --workers 8
  selfflow-mm robot-data clips tabletop films --size 64x80 --frames 17 --stride 8
  selfflow-mm robot-data clips bridge_dataset few --size 64 --stills 2 --episodes 500 --camera image_1
  selfflow-mm train-tokenizer tokenizers/cifar10.yaml --data stills --out runs/robot-pictures

Stills are PNG files of pictures drawn at random, clips MP4 files at the control rate; each has the instruction as its
caption. Pictures are fitted as they are for a policy: whole on black (pad), or stretched. The data set is the same with
any number of --workers, and is there when it is complete. Damaged episodes are left out and listed in quarantine.jsonl.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="DATA", help="a folder of RLDS records or a LeRobot data set")
    parser.add_argument("target", type=Path, metavar="OUT", help="new folder for the data set")
    parser.add_argument("--size", required=True, metavar="N|HxW", help="of the pictures, in pixels")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--stills", type=int, metavar="N", help="so many pictures of each episode")
    what.add_argument("--frames", type=int, metavar="F", help="clips of so many pictures in a row")
    parser.add_argument("--stride", type=int, metavar="S", help="steps between the starts of clips (default: F)")
    parser.add_argument("--fit", choices=("pad", "stretch"), default="pad", help="(default: pad)")
    parser.add_argument("--camera", metavar="NAME", help="(default: the first)")
    parser.add_argument("--seed", type=int, default=0, help="of the stills' draw (default: 0)")
    parser.add_argument("--crf", type=int, default=18, metavar="Q", help="H.264 quality, 0 best to 51 (default: 18)")
    parser.add_argument("--episodes", type=int, metavar="N", help="only the first N (default: all)")
    parser.add_argument("--layout", metavar="NAME|FILE", help="what the columns mean (default: found out)")
    parser.add_argument("--split", metavar="S", help="such as train or val (default: train)")
    parser.add_argument("--samples-per-shard", type=int, default=500, metavar="N", help="(default: 500)")
    parser.add_argument("--workers", type=int, default=0, metavar="W", help="processes (default: 0, this one)")


def run(args: argparse.Namespace) -> int:
    from selfflow_mm.errors import UserError

    from ..clips import ClipOptions, write_clips
    from ..sources import open_episodes

    for name in ("stills", "frames", "stride", "episodes"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} is at least 1, got {value}")
    if args.stride is not None and args.stills is not None:
        raise UserError("--stride goes with --frames; stills are drawn at random")
    options = ClipOptions(
        size=parse_size(args.size),
        fit=args.fit,
        stills=args.stills or 0,
        frames=args.frames or 0,
        stride=args.stride or 0,
        camera=args.camera,
        seed=args.seed,
        crf=args.crf,
    )
    done = write_clips(
        open_episodes(args.source, args.layout, args.split),
        args.target,
        options,
        episodes=args.episodes,
        workers=args.workers,
        samples_per_shard=args.samples_per_shard,
    )
    what = "stills" if options.stills else f"clips of {options.frames} frames"
    height, width = options.size
    print(f"{done.folder}: {done.samples} {what}, {height} x {width} pixels, of {done.episodes} episodes")
    if done.short:
        print(f"{done.short} episodes are shorter than a clip and gave none")
    if done.quarantine:
        print(f"{len(done.quarantine)} episodes could not be read; they are listed in {done.folder}/quarantine.jsonl:")
        for entry in done.quarantine[:5]:
            print(f"  {entry.shard} {entry.index}: {entry.reason}")
    return 0


def parse_size(text: str) -> tuple[int, int]:
    """``"96x112"`` or ``"64"`` as (height, width).

    Raises:
        UserError: not written so.
    """
    from selfflow_mm.errors import UserError

    height, _, width = text.lower().partition("x")
    if not height.isdecimal() or not (width or height).isdecimal() or text.lower().endswith("x"):
        raise UserError(f"--size is a number of pixels or HEIGHTxWIDTH, got '{text}'")
    return int(height), int(width or height)
