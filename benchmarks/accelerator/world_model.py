"""Train a model of the bundled world on one accelerator, in pieces of under ten minutes.

    python benchmarks/accelerator/world_model.py --out OUT [--state OUT_OF_THE_LAST_PIECE] [--size medium] [--pieces 3]
    python benchmarks/accelerator/world_model.py --dry --out OUT           # a piece at toy size on a CPU
    python benchmarks/accelerator/world_model.py --state OUT --assemble FOLDER

A piece renders clips that no earlier piece has seen, encodes them, times a few steps, takes as many as fit, and leaves
in OUT what the next one starts from, in files of under 16 MiB: ``weights-N.safetensors`` (the EMA as float16),
``config.json`` (the model's) and ``state.json`` (what was asked for, and each piece's figures), beside ``log.jsonl``.
The same command with ``--state`` goes on from there, with a new optimizer that warms up again. The first piece begins
with mostly sound for clean pictures, where the two find each other soonest (docs/results/world.md); the learning rate
decays in the last piece, which ends by measuring its model against the captions of the world's test split, with the
measures of ``evaluate-world``. Settings are those of configs/tiny_extend.yaml but for sizes and batches, and
a learning rate that falls with the width. ``--objective flow`` takes the same seed and time without the teacher.
``--assemble`` makes a model folder of a state.

No media file is read or written, so PyAV need not be there; wheels of pymunk, cffi and braceexpand must.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import shutil
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

if importlib.util.find_spec("av") is None:  # 35 MB to carry, for modules that are imported here and not used
    submodules = "audio.resampler audio.stream container sidedata.sidedata stream video.reformatter video.stream"
    sys.modules |= {name: MagicMock() for name in ("av", *(f"av.{name}" for name in submodules.split()))}

import numpy as np
import torch
from safetensors.torch import load_file

from selfflow_mm.config import load_config
from selfflow_mm.data.encode_dataset import encode_dataset
from selfflow_mm.data.latents import fingerprint
from selfflow_mm.data.shards import Members, Sample
from selfflow_mm.data.world import make_clip
from selfflow_mm.errors import UserError
from selfflow_mm.evaluation.world.measure import Row, measure_clip
from selfflow_mm.evaluation.world.reader import Reader
from selfflow_mm.evaluation.world.run import GENERATED, REAL, SHUFFLED, shuffled
from selfflow_mm.evaluation.world.sources import TEST_WORLD
from selfflow_mm.evaluation.world.summary import as_json, as_text, summarise
from selfflow_mm.generation.pipeline import Pipeline
from selfflow_mm.models.joint import JointTransformer
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.loop import train
from selfflow_mm.training.parts import build_text_encoder, complete_model_config, load_tokenizers, pick_device
from selfflow_mm.training.run_folder import read_log
from selfflow_mm.weights import find_weights
from selfflow_tokenizers.media import Audio, Video
from selfflow_tokenizers.tensor_file import save_tensors

#: What tells a size from the bundled model: about 25 and 51 million parameters, heads of its width.
SIZES: dict[str, dict[str, int]] = {
    "bundled": {},
    "medium": {"width": 384, "double_blocks": 4, "single_blocks": 7},
    "large": {"width": 480, "double_blocks": 5, "single_blocks": 10},
}
STATE = "state.json"
#: Bytes of one file of weights, and how many such files may come back.
FILE, FILES = 15 * 2**20, 4
#: What the first piece begins with.
FIRST_TASKS = {"v2a": 0.85, "t2va": 0.15}
#: Clips generated at once, with the noise that ``evaluate-world`` gives them.
AT_ONCE = 8


class Rendered:
    """Clips ``first`` to ``first + count`` of a world as a data set; other processes make each when it is asked for."""

    def __init__(self, pool: ProcessPoolExecutor, world: int, first: int, count: int) -> None:
        self.folder, self.info = Path(f"world-{world}-from-{first}"), {"modalities": ["video", "audio"]}
        self._pool, self._world, self._first, self._count = pool, world, first, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        frames, fps, waveform, rate, captions = self._pool.submit(render, self._world, self._first + index).result()
        texts, kinds = zip(*captions, strict=True)
        video, audio = Video(torch.from_numpy(frames), fps), Audio(torch.from_numpy(waveform), rate)
        return Sample(index, self.key(index), video, audio, captions=texts, caption_kinds=kinds)

    def key(self, index: int) -> str:
        return f"{self._first + index:06d}"

    def members(self, index: int) -> Members:
        return Members(self.folder, {})


def render(world: int, index: int) -> tuple[np.ndarray, float, np.ndarray, int, list[tuple[str, str]]]:
    """A training clip: frames, their rate, waveform, its rate, captions with their kinds."""
    clip = make_clip(world, index)
    captions = [(caption.text, caption.kind) for caption in clip.captions]
    return clip.video.frames.numpy(), clip.video.fps, clip.audio.waveform.numpy(), clip.audio.rate, captions


@cache
def reader() -> Reader:
    return Reader.load()


def measure_real(index: int) -> Row:
    """The row of a true clip of the test split, its caption in it."""
    clip = make_clip(TEST_WORLD, index, "test")
    return measure_clip(reader(), clip.captions[0].text, clip.video, clip.audio)


def measure_made(caption: str, frames: np.ndarray, fps: float, waveform: np.ndarray, rate: int) -> Row:
    """The row of a generated one."""
    video, audio = Video(torch.from_numpy(frames), fps), Audio(torch.from_numpy(waveform), rate)
    return measure_clip(reader(), caption, video, audio)


def measure(pipeline: Pipeline, n: int, seed: int, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Generated and true clips of the test split's first ``n`` captions by the measures of ``evaluate-world``."""
    real = list(pool.map(measure_real, range(n)))
    coming = []
    for start in range(0, n, AT_ONCE):
        captions = [row["caption"] for row in real[start : start + AT_ONCE]]
        made = pipeline(captions, "t2va", seed=seed + start // AT_ONCE)
        for caption, clip in zip(captions, made, strict=True):
            assert clip.video is not None and clip.audio is not None
            media = (
                clip.video.frames.cpu().numpy(),
                clip.video.fps,
                clip.audio.waveform.cpu().numpy(),
                clip.audio.rate,
            )
            coming.append(pool.submit(measure_made, caption, *media))
    rows = [future.result() for future in coming]
    table = summarise({GENERATED: rows, REAL: real, SHUFFLED: shuffled(rows)})
    print(as_text(table))
    return as_json(table)


def settings(args: argparse.Namespace) -> TrainConfig:
    """configs/tiny_extend.yaml for a model of another size and batches of another one."""
    config = load_config(TrainConfig, "tiny_extend.yaml", [f"objective.name={args.objective}"])
    base = config.model
    shape = SIZES[args.size]
    width = shape.get("width", base.width)
    model = replace(base, **shape, heads=width * base.heads // base.width)  # type: ignore[arg-type]
    optimizer = replace(config.optimizer, lr=args.lr or config.optimizer.lr * base.width / width)
    return replace(config, model=model, optimizer=optimizer)


def of_piece(config: TrainConfig, args: argparse.Namespace, piece: int, latents: Path, start: str) -> TrainConfig:
    """The settings of one piece, but for its steps."""
    smallest = min(source.batch for source in config.data.sources.values())
    sources = {
        name: replace(source, path=str(latents), batch=args.batch * source.batch // smallest)
        for name, source in config.data.sources.items()
    }
    last = piece + 1 == args.pieces
    run = replace(
        config.run,
        seed=args.seed + piece,
        threads=0,
        compile=args.compile,
        sample_every=0,
        trackers=(),
        console="plain",
    )
    return replace(
        config,
        init=start,
        data=replace(config.data, sources=sources),
        optimizer=config.optimizer if last else replace(config.optimizer, decay=0.0),
        run=run,
    )


def first_phase(config: TrainConfig) -> TrainConfig:
    """The same, of mostly sound for clean pictures."""
    sources = {"world": replace(config.data.sources["world"], tasks=FIRST_TASKS)}
    constant = replace(config.optimizer, decay=0.0)
    return replace(config, data=replace(config.data, sources=sources), optimizer=constant)


def with_steps(config: TrainConfig, steps: int, log_every: int) -> TrainConfig:
    return replace(config, run=replace(config.run, steps=steps, log_every=log_every, save_every=steps))


def read_state(folder: Path | None, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pieces so far; none where there is no state.

    Raises:
        UserError: they are of a run with other settings.
    """
    if folder is None or not (folder / STATE).is_file():
        return []
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if other := [f"{k} {state['asked'].get(k)}" for k, v in asked.items() if state["asked"].get(k) != v]:
        raise UserError(f"{folder} is of a run with {', '.join(other)}; give the same settings, or no --state")
    return list(state["pieces"])


def write_state(out: Path, model: Path, asked: Mapping[str, Any], pieces: list[dict[str, Any]]) -> None:
    """What the next piece starts from: the model's weights as float16, as far as they can come back, and the record."""
    tensors = {name: tensor.half() for name, tensor in load_file(model / "model.safetensors").items()}
    parts: list[dict[str, torch.Tensor]] = [{}]
    room = FILE
    for name, tensor in tensors.items():
        room -= tensor.nbytes
        if room < 0:
            parts.append({})
            room = FILE - tensor.nbytes
        parts[-1][name] = tensor
    if len(parts) <= FILES:
        for number, part in enumerate(parts):
            save_tensors(part, out / f"weights-{number}.safetensors", {"format": "pt"})
    shutil.copy(model / "config.json", out / "config.json")
    (out / STATE).write_text(json.dumps({"asked": dict(asked), "pieces": pieces}, indent=1) + "\n", encoding="utf-8")


def assemble(state: Path, folder: Path, tokenizers: Mapping[str, str]) -> None:
    """A model folder of a state; ``tokenizers`` are modality -> name, as in the config.

    Raises:
        UserError: the state has no weights.
    """
    files = sorted(state.glob("weights-*.safetensors"))
    if not files:
        raise UserError(f"{state} holds no weights: those of this size are too large to come back")
    about = json.loads((state / "config.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True)
    for modality, place in about["tokenizers"].items():
        shutil.copytree(find_weights(tokenizers[modality]), folder / place, dirs_exist_ok=True)
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    save_tensors(tensors, folder / "model.safetensors", {"format": "pt"})
    shutil.copy(state / "config.json", folder / "config.json")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for what the next piece needs")
    parser.add_argument("--state", type=Path, help="what the last piece left; none yet: the first piece")
    parser.add_argument("--size", choices=SIZES, default="bundled", help="about 4, 25 and 51 million parameters")
    parser.add_argument("--objective", choices=("self-flow", "flow"), default="self-flow")
    parser.add_argument("--pieces", type=int, default=1, help="in all; the learning rate decays in the last one")
    parser.add_argument("--minutes", type=float, default=8.5, help="for everything of a piece, from start to end")
    parser.add_argument("--steps", type=int, default=0, help="of a piece, in place of as many as fit")
    parser.add_argument(
        "--first-steps", type=int, default=500, help="of the first piece, with mostly sound for pictures"
    )
    parser.add_argument("--clips", type=int, default=40_000, help="of a piece")
    parser.add_argument("--measure", type=int, default=200, metavar="N", help="clips in the end; 0: none")
    parser.add_argument("--workers", type=int, default=16, help="processes that render and measure")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.0, help="0: the config's, times its width by this model's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--assemble", type=Path, metavar="FOLDER", help="make a model folder of --state, and no more")
    parser.add_argument("--dry", action="store_true", help="toy numbers of everything")
    args = parser.parse_args()
    if args.dry:
        args.clips, args.batch, args.measure, args.workers, args.minutes = 48, 4, 2, 2, min(args.minutes, 1.0)
        args.first_steps = 4
    if args.out is None and args.assemble is None:
        parser.error("--out is needed")
    return args


def main() -> None:
    args = arguments()
    config = settings(args)
    if args.assemble:
        assemble(args.state, args.assemble, config.tokenizers)
        return
    started = time.monotonic()
    tokenizers, named = load_tokenizers(config.tokenizers)
    hashes = {m: fingerprint(tokenizers[m], source) for m, source in named.items()}
    told = ("size", "objective", "pieces", "batch", "seed", "clips", "first_steps")
    asked = {name: getattr(args, name) for name in told}
    asked |= {"lr": config.optimizer.lr, "tokenizers": hashes}
    pieces = read_state(args.state, asked)
    if (piece := len(pieces)) >= args.pieces:
        raise UserError(f"all {args.pieces} pieces are done; --assemble makes a model folder of {args.state}")
    with torch.device("meta"):
        shape = complete_model_config(config, tokenizers, build_text_encoder(config.text))
        parameters = sum(p.numel() for p in JointTransformer(shape).parameters())
    if args.pieces > 1 and 2 * parameters > FILE * FILES:
        raise UserError(
            f"{parameters / 1e6:.0f} M weights are too large to be carried on; --size {args.size} has 1 piece"
        )

    args.out.mkdir(parents=True, exist_ok=True)
    work = args.out / "work"
    shutil.rmtree(work, ignore_errors=True)
    device = pick_device("auto")
    table: dict[str, Any] = {"torch": torch.__version__, "device": device.type, "parameters": parameters}
    if device.type == "cuda":
        table["device"] = torch.cuda.get_device_name()
    start = ""
    if piece:
        start = str(work / "start")
        assemble(args.state, Path(start), config.tokenizers)

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.workers, context, torch.set_num_threads, (1,)) as pool:
        for tokenizer in tokenizers.values():
            tokenizer.to(device)
        data: Any = Rendered(pool, args.seed, piece * args.clips, args.clips)
        encode_dataset(data, tokenizers, hashes, work / "latents")
        table["seconds to render and encode"] = round(time.monotonic() - started, 1)

        own = of_piece(config, args, piece, work / "latents", start)
        if not piece and args.first_steps:
            first = with_steps(first_phase(own), args.first_steps, min(args.first_steps, config.run.log_every))
            train(first, work / "first")
            table["first"] = {k: v for k, v in read_log(work / "first")[-1].items() if k.startswith(("loss", "l_"))}
            own = replace(own, init=str(work / "first"))
        train(with_steps(own, *((8, 2) if args.dry else (40, 10))), work / "trial")
        log = read_log(work / "trial")
        pace = (log[-1]["seconds"] - log[0]["seconds"]) / (log[-1]["step"] - log[0]["step"])
        measures = args.measure if piece + 1 == args.pieces else 0
        left = 60 * args.minutes - (time.monotonic() - started) - (15 + 0.5 * measures)
        steps = args.steps or max(10, int(left / pace * 0.95))
        drawn = own.data.sources.values()
        batch = sum(s.ratio * s.batch for s in drawn) / sum(s.ratio for s in drawn)
        table |= {"seconds per step": round(pace, 4), "steps": steps, "samples": round(steps * batch)}
        print(json.dumps(table), flush=True)

        train(with_steps(own, steps, config.run.log_every), work / "run")
        log = read_log(work / "run")
        table |= {k: v for k, v in log[-1].items() if k.startswith(("loss", "l_", "cosine", "seconds", "tflops"))}
        table["minutes"] = round((time.monotonic() - started) / 60, 2)
        shutil.copy(work / "run" / "log.jsonl", args.out / "log.jsonl")
        # Before anything is measured, so that a piece whose time runs out there is not lost.
        write_state(args.out, work / "run" / "model", asked, [*pieces, table])
        if measures:
            pipeline = Pipeline.from_pretrained(work / "run")
            pipeline.model.to(device)
            for tokenizer in pipeline.tokenizers.values():
                tokenizer.to(device)
            table["measured"] = measure(pipeline, measures, args.seed, pool)
            table["minutes"] = round((time.monotonic() - started) / 60, 2)
            write_state(args.out, work / "run" / "model", asked, [*pieces, table])
    shutil.rmtree(work)
    print(json.dumps({k: v for k, v in table.items() if k != "measured"}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"world_model: {error}")
