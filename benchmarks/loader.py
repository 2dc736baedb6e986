"""How fast data come, on one core: latents against what a GPU consumes, clips against PyAV alone.

    python benchmarks/loader.py CLIPS                  # CLIPS: a folder of videos, such as your own

First: latents of the paper's runs and embeddings of their captions (random values of the right shape, in files larger
than any cache of the processor) through ``LatentDataset`` and ``Batches``, against the rate at which one H200 trains
the 675m model on them at 40 % of its peak, by the planner. Then: videos through ``ShardDataset`` against PyAV decoding
the same bytes to the same arrays in the same run. Both are seconds of CPU time of one thread, in alternating rounds; it
prints Markdown.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from safetensors.torch import save_file

from selfflow_mm.config import load_config
from selfflow_mm.data.latents import FORMAT, POSITIONS, STATE, VERSION, LatentDataset
from selfflow_mm.data.mediafile import CONVERSION
from selfflow_mm.data.prepare import prepare
from selfflow_mm.data.reading import VIDEO_ENDINGS
from selfflow_mm.data.shards import ShardDataset, ShardWriter
from selfflow_mm.training.batches import Batches
from selfflow_mm.training.cluster import Cluster
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.gpus import gpu
from selfflow_mm.training.plan import Plan, make_plan
from selfflow_mm.training.workload import Draw
from selfflow_tokenizers.spec import TokenizerSpec
from selfflow_tokenizers.stream import TokenStream
from selfflow_tokenizers.text_cache import CachedTextEncoder

RUNS = ("paper/t2i_625m.yaml", "paper/t2v_625m.yaml", "paper/joint_av_625m.yaml")
MODEL, GPU, MFU = "675m", "h200", 0.4
PART = 256  # samples


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="?", help="a folder of videos; without it only latents are measured")
    parser.add_argument(
        "--megabytes", type=int, default=600, help="of latents per run (default: 600); 0 for clips only"
    )
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.megabytes:
        latents(args.megabytes, args.rounds)
    if args.clips:
        clips(args.clips, args.rounds)
    return 0


def latents(megabytes: int, rounds: int) -> None:
    cluster = Cluster(gpu(GPU), mfu=MFU)
    print(f"| run, model {MODEL} | tokens of a sample | samples/s | tokens/s | MB/s | one H200 | ratio | worst ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in RUNS:
        plan = make_plan(load_config(TrainConfig, _config(name), [f"model.preset={MODEL}"]), for_gpu=True)
        with tempfile.TemporaryDirectory() as folder:
            data, config = _made_up(plan, Path(folder), megabytes * 1_000_000)
            text = CachedTextEncoder(StandIn(plan), Path(folder) / "text")
            text.fill(caption for wordings in data.captions for caption in ("", *wordings))
            batches = Batches({config[0]: (config[1], data)}, text, 0, 0.1)
            step = 0
            for _ in range(data.samples // config[1].batch + 1):  # one epoch, so that the files are in memory
                batches.at(step)
                step += 1
            seconds, samples = [], []
            for _ in range(rounds):
                begin, count = time.process_time(), 0
                while time.process_time() - begin < 1:
                    count += len(batches.at(step)[2].ids)
                    step += 1
                seconds.append(time.process_time() - begin)
                samples.append(count)
        rate = statistics.median(c / s for c, s in zip(samples, seconds, strict=True))
        worst = min(c / s for c, s in zip(samples, seconds, strict=True))
        draws = [d for d in plan.draws if d.source == config[0]]
        shares = sum(d.share for d in draws)
        tokens = sum(d.share / shares * sum(d.sizes.values()) for d in draws)
        size = sum(d.share / shares * _bytes(plan, d) for d in draws)
        consumed = sum(d.share * d.batch for d in draws) / sum(d.share * cluster.seconds(d) for d in draws)
        tasks = ", ".join(d.task for d in draws)
        print(
            f"| {name}: {tasks} | {tokens:,.0f} | {rate:,.0f} | {rate * tokens / 1e6:.1f} M | {rate * size / 1e6:,.0f} "
            f"| {consumed:,.1f} samples/s | {rate / consumed:,.0f} | {worst / consumed:,.0f} |"
        )
    print()


class StandIn:
    """In place of a run's text encoder: random embeddings of its size, 24 tokens a caption, to be stored."""

    def __init__(self, plan: Plan) -> None:
        self.max_tokens, self.values_dtype = 24, torch.bfloat16
        channels = plan.channels.get("text", 768)
        self.spec = TokenizerSpec(name=f"stand-in-{channels}", modality="text", channels=channels)
        self.settings: dict[str, Any] = {"encoder": "stand-in"}

    def encode(self, texts: Sequence[str]) -> TokenStream:
        values = torch.randn(len(texts), self.max_tokens, self.spec.channels).bfloat16().float()
        return TokenStream.dense(values, torch.zeros(self.max_tokens, 4))

    def count(self, texts: Sequence[str]) -> list[int]:
        return [self.max_tokens] * len(texts)

    def to(self, device: torch.device | str) -> StandIn:
        return self

    def unload(self) -> None:
        pass


def _config(name: str) -> Path:
    return Path(__file__).resolve().parents[1] / "configs" / name


def _bytes(plan: Plan, draw: Draw) -> int:
    """Of a sample's latents in float16."""
    return sum(2 * n * plan.channels[m] for m, n in draw.sizes.items())


def _made_up(plan: Plan, folder: Path, size: int) -> tuple[LatentDataset, tuple[str, Any]]:
    """Latents of the first source of a run, random, of about ``size`` bytes."""
    name, source = next((n, s) for n, s in plan.config.data.sources.items() if s.ratio > 0)
    shapes = {m: n for d in plan.draws if d.source == name for m, n in d.sizes.items()}
    each = sum(2 * n * plan.channels[m] for m, n in shapes.items())
    parts = max(2, size // (PART * each))
    for part in range(parts):
        tensors = {}
        for m, n in shapes.items():
            tensors[f"{m}.values"] = torch.randn(PART, n, plan.channels[m]).half()
            tensors[f"{m}.ids"] = torch.arange(part * PART, (part + 1) * PART)
        save_file(tensors, folder / f"part-{part:05d}.safetensors")
    save_file({m: torch.zeros(n, 4) for m, n in shapes.items()}, folder / POSITIONS)
    said = "of what is to be seen and heard in film"
    captions = ([f"wording {k} {said} {i}" for k in range(3)] for i in range(parts * PART))
    (folder / "captions.jsonl").write_text("".join(f"{json.dumps(wordings)}\n" for wordings in captions))
    about = {"format": FORMAT, "version": VERSION, "samples": parts * PART, "parts": parts, "tokenizers": {}}
    (folder / STATE).write_text(json.dumps(about))
    return LatentDataset(folder), (name, source)


def clips(folder: Path, rounds: int) -> None:
    videos = [p for p in sorted(folder.iterdir()) if p.suffix.lstrip(".").lower() in VIDEO_ENDINGS and _readable(p)]
    with tempfile.TemporaryDirectory() as temporary:
        kinds = {}
        for size, frames in (("64x64", 33), ("192x336", 33)):
            kinds[f"prepared, {frames} frames of {size}"] = _prepared(videos, Path(temporary) / size, size, frames)
        for path in videos:
            with ShardWriter(Path(temporary) / path.name, info={"modalities": ["video"]}) as writer:
                writer.add("a", {path.suffix.lstrip("."): path.read_bytes()}, {"captions": []})
            kinds[path.name] = ShardDataset(Path(temporary) / path.name)
        print(
            "| clips | frames | `ShardDataset`, ms | PyAV, ms | ratio | of the fastest rounds | default colours, ms |"
        )
        print("|---|---:|---:|---:|---:|---:|---:|")
        for name, data in kinds.items():
            _compare(name, data, rounds)


def _compare(name: str, data: ShardDataset, rounds: int) -> None:
    rows = [i for i in range(len(data)) if "json" in data.members(i).places][:8]
    stored = [next(v for e, v in data.raw(i).files.items() if e in VIDEO_ENDINGS) for i in rows]
    frames = sum(len(data[i].video.frames) for i in rows)  # type: ignore[union-attr]
    ways: list[Callable[[], Any]] = [
        lambda: [data[i] for i in rows],
        lambda: [alone(b) for b in stored],
        lambda: [alone(b, accurate=False) for b in stored],
    ]
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, seconds in zip(ways, taken, strict=True):
            begin = time.process_time()
            way()
            seconds.append(1000 * (time.process_time() - begin) / len(rows))
    ours, bare, fast = (statistics.median(seconds) for seconds in taken)
    least = min(taken[0]) / min(taken[1])
    numbers = f"{frames // len(rows)} | {ours:,.1f} | {bare:,.1f} | {ours / bare:.2f} | {least:.2f} | {fast:,.1f}"
    print(f"| {name} | {numbers} |")


def alone(data: bytes, accurate: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
    """What a script with PyAV and nothing else would do: every frame as RGB, and the sound, on one thread.

    Args:
        accurate: colours converted as ours are; else by FFmpeg's default, which is up to 3 levels too dark.
    """
    frames, blocks, converter = [], [], VideoReformatter()
    with av.open(io.BytesIO(data)) as container:
        video = container.streams.video[0]
        video.codec_context.thread_count = 1
        for frame in container.decode(video, *container.streams.audio[:1]):
            if isinstance(frame, av.AudioFrame):
                blocks.append(frame.to_ndarray())
            elif accurate:
                rgb = converter.reformat(frame, format="rgb24", interpolation=CONVERSION, threads=1)
                frames.append(rgb.to_ndarray())
            else:
                frames.append(frame.to_ndarray(format="rgb24"))
    return np.stack(frames), np.concatenate(blocks, axis=1) if blocks else None


def _prepared(videos: list[Path], target: Path, size: str, frames: int) -> ShardDataset:
    from selfflow_mm.data.prepare_options import PrepareOptions

    height, width = map(int, size.split("x"))
    listed = target.with_suffix(".csv")
    listed.write_text("path\n" + "".join(f"{os.path.relpath(p, target.parent)}\n" for p in videos))
    prepare(listed, target, PrepareOptions(height=height, width=width, frames=frames), workers=0)
    return ShardDataset(target)


def _readable(path: Path) -> bool:
    """Damaged files are left out, and short ones, which are all opening and closing."""
    try:
        return len(alone(path.read_bytes())[0]) >= 33
    except av.error.FFmpegError:
        return False


if __name__ == "__main__":
    sys.exit(main())
