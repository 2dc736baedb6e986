"""The velocity error of a model by noise level: where its training looks, and where it looks too seldom.

    python benchmarks/world_levels.py runs/a runs/b [--modality video] [--clips 64] [--out levels.json]

Clips of the test split of the bundled world, which nothing was trained on, with their captions; every model sees the
same noise. At level t = 1 only the caption is known, near 0 only the last detail is not; a model that gives the noisy
token back as the data has an error of about 1 there, so one above 1 was hardly trained at that level.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from selfflow_mm.data.world import make_clip
from selfflow_mm.evaluation.world.sources import TEST_WORLD
from selfflow_mm.flow.path import interpolate, velocity
from selfflow_mm.generation.pipeline import Pipeline
from selfflow_mm.randomness import Randomness
from selfflow_mm.tokens import NoiseLevels
from selfflow_tokenizers.media import Image

LEVELS = (0.98, 0.95, 0.9, 0.8, 0.7, 0.5, 0.3, 0.15, 0.05)
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="run folders, model folders or bundled models")
    parser.add_argument("--modality", choices=("video", "image", "audio"), default="video")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.modality:<40}", " ".join(f"{t:>6g}" for t in LEVELS))
    result = {}
    for name in args.models:
        result[name] = measure(Pipeline.from_pretrained(name), args.modality, args.clips)
        print(f"{name:<40}", " ".join(f"{error:>6.3f}" for error in result[name].values()), flush=True)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


@torch.inference_mode()
def measure(pipeline: Pipeline, modality: str, count: int) -> dict[str, float]:
    """Noise level -> mean squared error of the velocity of ``modality`` alone."""
    sums = dict.fromkeys(map(str, LEVELS), 0.0)
    random = Randomness(0)
    for first in range(0, count, BATCH):
        ids = torch.arange(first, min(first + BATCH, count))
        clips = [make_clip(TEST_WORLD, int(i), "test") for i in ids]
        middle = len(clips[0].video.frames) // 2
        media = {
            "video": [c.video for c in clips],
            "audio": [c.audio for c in clips],
            "image": [Image(c.video.frames[middle]) for c in clips],
        }[modality]
        clean = pipeline.tokenizers[modality].encode(media)
        noise = random.normal(f"noise/{modality}", 0, ids, clean.values[0].numel()).view_as(clean.values)
        text = pipeline.text_encoder.encode([c.captions[0].text for c in clips])
        of_text = NoiseLevels.uniform(torch.zeros(len(ids)), text.sample)
        for t in LEVELS:
            level = NoiseLevels.uniform(torch.full((len(ids),), t), clean.sample)
            noisy = clean.with_values(interpolate(clean.values, noise, level.per_token()))
            found = pipeline.model({modality: noisy}, {modality: level, "text": of_text}, text).velocity[modality]
            error = (found - velocity(clean.values, noise)).square().mean()
            sums[str(t)] += float(error) * len(ids) / count
    return sums


if __name__ == "__main__":
    main()
