"""What training steps take in memory, beside what the dry run says they would.

    python benchmarks/training_memory.py                                # all; to docs/results/training-memory.md
    python benchmarks/training_memory.py float32 packed --out mine.md   # some of them
    python benchmarks/training_memory.py --device cuda --cases large    # what a GPU is for

Every case is a process of its own (or two, over gloo), with a run's own parts: batches, student, EMA teacher, AdamW,
``take_step``. One step makes the optimizer's state, the next is measured. On a CPU that is resident memory at its
highest (VmHWM, made to count anew by /proc/self/clear_refs) less what was resident before the model was built; a small
model has trained before that, so that libraries are loaded. ``MALLOC_MMAP_THRESHOLD_=65536`` makes every tensor above
64 KiB a mapping that goes back to the system when it is freed: what is measured is what is alive, kernels' buffers
included, and no allocator's waste. On CUDA it is ``max_memory_allocated``. The estimate is the plan's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: The page's last words.
WHY = """
## What the estimate counts, and why

- Not all parts at once. Gradients come while activations go, so the peak is the fullest of: the teacher's pass over
  the student's kept activations, a block's backward pass at the beginning (no gradients) or at the end (no
  activations), the update. Plans before summed the parts and left temporaries out: two errors that nearly cancelled
  in a single pass without a long mask, and nowhere else.
- Temporaries: the teacher's pass and a block's backward pass (SwiGLU's gradient) hold 6 H a token and more at once.
- Gradients of earlier passes with `run.accumulate`; a second copy of all gradients while processes that hold a copy
  of the model each average them.
- Masks: `sdpa` keeps one of tokens x tokens for every padded or packed row in every block, in the products' type.
- A single block with biases keeps 3 D less than one whose queries, keys and values alone have them: there they are
  added to a copy.
""".strip()
#: A measurement may differ from its estimate by so much.
WITHIN = 0.10


@dataclass(frozen=True)
class Case:
    """A run: width of its model (2 double and 6 single blocks), samples of a batch, settings that differ."""

    width: int
    batch: int
    settings: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, float] = field(default_factory=lambda: {"t2v": 1.0})
    processes: int = 1


LOW = {"run.precision": "bfloat16"}
AGAIN = {"run.recompute": "blocks"}
CASES = {
    "float32": Case(384, 16),
    "float32, wider": Case(640, 16),
    "float32, recomputed": Case(384, 48, AGAIN),
    "float32, two passes": Case(384, 32, {"run.accumulate": 2}),
    "float32, averages": Case(384, 16, {"run.posthoc_ema.every": 100}),
    "float32, no teacher": Case(384, 16, {"objective.name": "flow"}),
    "bfloat16": Case(256, 16, LOW),
    "bfloat16, recomputed": Case(128, 32, LOW | AGAIN),
    "packed, sdpa": Case(384, 1, {"data.pack": 2400}, {"t2v": 1.0, "t2i": 1.0}),
    "packed, varlen": Case(384, 1, {"data.pack": 2400, "run.attention": "varlen"}, {"t2v": 1.0, "t2i": 1.0}),
    "two processes, copies": Case(384, 16, processes=2),
    "two processes, shared": Case(384, 16, {"parallel.shard": 0}, processes=2),
    "two processes, tokens": Case(384, 8, {"parallel.context": 2}, processes=2),
}
#: For the test: seconds on any machine.
SMALL = {"small": Case(128, 12)}
#: For a GPU with 80 GB or more.
LARGE = {
    "large": Case(1536, 64, LOW),
    "large, recomputed": Case(1536, 256, LOW | AGAIN),
    "large, two passes": Case(1536, 128, LOW | {"run.accumulate": 2}),
    "large, packed, sdpa": Case(1536, 1, LOW | {"data.pack": 10_000}, {"t2v": 1.0, "t2i": 1.0}),
    "large, packed, varlen": Case(
        1536, 1, LOW | {"data.pack": 10_000, "run.attention": "varlen"}, {"t2v": 1.0, "t2i": 1.0}
    ),
}
SETS = {"cpu": CASES, "small": SMALL, "large": LARGE}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="cases; all of the set unless given")
    parser.add_argument("--cases", choices=SETS, default="cpu", help="which set")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/training-memory.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.child:
        print(json.dumps(measured(SETS[args.cases][args.child], args.device)))
        return 0
    lines = []
    for name in args.names or SETS[args.cases]:
        found = in_processes(name, args.cases, args.device)
        lines.append(_row(name, SETS[args.cases][name], found))
        print(lines[-1], flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(_page(lines, args)) + "\n", encoding="utf-8")
    return 0


def in_processes(name: str, cases: str, device: str) -> dict[str, float]:
    """A case measured in fresh processes; of several, the one that takes most."""
    count = SETS[cases][name].processes
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--child", name, "--cases", cases, "--device", device]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tokenizers"), os.environ.get("PYTHONPATH", "")])
    started = []
    for rank in range(count):
        env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        if count > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{name}: a process failed")
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    return max(found, key=lambda one: one["measured"])


def measured(case: Case, device: str) -> dict[str, float]:
    """Both figures of a case, in bytes, of this process."""
    import torch

    from selfflow_mm.bench.memory import measure, resident
    from selfflow_mm.training.ranks import joined

    where = torch.device(device)
    with joined(int(case.settings.get("parallel.context", 1))) as ranks:
        for step in _steps(Case(64, 4 * ranks.world, case.settings | {"data.pack": 0}), ranks, where):
            step()
        before = resident()
        plan, estimate = _plan(case, ranks)
        steps = _steps(case, ranks, where)
        next(steps)()
        peak = measure(next(steps), where)
        assert peak is not None
        total = peak.total if where.type == "cuda" else peak.total - before
    return {"measured": total, "estimate": estimate.total, "parameters": plan.parameters, **_parts(estimate)}


def _parts(memory: Any) -> dict[str, float]:
    return {"state": memory.state - memory.casts, "casts": memory.casts, "activations": memory.activations}


@cache
def _channels() -> int:
    """Of a latent token."""
    from selfflow_mm.weights.tokenizers import named_tokenizer

    return named_tokenizer("tiny/video").spec.channels


def _config(case: Case, device: str = "cpu") -> Any:
    from selfflow_mm.config import from_dict
    from selfflow_mm.training.config import TrainConfig

    head = 32
    base = {
        "model": {
            "width": case.width, "heads": case.width // head, "double_blocks": 2, "single_blocks": 6,
            "rope_axes": [8, 8, 8, 8], "modalities": {"video": _channels(), "image": _channels()},
        },
        "tokenizers": {"image": "tiny/video", "video": "tiny/video"},
        "data": {"sources": {"clips": {"path": "nowhere", "batch": case.batch, "tasks": case.tasks,
                                       "expects": {"samples": 64, "frames": 33, "height": 64, "width": 64}}}},
        "run": {"precision": "float32", "steps": 100, "device": device},
    }  # fmt: skip
    for name, value in case.settings.items():
        place = base
        *above, last = name.split(".")
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return from_dict(TrainConfig, base)


def _plan(case: Case, ranks: Any) -> tuple[Any, Any]:
    """The case's plan, and what it says a process needs."""
    from selfflow_mm.training.cluster import Cluster
    from selfflow_mm.training.gpus import gpu
    from selfflow_mm.training.plan import make_plan
    from selfflow_mm.training.plan_cluster import estimate, laid_out

    plan = make_plan(_config(case))
    return plan, estimate(plan, laid_out(plan, Cluster(gpu("h200"), ranks.world))).memory


class MadeUp:
    """Latents of made-up samples as large as the plan's; what ``LatentDataset`` is to batches."""

    def __init__(self, sizes: dict[str, int], samples: int = 64) -> None:
        import torch

        self.folder, self.samples, self.sizes = Path("made-up"), samples, sizes
        self.values = {m: torch.randn(samples, n, _channels()) for m, n in sizes.items()}
        self.places = {m: torch.rand(n, 4) for m, n in sizes.items()}
        # As the plan: 16 words at most.
        self.captions = [(" ".join(["word"] * (16 - i % 8)),) for i in range(samples)]

    def having(self, modalities: tuple[str, ...]) -> list[int]:
        return list(range(self.samples))

    def buckets(self, modalities: tuple[str, ...]) -> dict[str, list[int]]:
        return {"all": self.having(modalities)}

    def tokens(self, modality: str, id: int) -> int:
        return self.sizes[modality]

    def stream(self, modality: str, ids: list[int]) -> Any:
        from selfflow_mm.tokens import TokenStream

        return TokenStream.dense(self.values[modality][ids], self.places[modality])


def _steps(case: Case, ranks: Any, device: Any) -> Iterator[Any]:
    """Two steps of the case's run, to be called."""
    import torch

    from selfflow_mm.flow.objectives import Objective
    from selfflow_mm.randomness import Randomness
    from selfflow_mm.training import ema
    from selfflow_mm.training.engine import as_called
    from selfflow_mm.training.parts import build_batches, build_model, pick_dtype
    from selfflow_mm.training.plan import make_plan
    from selfflow_mm.training.posthoc_ema import PowerAverages
    from selfflow_mm.training.sharding import mesh_of, put_on
    from selfflow_mm.training.state import State
    from selfflow_mm.training.step import Work, take_step

    config = _config(case, str(device))
    plan = make_plan(config)
    data = MadeUp({m: n for draw in plan.draws for m, n in draw.sizes.items()})
    sources = {"clips": (config.data.sources["clips"], data)}
    dtype = pick_dtype(config.run.precision, device)
    mesh = mesh_of(config.parallel.shard, ranks, device)
    model = build_model(plan.model, 0)
    teacher = ema.copy_for_ema(model)
    for m in (model, teacher):
        put_on(m, device, mesh, dtype)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    kept = config.run.posthoc_ema
    averages = PowerAverages(model, kept.stds) if kept.every else None
    state = State(model, teacher, optimizer, build_batches(config, sources, plan.text, ranks), averages, ranks=ranks)
    student, seen = as_called(config.run, model, teacher, ranks)
    work = Work(student, seen, Objective(config.objective), Randomness(0), 0.9, device, dtype, Path("nowhere"))

    def step(number: int) -> None:
        _, _, batch = state.batches.at(number)
        take_step(config.run, config.optimizer, state, work, batch.to(device))

    for number in range(2):
        yield lambda number=number: step(number)


def _row(name: str, case: Case, found: dict[str, float]) -> str:
    ratio = found["estimate"] / found["measured"]
    names = ("state", "casts", "activations", "estimate", "measured")
    sizes = " | ".join(f"{found[key] / 2**30:.2f}" for key in names)
    how = f"pack {case.settings['data.pack']}" if "data.pack" in case.settings else f"batch {case.batch}"
    return f"| {name} | {found['parameters'] / 1e6:.1f} M, {how} | {sizes} | {ratio:.3f} |"


def _page(lines: list[str], args: argparse.Namespace) -> Iterator[str]:
    import torch

    ratios = [float(line.split("|")[-2]) for line in lines]
    machine = torch.cuda.get_device_name() if args.device == "cuda" else _processor()
    yield "# Memory of a training step, planned and measured"
    yield ""
    yield (
        "Self-Flow steps of models with 2 double and 6 single blocks on made-up latents, each case in a fresh process: "
        "GiB by the plan (`--dry-run`),"
    )
    yield "and what the second step really took at its highest, measured as `benchmarks/training_memory.py` says."
    yield ""
    options = f" --device {args.device} --cases {args.cases}" if args.device != "cpu" else ""
    yield f"    python benchmarks/training_memory.py{options}"
    yield ""
    yield f"{machine}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}."
    yield ""
    yield "| case | model | state | casts or gathered | activations | planned | measured | planned / measured |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    yield from lines
    yield ""
    off = sum(abs(1 - ratio) > WITHIN for ratio in ratios)
    yield f"Ratios from {min(ratios):.2f} to {max(ratios):.2f}; {off or 'none'} off by more than {WITHIN:.0%}."
    yield (
        "State is weights, gradients, AdamW and averages; planned is less than the sum, as gradients come while "
        "activations go."
    )
    yield ""
    yield WHY


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
