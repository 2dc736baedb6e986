"""Ways of sampling the bundled world, side by side: the same captions and noise, one column for each way.

    python benchmarks/world_sampling.py runs/tiny --n 64 --ways "" "default_guidance=3" \
        "steps=45 spans.video=[0,0.67] spans.audio=[0.33,1]" [--out sampling.json]

A way is settings of the run's `sampling:` section, "" those the model comes with. Captions are those of evaluate-world,
from its first on, and so are the measures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from tqdm import tqdm

from selfflow_mm.config import from_dict, load_config, to_dict
from selfflow_mm.data.world import make_clip
from selfflow_mm.evaluation.world.measure import Row, measure_clip
from selfflow_mm.evaluation.world.reader import Reader
from selfflow_mm.evaluation.world.run import shuffled
from selfflow_mm.evaluation.world.sources import TEST_WORLD
from selfflow_mm.evaluation.world.summary import as_json, as_text, summarise
from selfflow_mm.generation.pipeline import Pipeline
from selfflow_mm.generation.sampling import SamplingConfig

AT_ONCE = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="run folder, model folder or bundled model")
    parser.add_argument("--n", type=int, default=64, help="clips of each way")
    parser.add_argument("--ways", nargs="+", default=[""], metavar="SETTINGS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipeline, reader = Pipeline.from_pretrained(args.model), Reader.load()
    captions = [make_clip(TEST_WORLD, i, "test").captions[0].text for i in range(args.n)]
    sets = {}
    for way in args.ways:
        rows = measure(pipeline, reader, captions, settings(pipeline.sampling, way), args.seed, way or "its own")
        sets[way or "its own"] = rows
        sets[f"{way or 'its own'}; shuffled"] = shuffled(rows)
        print(as_text(summarise({way or "its own": rows, "shuffled": shuffled(rows)})), flush=True)
    if args.out:
        args.out.write_text(json.dumps(as_json(summarise(sets)), indent=1) + "\n")


def settings(base: SamplingConfig, way: str) -> SamplingConfig:
    """``base`` with the settings that ``way`` names, by the rules of configs."""
    changed = to_dict(load_config(SamplingConfig, None, way.split()))
    plain, named = to_dict(SamplingConfig()), to_dict(base)
    return from_dict(SamplingConfig, named | {k: v for k, v in changed.items() if v != plain[k]}, "--ways")


def measure(
    pipeline: Pipeline, reader: Reader, captions: list[str], sampling: SamplingConfig, seed: int, name: str
) -> list[Row]:
    """A row of ``evaluate-world`` per caption."""
    rows = []
    for start in tqdm(range(0, len(captions), AT_ONCE), desc=name):
        group = captions[start : start + AT_ONCE]
        for caption, result in zip(
            group, pipeline(group, seed=seed + start // AT_ONCE, sampling=sampling), strict=True
        ):
            assert result.video is not None and result.audio is not None
            rows.append(measure_clip(reader, caption, result.video, result.audio))
    return rows


if __name__ == "__main__":
    main()
