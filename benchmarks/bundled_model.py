"""Remake the bundled model `tiny`: clips, two tokenizers, the transformer, its folder; then measure it.

    python benchmarks/bundled_model.py --work runs/bundled                        # hours; stop it whenever, repeat it
    python benchmarks/bundled_model.py --work runs/bundled --objective flow       # the same by plain flow matching
    python benchmarks/bundled_model.py --work runs/bundled --install              # over selfflow_mm/weights/tiny

What is done is not done again, and what was stopped goes on from its last checkpoint. Another kind of CPU rounds
differently: weights of the same quality, not the same bits. Settings of the transformer's runs follow as KEY=VALUE. Its
batches are too small for threads, so processes share them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from selfflow_mm.cli.main import main as selfflow_mm
from selfflow_mm.weights import ROOT

#: The tokenizers learn from the first so many of the clips, of seed 0.
TOKENIZER_CLIPS, CLIPS = 3000, 12_000
#: Sound finds its picture within 8,000 samples of mostly clean pictures with noisy sound, and keeps it; from the start
#: among all tasks it takes many times as long (docs/results/world.md).
FIRST = ["data.sources.world.tasks={v2a: 0.85, t2va: 0.15}", "optimizer.decay=0"]
#: The transformer's phases, each from the weights of the one before: name, configuration, settings.
PHASES: dict[str, tuple[str, list[str]]] = {
    "first": ("tiny.yaml", FIRST),
    "second": ("tiny.yaml", []),
    "last": ("tiny_extend.yaml", []),
}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--objective", default="self-flow")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="of clips and of the transformer")
    parser.add_argument("--first-steps", type=int, default=2000, metavar="N", help="of mostly sound for clean pictures")
    parser.add_argument("--measure", type=int, default=500, metavar="N", help="clips; 0: none")
    parser.add_argument("--install", action="store_true", help="put the model and its records into the package")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="KEY=VALUE",
        help="of all of the transformer's phases but the first's number of steps",
    )
    args = parser.parse_args()
    work: Path = args.work
    work.mkdir(parents=True, exist_ok=True)
    for folder, clips in (("first", TOKENIZER_CLIPS), ("world", CLIPS)):
        if not (work / folder).exists():
            call("make-world", "--out", work / folder, "--clips", clips, "--seed", 0, "--workers", args.processes)
    for kind in ("video", "audio"):
        run = work / f"tiny-{kind}"
        if not (run / "tokenizer" / "config.json").exists():
            more = ["--resume"] if run.exists() else []
            one = ["run.threads=1"]  # small layers gain nothing from a second
            call("train-tokenizer", f"tokenizers/tiny_{kind}.yaml", "--data", work / "first", "--out", run, *more, *one)
    name = "tiny" if args.objective == "self-flow" else f"tiny-{args.objective}"
    runs = {phase: work / f"{name}-{phase}" for phase in PHASES}
    video, audio = (work / f"tiny-{kind}" / "tokenizer" for kind in ("video", "audio"))
    settings = [
        f"tokenizers={{image: {video}, video: {video}, audio: {audio}}}",
        f"data.sources.world.path={work / 'world'}",
        f"data.latents={work / 'latents'}",
        f"objective.name={args.objective}",
        *([] if args.objective == "self-flow" else ["objective.gamma=null"]),
        "run.threads=1",
        *args.settings,
    ]
    before: Path | None = None
    for phase, (config, changes) in PHASES.items():
        own = [*changes, f"run.steps={args.first_steps}"] if phase == "first" else [*changes, f"init={before}"]
        if phase == "last":
            own.append(f"data.sources.stills.path={work / 'world'}")
        before = runs[phase]
        if not (before / "model" / "model.safetensors").exists():
            more = ["--resume"] if before.exists() else []
            train(args.processes, "train", config, "--out", before, *more, *settings, *own)
    if args.measure:
        where = ["--out", work / f"{name}-measured", "--train", work / "world"]
        call("evaluate-world", "--model", runs["last"], "--n", args.measure, *where)
    if args.install:
        install(work, runs)


def call(*words: object) -> None:
    """A command of the package, told as it would be typed; stops the script where it fails."""
    print("selfflow-mm", *words, flush=True)
    if code := selfflow_mm([str(word) for word in words]):
        sys.exit(code)


def train(processes: int, *words: object) -> None:
    """The same in several processes."""
    print("torchrun --nproc-per-node", processes, "-m selfflow_mm.cli.main", *words, flush=True)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run([*start, "-m", "selfflow_mm.cli.main", *map(str, words)], env=os.environ | ONE_THREAD)
    if done.returncode:
        sys.exit(done.returncode)


def install(work: Path, runs: dict[str, Path]) -> None:
    """The model with its tokenizers over the bundled one, and each part's record beside it; the card is kept."""
    target = ROOT / "tiny"
    for name in ("config.json", "model.safetensors"):
        shutil.copy(runs["last"] / "model" / name, target / name)
    for kind in ("video", "audio"):
        shutil.rmtree(target / "tokenizers" / kind, ignore_errors=True)
        shutil.copytree(work / f"tiny-{kind}" / "tokenizer", target / "tokenizers" / kind)
    for part, record in {**runs, "video": work / "tiny-video", "audio": work / "tiny-audio"}.items():
        (target / "training" / part).mkdir(parents=True, exist_ok=True)
        for name in ("config.yaml", "run.json", "scores.json", "log.jsonl"):
            if (record / name).exists():
                shutil.copy(record / name, target / "training" / part / name)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(json.dumps({"installed": str(target), "megabytes": round(size / 1e6, 1)}))


if __name__ == "__main__":
    main()
