"""What makes sound and picture of the bundled world go together: short runs that differ in one thing each.

    python benchmarks/world_ablation.py --data world --work ablation --steps 600 --out docs/results/world-ablation.json

Every run sees the same clips in the same order, with the same seed and as many samples; runs that are done are not done
again, so the command can be stopped and repeated. They are compared by what the sound takes from the picture
(``world_sync.py``). Where the picture is always given (--set "data.sources.world.tasks={v2a: 1}"), 6,400 samples are
enough for that; where it is one task of several, some ten thousands. --set changes all of them, the base too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from world_sync import measure

from selfflow_mm.config import load_config
from selfflow_mm.generation.pipeline import Pipeline
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.loop import train
from selfflow_mm.training.run_folder import read_log

#: What a run is called -> what it changes.
VARIANTS: dict[str, list[str]] = {
    "base": [],
    "flow": ["objective.name=flow"],
    "dual timesteps without L_rep": ["objective.name=dual"],
    "timesteps shared by picture and sound": ["objective.pairing=shared"],
    "more sound for a picture": ["data.sources.world.tasks={t2va: 0.25, v2a: 0.65, t2i: 0.05, i2va: 0.05}"],
    "no sound for a picture": ["data.sources.world.tasks={t2va: 0.9, t2i: 0.05, i2va: 0.05}"],
    "timestep shift 1.5": ["objective.timesteps={}"],
    "time_rate 6": ["model.time_rate=6"],
    "time_rate 96": ["model.time_rate=96"],
    "time_rate 400": ["model.time_rate=400"],
    "a quarter of L_rep": ["objective.gamma=0.2"],
    "L_rep of the paper": ["objective.gamma=0.8"],
    "time_rate 96, rope_theta 100": ["model.time_rate=96", "model.rope_theta=100"],
    "absolute positions": ["model.absolute_positions=true"],
    "linear part of the velocity": ["model.data_std={image: 1, video: 1, audio: 1}"],
    "half the batch, twice the steps": ["data.sources.world.batch=2", "run.steps={twice}"],
    "two thirds of the width": ["model.width=128", "model.rope_axes=[16, 6, 6, 4]"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="clips of make-world")
    parser.add_argument("--work", type=Path, required=True, help="where runs and latents are kept")
    parser.add_argument("--config", default="tiny.yaml")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), metavar="NAME", choices=list(VARIANTS))
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="of all runs")
    parser.add_argument("--clips", type=int, default=192, help="measured")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    always = [
        f"data.sources.world.path={args.data}",
        f"data.latents={args.work / 'latents'}",
        f"run.threads={args.threads}",
        f"run.steps={args.steps}",
        "run.sample_every=0",
        f"run.save_every={args.steps}",
        *args.set,
    ]
    rows = []
    for name in args.variants:
        run = args.work / name.replace(" ", "-")
        result = run / "sync.json"
        if not result.exists():
            changes = [change.replace("{twice}", str(2 * args.steps)) for change in VARIANTS[name]]
            if not (run / "model" / "model.safetensors").exists():
                train(load_config(TrainConfig, args.config, [*always, *changes]), run, resume=run.exists())
            torch.set_num_threads(args.threads)
            result.write_text(json.dumps(measure(Pipeline.from_pretrained(run), args.clips), indent=1) + "\n")
        rows.append({"name": name, **_facts(run), "sync": json.loads(result.read_text())})
    print(f"{'':<40} {'samples/s':>9} {'error':>7} {'used':>6} {'told':>6}")
    for row in rows:
        sound = row["sync"]["audio"]
        shares = " ".join(f"{100 * sound[which]:>5.1f}%" for which in ("used", "told"))
        print(f"{row['name']:<40} {row['samples_per_second']:>9.1f} {sound['own']:>7.3f} {shares}")
    if args.out:
        args.out.write_text(json.dumps({"steps": args.steps, "set": args.set, "runs": rows}, indent=1) + "\n")


def _facts(run: Path) -> dict[str, float]:
    log = [row for row in read_log(run) if "samples_per_second" in row]
    return {"steps": log[-1]["step"], "samples_per_second": sorted(r["samples_per_second"] for r in log)[len(log) // 2]}


if __name__ == "__main__":
    main()
