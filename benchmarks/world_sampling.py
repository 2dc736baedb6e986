"""Ways of sampling the bundled world, side by side: the same captions and noise, one column for each way.

    python benchmarks/world_sampling.py runs/tiny --n 64 --ways "" "default_guidance=3" \
        "steps=45 spans.video=[0,0.67] spans.audio=[0.33,1]" [--out sampling.json]

A way is settings of the run's `sampling:` section, "" those the model comes with. Captions are those of evaluate-world,
from its first on, and so are the measures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from selfflow_mm.config import from_dict, load_config, to_dict
from selfflow_mm.evaluation.world.measure import Row, measure_clip
from selfflow_mm.evaluation.world.reader import Reader
from selfflow_mm.evaluation.world.run import shuffled
from selfflow_mm.evaluation.world.sources import folder_clips, generate
from selfflow_mm.evaluation.world.summary import as_json, as_text, summarise
from selfflow_mm.generation.pipeline import Pipeline
from selfflow_mm.generation.sampling import SamplingConfig


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
    own, sets = pipeline.sampling, {}
    for way in args.ways:
        pipeline.sampling = settings(own, way)
        rows = measure(pipeline, reader, args.n, args.seed)
        sets[way or "its own"] = rows
        sets[f"{way or 'its own'}; shuffled"] = shuffled(rows)
        print(as_text(summarise({way or "its own": rows, "shuffled": shuffled(rows)})), flush=True)
    if args.out:
        args.out.write_text(json.dumps(as_json(summarise(sets)), indent=1) + "\n")


def settings(base: SamplingConfig, way: str) -> SamplingConfig:
    """``base`` with the settings that ``way`` names, by the rules of configs."""
    words = way.split()
    changed, merged = to_dict(load_config(SamplingConfig, None, words)), to_dict(base)
    for name in {word.split("=")[0].split(".")[0] for word in words}:
        value = changed[name]
        merged[name] = merged[name] | value if isinstance(value, dict) else value
    return from_dict(SamplingConfig, merged, "--ways")


def measure(pipeline: Pipeline, reader: Reader, n: int, seed: int) -> list[Row]:
    """The rows of ``evaluate-world`` of the first ``n`` captions."""
    with tempfile.TemporaryDirectory() as folder:
        generate(pipeline, Path(folder), n, seed)
        return [measure_clip(reader, clip.caption, *clip.read()) for clip in folder_clips(Path(folder))]


if __name__ == "__main__":
    main()
