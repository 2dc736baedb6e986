"""How much of what the sound needs to know a model takes from the picture, and the reverse: sync as a loss.

    python benchmarks/world_sync.py runs/a runs/b [--clips 192] [--out sync.json]

Sync of sampled clips comes late in training and needs hundreds of clips to be told from chance. This asks the velocity
error of the sound's tokens at two noise levels, for true clips of the test split that nothing was trained on, while the
clean picture is (a) the clip's own, (b) another clip's, (c) pure noise, always with the clip's own caption and noise.
Used, 1 - a / b, is 0 for a model that ignores the picture. Told, 1 - a / c, is what the picture says beyond the
caption, for models that have learned to do without it. The same for the picture's tokens while the sound is clean.
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
from selfflow_mm.tokens import NoiseLevels, TokenStream

#: Noise levels of the tokens that are asked for.
LEVELS = (0.7, 0.9)
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="run folders, model folders or bundled models")
    parser.add_argument("--clips", type=int, default=192)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = {name: measure(Pipeline.from_pretrained(name), args.clips) for name in args.models}
    print(f"{'':<40} {'':>8} {'error':>7} {'used':>6} {'told':>6}")
    for name, found in result.items():
        for m, errors in found.items():
            shares = " ".join(f"{100 * errors[which]:>5.1f}%" for which in ("used", "told"))
            print(f"{name:<40} {m:>8} {errors['own']:>7.3f} {shares}")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


@torch.inference_mode()
def measure(pipeline: Pipeline, count: int) -> dict[str, dict[str, float]]:
    """Modality asked for -> mean squared errors with the ``own``, the ``other`` and no partner; ``used``, ``told``."""
    sums = {m: dict.fromkeys(("own", "other", "none"), 0.0) for m in ("audio", "video")}
    random = Randomness(0)
    for first in range(0, count, BATCH):
        ids = torch.arange(first, min(first + BATCH, count))
        clips = [make_clip(TEST_WORLD, int(i), "test") for i in ids]
        streams = {
            "video": pipeline.tokenizers["video"].encode([c.video for c in clips]),
            "audio": pipeline.tokenizers["audio"].encode([c.audio for c in clips]),
        }
        noise = {
            m: random.normal(f"noise/{m}", 0, ids, s.values[0].numel()).view_as(s.values) for m, s in streams.items()
        }
        text = pipeline.text_encoder.encode([c.captions[0].text for c in clips])
        for asked, partner in (("audio", "video"), ("video", "audio")):
            given = streams[partner]
            partners = {
                "own": (given, 0.0),
                "other": (given.with_values(given.values.roll(1, 0)), 0.0),
                "none": (given.with_values(noise[partner]), 1.0),
            }
            for which, (stream, level) in partners.items():
                for t in LEVELS:
                    error = _error(pipeline, asked, streams[asked], noise[asked], t, partner, stream, level, text)
                    sums[asked][which] += error * len(ids) / count / len(LEVELS)
    return {m: {**e, "used": 1 - e["own"] / e["other"], "told": 1 - e["own"] / e["none"]} for m, e in sums.items()}


def _error(
    pipeline: Pipeline,
    asked: str,
    clean: TokenStream,
    noise: torch.Tensor,
    t: float,
    partner: str,
    given: TokenStream,
    level: float,
    text: TokenStream,
) -> float:
    rows = len(clean.values)
    levels = {
        asked: NoiseLevels.uniform(torch.full((rows,), t), clean.sample),
        partner: NoiseLevels.uniform(torch.full((rows,), level), given.sample),
        "text": NoiseLevels.uniform(torch.zeros(rows), text.sample),
    }
    noisy = clean.with_values(interpolate(clean.values, noise, levels[asked].per_token()))
    # In the order of training, as tokens of modalities lie end to end.
    streams = {m: noisy if m == asked else given for m in ("video", "audio")}
    found = pipeline.model(streams, levels, text).velocity[asked]
    return float((found - velocity(clean.values, noise)).square().mean())


if __name__ == "__main__":
    main()
