"""Whether our autoencoders keep up with the clock on one accelerator: encoding and decoding against real time.

    python benchmarks/accelerator/tokenizer_speed.py --out OUT
    python benchmarks/accelerator/tokenizer_speed.py --dry                  # toy sizes on a CPU

Every video preset on clips of 256 x 256 pixels at 24 frames/s and every audio preset on stereo sound, through the
tokenizers (uint8 or float in, uint8 or float out), in bfloat16, eager and compiled. Weights are random: speed does not
depend on them. The aim: encoding and decoding each take less time than the clip lasts. Results are written after every
row, to ``tokenizer_speed.json`` and ``tokenizer_speed.md`` in OUT; rows are begun only while time is left.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from selfflow_mm.bench.memory import gigabytes, measure
from selfflow_mm.bench.report import machine
from selfflow_mm.bench.timing import once
from selfflow_tokenizers import AudioAutoencoder, AudioTokenizer, VideoAutoencoder, VideoTokenizer
from selfflow_tokenizers.presets import AUDIO_PRESETS, VIDEO_PRESETS

_HEAD = ("tokenizer", "parameters", "clip", "compiled", "encode", "decode", "peak memory", "difference to float32")


@dataclass(frozen=True)
class Row:
    """Seconds of medium per second of computing, and what it took.

    Attributes:
        difference: root mean square difference of bfloat16 from float32 token values, in their deviations.
    """

    name: str
    parameters: int
    clip: str
    compiled: bool
    encode: float
    decode: float
    peak: int
    difference: float


def awake(model: nn.Module) -> nn.Module:
    """As built, blocks add exactly nothing; numbers as they are after training make bfloat16's error visible."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def video_row(name: str, device: torch.device, batch: int, size: int, frames: int, compiled: bool) -> Row:
    model = awake(VideoAutoencoder(VIDEO_PRESETS[name]))
    tokenizer = VideoTokenizer(model, patch=1).to(device)
    if compiled:
        model.posterior, model.decode = torch.compile(model.posterior), torch.compile(model.decode)  # type: ignore
    clips = torch.randint(0, 256, (batch, frames, size, size, 3), dtype=torch.uint8, device=device)
    cells = size // tokenizer.spec.space_compression
    values = tokenizer.encode_batch(clips, bfloat16=True)
    seconds = batch * frames / 24
    exact = tokenizer.encode_batch(clips[:1, :5])
    off = (tokenizer.encode_batch(clips[:1, :5], bfloat16=True) - exact).square().mean().sqrt() / exact.std()
    peak = measure(lambda: tokenizer.decode_batch(values, cells, cells, bfloat16=True), device)
    return Row(
        name,
        sum(p.numel() for p in model.parameters()),
        f"{batch} x {frames} frames of {size} x {size} at 24/s",
        compiled,
        seconds / once(lambda: tokenizer.encode_batch(clips, bfloat16=True), device, 0.5),
        seconds / once(lambda: tokenizer.decode_batch(values, cells, cells, bfloat16=True), device, 0.5),
        peak.total if peak else 0,
        float(off),
    )


def audio_row(name: str, device: torch.device, batch: int, seconds: int, compiled: bool) -> Row:
    model = awake(AudioAutoencoder(AUDIO_PRESETS[name]))
    tokenizer = AudioTokenizer(model).to(device)
    if compiled:
        model.posterior, model.decode = torch.compile(model.posterior), torch.compile(model.decode)  # type: ignore
    waves = torch.rand(batch, 2, seconds * model.sample_rate, device=device) - 0.5
    values = tokenizer.encode_batch(waves, bfloat16=True)
    exact = tokenizer.encode_batch(waves[:1])
    off = (tokenizer.encode_batch(waves[:1], bfloat16=True) - exact).square().mean().sqrt() / exact.std()
    peak = measure(lambda: tokenizer.decode_batch(values, bfloat16=True), device)
    return Row(
        name,
        sum(p.numel() for p in model.parameters()),
        f"{batch} x {seconds} s of stereo at {model.sample_rate // 1000} kHz",
        compiled,
        batch * seconds / once(lambda: tokenizer.encode_batch(waves, bfloat16=True), device, 0.5),
        batch * seconds / once(lambda: tokenizer.decode_batch(values, bfloat16=True), device, 0.5),
        peak.total if peak else 0,
        float(off),
    )


def rows(args: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Most wanted first: eager one clip at a time, then compiled, then several at once."""
    deadline = time.monotonic() + 60 * args.minutes
    frames, size, length = (9, 32, 2) if args.dry else (121, 256, 10)
    videos = [n for n in VIDEO_PRESETS if n.startswith("video") and (not args.dry or n.endswith("small"))]
    audios = [n for n in AUDIO_PRESETS if not args.dry or n.endswith("small")]
    for batch, compiled in ((1, False), (1, True), (4, True)):
        if args.dry and compiled:
            return
        for name in (*videos, *audios):
            if time.monotonic() > deadline:
                print(f"no time left for {name}, batch {batch}, {'compiled' if compiled else 'eager'}")
                continue
            torch._dynamo.reset()
            if name in VIDEO_PRESETS:
                yield video_row(name, device, batch, size, frames, compiled)
            else:
                yield audio_row(name, device, batch, length, compiled)


def table(found: list[Row]) -> list[str]:
    lines = [f"| {' | '.join(_HEAD)} |", "|---" * 4 + "|---:" * 4 + "|"]
    for row in found:
        lines.append(
            f"| {row.name} | {row.parameters / 1e6:.0f} M | {row.clip} | {'yes' if row.compiled else 'no'} "
            f"| {row.encode:.1f} x real time | {row.decode:.1f} x | {gigabytes(row.peak)} | {row.difference:.1e} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")), help="folder for the results")
    parser.add_argument("--minutes", type=float, default=8.0, help="no row is begun after so many")
    parser.add_argument("--dry", action="store_true", help="toy sizes on a CPU")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() and not args.dry else "cpu")
    if device.type == "cpu" and not args.dry:
        raise SystemExit("there is no CUDA device here; --dry runs small on a CPU")
    about = machine(device)
    args.out.mkdir(parents=True, exist_ok=True)
    found: list[Row] = []
    for row in rows(args, device):
        found.append(row)
        print(table([row])[-1], flush=True)
        head = [f"    python {about['command']}", "", f"{about['device']}, torch {about['torch']}, {about['date']}", ""]
        (args.out / "tokenizer_speed.md").write_text("\n".join([*head, *table(found), ""]))
        data = {"machine": about, "rows": [asdict(r) for r in found]}
        (args.out / "tokenizer_speed.json").write_text(json.dumps(data, indent=1))


if __name__ == "__main__":
    main()
