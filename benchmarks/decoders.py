"""Frames per second of CPU time by PyAV, decord and torchcodec (those that are installed), and how far they differ.

    python benchmarks/decoders.py FOLDER        # videos of any kind, such as your own

Whole clips and eight spread frames, on one thread, from bytes in memory, in alternating rounds; it prints Markdown.
PyAV stands there twice: with our conversion of colours (accurate rounding, full chroma), and with FFmpeg's default,
which the others use.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from selfflow_mm.data.decoders import DECODERS
from selfflow_mm.data.mediafile import CONVERSION
from selfflow_mm.data.reading import VIDEO_ENDINGS

SPREAD = 8


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    print("| file | frames read | decoder | frames/s of one core | largest difference | mean difference |")
    print("|---|---|---|---:|---:|---:|")
    for path in sorted(p for p in args.folder.iterdir() if p.suffix.lstrip(".").lower() in VIDEO_ENDINGS):
        data = path.read_bytes()
        try:
            count = len(pyav(data, None))
        except av.error.FFmpegError as error:
            print(f"| {path.name} | none: {error.strerror} | | | | |")
            continue
        _compare(path, data, count, None, args.rounds)
        if count >= 2 * SPREAD:
            _compare(path, data, count, [round(i * (count - 1) / (SPREAD - 1)) for i in range(SPREAD)], args.rounds)
    return 0


def _compare(path: Path, data: bytes, count: int, rows: list[int] | None, rounds: int) -> None:
    ways: dict[str, Callable[[], np.ndarray]] = {
        "PyAV": lambda: pyav(data, rows),
        "PyAV, default colours": lambda: pyav(data, rows, accurate=False),
    }
    for name, decoder in DECODERS.items():
        if decoder.installed:
            whole, some = decoder.frames, decoder.spread
            if rows is None:
                ways[name] = lambda whole=whole: np.stack([f for _, _, f in whole(data, 1)])  # type: ignore[misc]
            else:
                ways[name] = lambda some=some: some(data, rows)  # type: ignore[misc]
    taken: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, np.ndarray | str] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.process_time()
            try:
                found[name] = way()
            except Exception as error:  # whatever a library raises for a file that it cannot read
                found[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"
            taken[name].append(time.process_time() - begin)
    what = f"all {count}" if rows is None else f"{len(rows)} of {count}"
    truth = found["PyAV"]
    for name, frames in found.items():
        if isinstance(frames, str):
            print(f"| {path.name} | {what} | {name} | cannot: {frames} | | |")
            continue
        rate = len(frames) / statistics.median(taken[name])
        if frames.shape == truth.shape:  # type: ignore[union-attr]
            apart = np.abs(frames.astype(np.int16) - truth.astype(np.int16))  # type: ignore[union-attr]
            difference = f"{apart.max()} | {apart.mean():.2f}"
        else:
            difference = f"shape {frames.shape}, not {truth.shape} |"  # type: ignore[union-attr]
        print(f"| {path.name} | {what} | {name} | {rate:,.0f} | {difference} |")


def pyav(data: bytes, rows: Sequence[int] | None, accurate: bool = True) -> np.ndarray:
    """All frames, or these, as RGB. It decodes up to the last of them: no file says exactly where a frame is."""
    converter, frames = VideoReformatter(), []
    wanted = None if rows is None else set(rows)
    with av.open(io.BytesIO(data)) as container:
        video = container.streams.video[0]
        video.codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video)):
            if wanted is not None and number not in wanted:
                continue
            if accurate:
                frame = converter.reformat(frame, format="rgb24", interpolation=CONVERSION, threads=1)
            frames.append(frame.to_ndarray(format="rgb24"))
            if rows is not None and number == max(rows):
                break
    return np.stack(frames)


if __name__ == "__main__":
    sys.exit(main())
