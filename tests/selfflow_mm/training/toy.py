"""A run without files: latents in memory, a model of a few thousand weights, steps whose losses can be compared.

Also a program: ``torchrun --nproc-per-node 2 -m tests.selfflow_mm.training.toy OUT NAME...`` writes the losses of the
named runs to OUT, and without names prints how far all runs of so many processes are from the run of one.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch

from selfflow_mm.flow.objectives import Objective, ObjectiveConfig
from selfflow_mm.models.joint import JointConfig, JointTransformer
from selfflow_mm.randomness import Randomness
from selfflow_mm.tokens import TokenStream
from selfflow_mm.training import ema
from selfflow_mm.training.batches import Batches
from selfflow_mm.training.config import OptimizerConfig, RunConfig, SourceConfig
from selfflow_mm.training.engine import as_called
from selfflow_mm.training.packing import PackedBatches
from selfflow_mm.training.posthoc_ema import PowerAverages
from selfflow_mm.training.ranks import ONE, Ranks, joined
from selfflow_mm.training.sharding import mesh_of, put_on, whole_on_cpu
from selfflow_mm.training.state import State
from selfflow_mm.training.step import Work, take_step
from selfflow_tokenizers import ByteTextEncoder

CHANNELS = {"image": 3, "video": 3, "audio": 4}
STEPS = 4
#: What a run is; "one" of each pair is what one process does.
RUNS: dict[str, dict[str, Any]] = {
    "one": {},
    "shared": {},
    "passes": {"accumulate": 2},
    "sharded": {"shard": 0},
    "sharded, compiled": {"shard": 0, "compile": True},
    "sharded passes, recomputed": {"shard": 0, "accumulate": 2, "recompute": "blocks"},
    "context": {"context": 2},
    "context, sharded": {"context": 2, "shard": 0},
    "one in bfloat16": {"dtype": torch.bfloat16},
    "sharded in bfloat16": {"dtype": torch.bfloat16, "shard": 0},
    "one packed": {"pack": 260},
    "packed": {"pack": 260},
    "packed, sharded, passes": {"pack": 260, "shard": 0, "accumulate": 2},
    "packed, context, varlen": {"pack": 260, "context": 2, "attention": "varlen"},
    # For four processes:
    "hybrid": {"shard": 2},
    "hybrid, context": {"shard": 2, "context": 2},
    "packed, hybrid": {"pack": 260, "shard": 2},
}


class Latents:
    """Latents of made-up samples, each modality in some of them; what ``LatentDataset`` is to batches."""

    def __init__(self, sizes: dict[str, int], samples: int, seed: int = 0) -> None:
        self.folder, self.samples = Path("made-up"), samples
        self.sizes = sizes
        generator = torch.Generator().manual_seed(seed)
        self.values = {m: torch.randn(samples, n, CHANNELS[m], generator=generator) for m, n in sizes.items()}
        self.places = {m: torch.rand(n, 4, generator=generator) for m, n in sizes.items()}
        for places in self.places.values():
            places[:, 0] = torch.arange(len(places)) // 3 / 8
        self.captions = [(f"sample {i}", "the same in other words") for i in range(samples)]
        self.left_out: list = []

    def having(self, modalities: tuple[str, ...]) -> list[int]:
        # Every fifth sample has no sound.
        return [i for i in range(self.samples) if not ("audio" in modalities and i % 5 == 4)]

    def buckets(self, modalities: tuple[str, ...]) -> dict[str, list[int]]:
        return {"all": self.having(modalities)}

    def tokens(self, modality: str, id: int) -> int:
        return self.sizes[modality]

    def stream(self, modality: str, ids: list[int]) -> TokenStream:
        return TokenStream.dense(self.values[modality][ids], self.places[modality])


def sources(weight: float = 1.0) -> dict[str, Any]:
    tasks = {"t2va": 0.5, "v2a": 0.2, "i2v": 0.2, "t2i": 0.1}
    return {
        "clips": (SourceConfig("", tasks, 2, 8), Latents({"video": 18, "audio": 7, "image": 6}, 12)),
        "long": (SourceConfig("", {"t2va": 1}, 1, 8, weight=weight), Latents({"video": 30, "audio": 11}, 9, seed=1)),
        "sounds": (SourceConfig("", {"t2a": 1}, 1, 8), Latents({"audio": 5}, 7, seed=2)),
    }


def toy(
    ranks: Ranks,
    *,
    shard: int = 1,
    context: int = 1,
    accumulate: int = 1,
    pack: int = 0,
    attention: str = "sdpa",
    recompute: str = "none",
    compile: bool = False,
    weight: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[RunConfig, OptimizerConfig, State, Work]:
    """The parts of a run. ``context`` is that of ``ranks``."""
    settings = RunConfig(  # type: ignore[arg-type]
        steps=STEPS, accumulate=accumulate, attention=attention, recompute=recompute, compile=compile
    )
    data, text = sources(weight), ByteTextEncoder(channels=6)
    batches: Batches = Batches(data, text, 3, 0.2, ranks)
    if pack:
        batches = PackedBatches(data, text, 3, 0.2, ranks, budget=pack, rows=accumulate)
    torch.manual_seed(1)
    config = JointConfig(
        width=32, heads=2, double_blocks=1, single_blocks=2, mlp_ratio=2.0, rope_axes=(8, 4, 4, 0),
        modalities=CHANNELS, text_channels=6,
    )  # fmt: skip
    model = JointTransformer(config)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.15)
    teacher = ema.copy_for_ema(model)
    device = torch.device("cpu")
    mesh = mesh_of(shard, ranks, device)
    for m in (model, teacher):
        put_on(m, device, mesh, dtype)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    state = State(model, teacher, optimizer, batches, PowerAverages(model, (0.1,)), ranks=ranks)
    student, seen = as_called(settings, model, teacher, ranks)
    objective = Objective(ObjectiveConfig(given_level=0.1))
    work = Work(student, seen, objective, Randomness(3), 0.5, device, dtype, Path("nowhere"))
    return settings, OptimizerConfig(clip=0.5), state, work


def losses(ranks: Ranks, **options: Any) -> dict[str, Any]:
    """What a run logs at each step, and the weights, average and norm that it ends with."""
    settings, optimizer, state, work = toy(ranks, **options)
    curve = []
    for step in range(STEPS):
        source, task, batch = state.batches.at(step)
        report = take_step(settings, optimizer, state, work, batch)
        curve.append({"source": source, "task": task, **{name: float(value) for name, value in report.items()}})
        state.step += 1
    sums = {
        name: {k: float(v.double().abs().sum()) for k, v in whole_on_cpu(m).items()}
        for name, m in (("model", state.model), ("teacher", state.teacher))
    }
    assert state.averages is not None
    return {"curve": curve, "place": state.batches.state_dict(), **sums}


def alone(name: str) -> dict[str, Any]:
    return losses(ONE, **RUNS[name])


def reference(name: str) -> str:
    """The run of one process that a run is compared with."""
    return "one packed" if "packed" in name else "one in bfloat16" if "bfloat16" in name else "one"


def furthest(found: dict[str, Any], expected: dict[str, Any]) -> tuple[float, float]:
    """The largest difference of any number that is logged, and of any sum of absolute weights."""
    logged = max(
        abs(value - b[name])
        for a, b in zip(found["curve"], expected["curve"], strict=True)
        for name, value in a.items()
        if not isinstance(value, str) and not name.startswith("padding")
    )
    return logged, max(abs(found[m][k] - v) for m in ("model", "teacher") for k, v in expected[m].items())


def main(out: Path, names: list[str]) -> None:
    with joined() as first:
        found = {}
        four = first.world == 4
        for name in names or [n for n in RUNS if not n.startswith("one") and ("hybrid" in n) == four]:
            options = copy.deepcopy(RUNS[name])
            ranks = Ranks(first.rank, first.world, options.get("context", 1))
            found[name] = losses(ranks, **options)
        if first.first:
            out.write_text(json.dumps(found))
        first.wait()
    if first.first and not names:
        single = {name: alone(name) for name in {reference(name) for name in found}}
        for name, run in found.items():
            logged, weights = furthest(run, single[reference(name)])
            print(f"| {name} | {logged:.1e} | {weights:.1e} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
