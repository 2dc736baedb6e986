"""``selfflow-mm generate``: text to video with sound, video, sound or image."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..conditions import Conditions

HELP = "make a video, sound or image from text"
EXAMPLES = """examples:
  selfflow-mm generate "a red metal ball falls and bounces" --out ball.mp4
  selfflow-mm generate "a sign says EXIT and a blue wooden cube falls" --out exit.mp4 --seed 7 --steps 30 --guidance 3
  selfflow-mm generate "a green ball rolls down a ramp" --out silent.mp4 --task t2v
  selfflow-mm generate "a metallic clang, then a softer one" --out clang.wav
  selfflow-mm generate "there is a sign that says HELP" --out sign.png
  selfflow-mm generate "a red glass ball falls and bounces" --video ball.mp4 --out with-new-sound.mp4
  selfflow-mm generate "a red glass ball falls and bounces" --video ball.mp4 --keep 0.5 --out another-end.mp4
  selfflow-mm generate "..." --model runs/mine --out clip.mp4

The file's ending says what is made: .mp4 video with sound, .wav sound, .png image. --video or --audio gives that part
and makes the other; --image gives the first frame; --video with --keep gives the first seconds of picture and sound,
and goes on with them. Several clips: --count 4 writes ball-0.mp4 ... with seeds counted
up.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help="what should be seen and heard")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write: .mp4, .wav or .png")
    parser.add_argument("--model", default="tiny", help="bundled model, pipeline folder or run folder (default: tiny)")
    parser.add_argument(
        "--text-encoder", metavar="FOLDER", help="where the model's text encoder is, if not where it was in training"
    )
    parser.add_argument(
        "--task",
        help="t2va, t2v, t2a, t2i, i2v, i2va, v2a, a2v, extend or extend-v, which leaves the sound out "
        "(default: by the file's ending and what is given)",
    )
    parser.add_argument("--video", type=Path, metavar="FILE", help="a video to make sound for")
    parser.add_argument("--audio", type=Path, metavar="FILE", help="a sound to make a video for")
    parser.add_argument("--image", type=Path, metavar="FILE", help="the first frame")
    parser.add_argument("--keep", type=float, metavar="SECONDS", help="of --video: go on with so much of it")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same result (default: 0)")
    parser.add_argument("--count", type=int, default=1, help="how many, with seeds counted up (default: 1)")
    parser.add_argument("--frames", type=int, help="of video, 1 + 4k for most models (default: the model's)")
    parser.add_argument("--steps", type=int, help="solver steps (default: the model's)")
    parser.add_argument("--guidance", type=float, help="classifier-free guidance of all modalities; 1 is none")
    parser.add_argument("--solver", choices=["euler", "heun"], help="default: the model's")
    parser.add_argument(
        "--piece",
        type=float,
        metavar="SECONDS",
        help="make the video piece by piece; 0: at once (default: the model's)",
    )
    parser.add_argument("--shift", type=float, help="timestep shift of all modalities; 1 is none")


def run(args: argparse.Namespace) -> int:
    from ..errors import UserError

    ending = args.out.suffix.lower()
    task = args.task or _task(args, ending)
    if args.count < 1:
        raise UserError(f"--count is at least 1, got {args.count}")
    if not args.out.parent.is_dir():
        raise UserError(f"--out: there is no folder {args.out.parent}; make it first")
    _check_ending(task, ending, args.out)
    conditions = _conditions(args, task)

    from dataclasses import replace

    from ..generation.pipeline import Pipeline

    pipeline = Pipeline.from_pretrained(args.model, text_encoder=args.text_encoder)
    sampling = pipeline.sampling
    if args.steps is not None:
        sampling = replace(sampling, steps=args.steps)
    if args.guidance is not None:
        sampling = replace(sampling, default_guidance=args.guidance, guidance={})
    if args.solver is not None:
        sampling = replace(sampling, solver=args.solver)
    if args.shift is not None:
        sampling = replace(sampling, shift=dict.fromkeys(pipeline.tokenizers, args.shift))
    if args.piece is not None:
        sampling = replace(sampling, piece=args.piece)
    given = _given(args, task)
    for i in range(args.count):
        seed = args.seed + i
        path = args.out if args.count == 1 else args.out.with_stem(f"{args.out.stem}-{i}")
        [result] = pipeline([args.prompt], conditions, seed=seed, given=given, sampling=sampling, frames=args.frames)
        print(result.save(path))
    return 0


def _task(args: argparse.Namespace, ending: str) -> str:
    if args.video:
        return "v2a" if args.keep is None else "extend"
    if args.audio:
        return "a2v"
    if args.image:
        return "i2va"
    return {".wav": "t2a", ".png": "t2i"}.get(ending, "t2va")


def _conditions(args: argparse.Namespace, task: str) -> Conditions:
    from ..conditions import Conditions
    from ..errors import UserError

    conditions = Conditions.named(task)
    if conditions.extends != (args.keep is not None):
        if conditions.extends:
            raise UserError(f"task {task} needs --keep: the seconds of --video that it goes on with")
        raise UserError(f"--keep goes with --video and the tasks extend and extend-v, not with {task}")
    if args.keep is None:
        return conditions
    if not 0 < args.keep < float("inf"):
        raise UserError(f"--keep counts seconds of --video, more than 0; got {args.keep:g}")
    return conditions.until(args.keep)


def _check_ending(task: str, ending: str, out: Path) -> None:
    from ..conditions import Conditions
    from ..errors import UserError

    present = Conditions.named(task).modalities
    fitting = [e for m, e in (("video", ".mp4"), ("audio", ".wav"), ("image", ".png")) if m in present]
    if ending not in fitting:
        raise UserError(f"--out {out}: task {task} is written as {' or '.join(fitting)}, not '{ending}'")


def _given(args: argparse.Namespace, task: str) -> dict:
    from ..conditions import Conditions, Part
    from ..data.reading import read_media
    from ..errors import UserError

    parts = Conditions.named(task).given
    given = {}
    for flag, path in (("video", args.video), ("audio", args.audio), ("image", args.image)):
        if path is None:
            continue
        modality = "video" if flag == "image" else flag
        if modality not in parts:
            raise UserError(f"--{flag}: task {task} is given no {flag}")
        clip = read_media(path)
        medium = (clip.image or clip.video) if flag == "image" else getattr(clip, flag)
        if medium is None:
            raise UserError(f"--{flag} {path}: there is no {flag} in this file")
        given[modality] = medium
        if flag == "video" and parts.get("audio") == Part("prefix"):
            if clip.audio is None:
                raise UserError(f"--video {path}: there is no sound in this file to go on with; take --task extend-v")
            given["audio"] = clip.audio
    return given
