"""How fast RLDS episodes are read with all their pictures decoded, against the ``tfrecord`` package and Pillow.

    python benchmarks/robot_data.py --data bridge_dataset/1.0.0 --frames frames.npz --out docs/results/robot-data.md

Both readers read the same files in alternating turns, in one process and one thread, and their pictures are compared.
``--frames`` takes an ``.npz`` whose ``image (N, 256, 320, 3)`` uint8 are photographs; a data set in RT-1's layout is
made of them, JPEG of quality 95. Rates are in steps per second of processor time, so that other programs do not count.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow

from selfflow_mm.bench.report import machine
from selfflow_mm.bench.table import write_text
from selfflow_robotics.episode import Episode, RawPictures
from selfflow_robotics.rlds import FRACTAL_FEATURES, FRACTAL_METADATA, FRACTAL_TREE, RldsFiles, RldsWriter, open_rlds

_PACKAGES = ("numpy", "pillow", "crc32c", "tfrecord", "protobuf")


def make_fractal(folder: Path, frames: np.ndarray, episodes: int, steps: int) -> None:
    """A data set in RT-1's layout whose pictures are the given photographs over and over."""
    rng = np.random.default_rng(0)
    with RldsWriter(folder, name="fractal20220817_data", version="0.1.0", tree=FRACTAL_TREE) as writer:
        for k in range(episodes):
            columns, texts = {}, {}
            for name, feature in FRACTAL_FEATURES.items():
                if feature.kind == "array":
                    shape = [steps, *(size or 0 for size in feature.shape)]
                    columns[name] = rng.normal(size=shape).astype(feature.dtype)
                elif feature.kind == "text":
                    texts[name] = ["pick coke can"] * steps
            chosen = frames[np.arange(k, k + steps) % len(frames)]
            metadata = {n: "" if f.kind == "text" else np.zeros((), f.dtype)[()] for n, f in FRACTAL_METADATA.items()}
            writer.write(Episode(str(k), steps, columns, texts, {"observation/image": RawPictures(chosen)}, metadata))


def read_ours(files: RldsFiles) -> Iterator[dict[str, np.ndarray]]:
    """The pictures of each episode, after every column has been read."""
    for shard in range(len(files.shards)):
        for index in range(files.episodes_in(shard)):
            episode = files.read(shard, index)
            yield {name: pictures.read() for name, pictures in episode.pictures.items()}


def read_tfrecord(files: RldsFiles) -> Iterator[dict[str, np.ndarray]]:
    """The same by the ``tfrecord`` package, which parses every feature, and Pillow."""
    from tfrecord import tfrecord_loader

    names = [name for name, feature in files.features.items() if feature.kind == "picture"]
    for shard in files.shards:
        for record in tfrecord_loader(str(files.folder / shard.name), None):
            found = {}
            for name in names:
                stored = record[f"steps/{name}"]
                each = [stored] if isinstance(stored, bytes) else stored
                found[name] = np.stack([np.asarray(Pillow.open(io.BytesIO(b)).convert("RGB")) for b in each])
            yield found


def rate(read: Callable[[RldsFiles], Iterator[dict[str, np.ndarray]]], files: RldsFiles) -> float:
    """Steps per second of processor time, over the whole data set."""
    start, steps = time.process_time(), 0
    for pictures in read(files):
        steps += len(next(iter(pictures.values())))
    return steps / (time.process_time() - start)


def compare(files: RldsFiles) -> bool:
    """Whether both readers give the same pictures."""
    for ours, theirs in zip(read_ours(files), read_tfrecord(files), strict=True):
        if any(not np.array_equal(ours[name], theirs[name]) for name in theirs):
            return False
    return True


def row(files: RldsFiles, rounds: int) -> str:
    cameras = [feature for feature in files.features.values() if feature.kind == "picture"]
    sizes = sorted({"{} x {}".format(*feature.shape[:2]) for feature in cameras})
    same = compare(files)  # also the turn that warms both up
    ours, theirs = [], []
    for turn in range(rounds):
        pair = [(ours, read_ours), (theirs, read_tfrecord)]
        for rates, read in pair if turn % 2 else reversed(pair):
            rates.append(rate(read, files))
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    verdict = "yes" if same else "NO"
    return (
        f"| {files.name} | {sum(s.episodes for s in files.shards)} | {len(cameras)} of {', '.join(sizes)} "
        f"| {statistics.median(ours):,.0f} | {statistics.median(theirs):,.0f} | {ratio:.2f} | {verdict} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of RLDS data sets")
    parser.add_argument("--frames", type=Path, help="photographs of which a data set in RT-1's layout is made")
    parser.add_argument("--episodes", type=int, default=8, help="of that data set")
    parser.add_argument("--steps", type=int, default=43, help="of each of its episodes; RT-1's mean is 43")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if not args.data and not args.frames:
        parser.error("name data sets with --data, or photographs with --frames")
    torch.set_num_threads(1)
    about = machine(torch.device("cpu"))
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    lines = [
        f"    python {about['command']}",
        "",
        f"{about['cpu']}, one thread, Python {about['python']}, {packages}, {about['date']}.",
        "",
        "Steps per second of processor time, all columns read and all pictures decoded; medians of "
        f"{args.rounds} alternating rounds.",
        "",
        "| data set | episodes | pictures a step | this reader | tfrecord + Pillow | ratio | same pictures |",
        "|---|---:|---|---:|---:|---:|---|",
    ]
    lines += [row(open_rlds(folder), args.rounds) for folder in args.data]
    if args.frames:
        with tempfile.TemporaryDirectory() as folder:
            with np.load(args.frames, allow_pickle=False) as found:
                make_fractal(Path(folder) / "0.1.0", found["image"], args.episodes, args.steps)
            lines.append(row(open_rlds(Path(folder) / "0.1.0"), args.rounds))
    print("\n".join(lines))
    if args.out:
        write_text(args.out, "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
