"""Which contacts of true clips an audio tokenizer keeps, by what sounds, and which onsets it invents.

    python benchmarks/world_onsets.py tiny/audio runs/audio/tokenizer [--clips 60]

A contact (impact of at least 0.1) is kept where the decoded sound has an onset within 30 ms of it; an onset is invented
where the true sound has none within 30 ms.
"""

from __future__ import annotations

import argparse
from collections import Counter

import torch

from selfflow_mm.data.world import make_clip
from selfflow_mm.evaluation.world.onsets import find_onsets
from selfflow_mm.weights.tokenizers import named_tokenizer

WORLD, NEAR = 80_001, 0.03  # the world of world_reader.py; seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizers", nargs="+")
    parser.add_argument("--clips", type=int, default=60)
    args = parser.parse_args()
    for name in args.tokenizers:
        tokenizer, kept, total, invented = named_tokenizer(name), Counter[str](), Counter[str](), 0
        for index in range(args.clips):
            clip = make_clip(WORLD, index, "test")
            with torch.inference_mode():
                [decoded] = tokenizer.decode(tokenizer.encode([clip.audio]))
            heard, true = find_onsets(decoded), find_onsets(clip.audio)
            for event in clip.events:
                if event["kind"] == "contact" and event["impact"] >= 0.1:
                    what = " and ".join(event["materials"])
                    total[what] += 1
                    kept[what] += near(event["time"], heard)
            invented += sum(not near(time, true) for time in heard)
        each = ", ".join(f"{what} {kept[what]} of {n}" for what, n in total.most_common())
        print(f"{name}: {kept.total()} of {total.total()} contacts kept ({each}); {invented} onsets invented")


def near(time: float, others: list[float]) -> bool:
    return any(abs(time - other) < NEAR for other in others)


if __name__ == "__main__":
    main()
