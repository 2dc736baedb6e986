"""Train a larger model of the bundled world on one accelerator, in one command of under ten minutes.

    python benchmarks/accelerator/world_model.py --out OUT [--minutes 8.5] [--clips 40000] [--workers 16]

Renders clips, encodes them with the bundled tokenizers, times a few steps, chooses as many steps as fit, trains, and
leaves in OUT: ``model/`` (weights as float16), ``config.yaml``, ``log.jsonl``, ``report.html`` and ``table.json``, each
small enough to carry away. ``--dry`` does all of it at a hundredth of the size, to test the script on a CPU.

The weights replace the bundled ones by copying ``OUT/model`` over ``selfflow_mm/weights/tiny``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import torch

from selfflow_mm.config import load_config
from selfflow_mm.data.world.dataset import write_world
from selfflow_mm.generation.pipeline import Pipeline
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.loop import train
from selfflow_mm.training.run_folder import read_log

#: At width 200 (the default) 5.8 M parameters: 12 MB as float16, under 20 MB with the tokenizers, the package's limit.
SHAPE = ["model.double_blocks=3", "model.single_blocks=6", "model.mlp_ratio=2"]


def settings(args: argparse.Namespace, steps: int, work: Path) -> TrainConfig:
    head = args.width // 4
    space = head // 4 - head // 4 % 2
    axes = [head - 2 * space - 4, space, space, 4]
    overrides = [
        *SHAPE,
        f"model.width={args.width}",
        "model.heads=4",
        f"model.rope_axes={axes}",
        f"data.sources.world.path={work / 'world'}",
        f"data.sources.world.batch={args.batch}",
        f"data.latents={work / 'latents'}",
        f"run.steps={steps}",
        "run.threads=0",
        f"run.compile={str(args.compile).lower()}",
        f"run.save_every={max(1, steps // 4)}",
        f"run.sample_every={steps}",
        f"optimizer.lr={args.lr}",
    ]
    return load_config(TrainConfig, "tiny.yaml", overrides)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.5, help="for everything, from start to end")
    parser.add_argument("--clips", type=int, default=40_000)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--width", type=int, default=200)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--dry", action="store_true", help="a hundredth of everything")
    args = parser.parse_args()
    started = time.monotonic()
    if args.dry:
        args.clips, args.batch, args.minutes, args.workers = args.clips // 100, 4, min(args.minutes, 2.0), 2
    work = args.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    table: dict[str, object] = {"torch": torch.__version__, "clips": args.clips}
    if torch.cuda.is_available():
        table["device"] = torch.cuda.get_device_name()

    if not (work / "world").exists():
        write_world(work / "world", args.clips, 0, workers=args.workers)
    table["seconds to render"] = round(time.monotonic() - started, 1)

    trial = settings(args, 40, work)
    trial = replace(trial, run=replace(trial.run, log_every=10, sample_every=0))
    shutil.rmtree(work / "trial", ignore_errors=True)
    train(trial, work / "trial")  # encodes, too
    log = read_log(work / "trial")
    pace = (log[-1]["seconds"] - log[1]["seconds"]) / (log[-1]["step"] - log[1]["step"])
    table["seconds to render and encode"] = round(time.monotonic() - started, 1)
    left = 60 * args.minutes - (time.monotonic() - started) - (5 if args.dry else 30)
    steps = max(50, int(left / pace * 0.95))
    table |= {"seconds per step": round(pace, 4), "steps": steps, "samples": steps * args.batch}
    print(json.dumps(table), flush=True)

    run = work / "run"
    resume = (run / "run.json").exists()
    train(settings(args, steps, work), run, resume=resume)
    pipeline = Pipeline.from_pretrained(run)
    shutil.rmtree(args.out / "model", ignore_errors=True)
    pipeline.save_pretrained(args.out / "model", half=True, metadata={"steps": str(steps), "seed": "0"})
    for name in ("config.yaml", "log.jsonl", "report.html", "run.json"):
        shutil.copy(run / name, args.out / name)
    last = read_log(run)[-1]
    table |= {k: v for k, v in last.items() if k.startswith(("loss", "l_", "cosine"))}
    table["parameters"] = sum(p.numel() for p in pipeline.model.parameters())
    table["minutes"] = round((time.monotonic() - started) / 60, 2)
    (args.out / "table.json").write_text(json.dumps(table, indent=1) + "\n")
    shutil.rmtree(work)
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
