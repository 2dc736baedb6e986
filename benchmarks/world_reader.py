"""Train the reader of ``evaluate-world``, and measure it on true clips of the test split, as they are and coded.

    python benchmarks/world_reader.py --train selfflow_mm/weights/world_reader/model.safetensors --tokenizers tiny
    python benchmarks/world_reader.py --clips 200 --tokenizers tiny --out docs/results/world-reader.json

The first trains and then measures, the second only measures the bundled one; both also print the table that
``evaluate-world`` makes of the same clips, its ceiling. Independent truth is the clip's own scene,
motion and events: none of it reaches the measures. With --tokenizers NAME a third of what it learns from has been
through that model's video tokenizer, and clips are also measured after both of its tokenizers.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from tqdm import tqdm

from selfflow_mm.data.world.clip import make_clip
from selfflow_mm.evaluation.intervals import wilson
from selfflow_mm.evaluation.world.measure import Row, measure_clip
from selfflow_mm.evaluation.world.reader import Reader
from selfflow_mm.evaluation.world.reader_training import ReaderTraining, train_reader
from selfflow_mm.evaluation.world.run import shuffled
from selfflow_mm.evaluation.world.sources import coded_clips, real_clips
from selfflow_mm.evaluation.world.summary import as_json, as_text, summarise
from selfflow_mm.evaluation.world.validation import validate
from selfflow_mm.weights.tokenizers import named_tokenizer

WORLD = 80_001  # neither a training seed nor that of evaluate-world


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, metavar="FILE", help="train a reader and write it to FILE")
    parser.add_argument("--train-clips", type=int, default=ReaderTraining.clips)
    parser.add_argument("--steps", type=int, default=ReaderTraining.steps)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--tokenizers", metavar="NAME")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = ("video", "audio") if args.tokenizers else ()
    tokenizers = {name: named_tokenizer(f"{args.tokenizers}/{name}") for name in names}
    result: dict[str, object] = {"clips": args.clips, "world": WORLD, "tokenizers": args.tokenizers}
    if args.train:
        started = time.perf_counter()
        options = ReaderTraining(clips=args.train_clips, steps=args.steps)
        train_reader(options, tokenizers.get("video")).save(args.train)
        result["seconds of training"] = round(time.perf_counter() - started)
    reader = Reader.load(args.train)
    keys = [str(i) for i in range(args.clips)]
    sets = {"real": real_clips(keys, WORLD)}
    if tokenizers:
        sets["real, coded"] = coded_clips(keys, tokenizers, WORLD)
    rows: dict[str, list[Row]] = {}
    for name, clips in sets.items():
        pairs, seconds = [], 0.0
        for clip in tqdm(clips, total=args.clips, desc=name):
            video, audio = clip.read()
            started = time.perf_counter()
            row = measure_clip(reader, clip.caption, video, audio)
            seconds += time.perf_counter() - started
            pairs.append((make_clip(WORLD, int(clip.key), "test"), row))
        rates = {
            key: {
                "share": round(rate.share, 4),
                "interval": [round(v, 4) for v in wilson(rate.found, rate.total)],
                "n": rate.total,
            }
            for key, rate in validate(pairs).items()
            if rate.total
        }
        result[name] = {"seconds per clip": round(seconds / args.clips, 3), **rates}
        rows[name] = [row for _, row in pairs]
    rows["shuffled sound"] = shuffled(rows["real"])
    table = summarise(rows)
    print(json.dumps(result, indent=1), as_text(table), sep="\n\n")
    if args.out:
        args.out.write_text(json.dumps(result | {"table": as_json(table)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
