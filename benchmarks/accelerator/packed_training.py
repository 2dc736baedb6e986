"""Training steps as ``train`` takes them, on one accelerator: packed and in batches, by attention backend; checkpoints
written beside them; a run that goes on.

    python benchmarks/accelerator/packed_training.py --out OUT
    python benchmarks/accelerator/packed_training.py --dry                 # all of it at toy size on a CPU

Data are random latents of four kinds: pictures of 256 tokens, clips of 1,008 with 48 tokens of sound, clips of 3,024,
sounds of 250. A table says tokens per second, MFU (of the data sheet's bfloat16 rate) and peak memory for each way;
what a save in the background costs the steps beside it; and whether three steps, a checkpoint and three more give the
bits of six steps. Written after every part: ``packed_training.json`` and ``.md`` in OUT.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from selfflow_mm.flow.objectives import Objective, ObjectiveConfig
from selfflow_mm.models.joint import JointConfig, JointTransformer
from selfflow_mm.models.presets import preset
from selfflow_mm.randomness import Randomness
from selfflow_mm.tokens import TokenStream
from selfflow_mm.training import ema
from selfflow_mm.training.batches import Batches
from selfflow_mm.training.config import OptimizerConfig, RunConfig, SourceConfig
from selfflow_mm.training.engine import as_called
from selfflow_mm.training.packing import PackedBatches
from selfflow_mm.training.prefetch import Prefetched
from selfflow_mm.training.state import State
from selfflow_mm.training.step import Work, take_step
from selfflow_mm.training.throughput import Throughput, peak_of
from selfflow_tokenizers import ByteTextEncoder

CHANNELS = {"image": 16, "video": 48, "audio": 64}
TINY = JointConfig(
    width=32, heads=2, double_blocks=1, single_blocks=2, mlp_ratio=2.0, rope_axes=(8, 4, 4, 0)
)  # fmt: skip


class Latents:
    """Random latents of one size; what ``LatentDataset`` is to batches."""

    def __init__(self, samples: int, **sizes: int) -> None:
        self.folder, self.samples, self.sizes, self.left_out = Path("random"), samples, sizes, []
        generator = torch.Generator().manual_seed(sum(sizes.values()))
        self.values = {m: torch.randn(samples, n, CHANNELS[m], generator=generator) for m, n in sizes.items()}
        self.places = {m: torch.rand(n, 4, generator=generator) for m, n in sizes.items()}
        self.captions = [(f"a caption of about ten words for sample number {i} here",) for i in range(samples)]

    def having(self, modalities: tuple[str, ...]) -> list[int]:
        return list(range(self.samples))

    def buckets(self, modalities: tuple[str, ...]) -> dict[str, list[int]]:
        return {"all": self.having(modalities)}

    def tokens(self, modality: str, id: int) -> int:
        return self.sizes[modality]

    def stream(self, modality: str, ids: list[int]) -> TokenStream:
        return TokenStream.dense(self.values[modality][ids], self.places[modality])


def sources(scale: int, tokens: int) -> dict[str, Any]:
    """Four sources; batches hold about ``tokens`` of each."""
    kinds = {
        "pictures": ("t2i", 4, {"image": 256}),
        "clips": ("t2va", 2, {"video": 1008, "audio": 48}),
        "long": ("t2v", 1, {"video": 3024}),
        "sounds": ("t2a", 2, {"audio": 250}),
    }
    found = {}
    for name, (task, ratio, sizes) in kinds.items():
        small = {m: max(4, n // scale) for m, n in sizes.items()}
        batch = max(1, round(tokens / sum(small.values())))
        found[name] = (SourceConfig("", {task: 1}, ratio, batch), Latents(max(64, batch), **small))
    return found


def state_of(config: JointConfig, settings: RunConfig, tokens: int, packed: bool, scale: int, device: torch.device):
    """The parts of a run on random latents."""
    data, text = sources(scale, tokens), ByteTextEncoder(channels=config.text_channels)
    batches: Any = Batches(data, text, 0, 0.1)
    if packed:
        batches = PackedBatches(data, text, 0, 0.1, budget=tokens)
    torch.manual_seed(0)
    model = JointTransformer(config).to(device)
    teacher = ema.copy_for_ema(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    state = State(model, teacher, optimizer, batches)
    student, seen = as_called(settings, model, teacher)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    work = Work(student, seen, Objective(ObjectiveConfig()), Randomness(0), 0.999, device, dtype, Path("nowhere"))
    return state, work


def timed(state: State, work: Work, settings: RunConfig, steps: int, each: Callable[[int], None] | None = None) -> dict:
    """Rates over ``steps`` steps after three of warming up, and the longest step."""
    optimizer, device = OptimizerConfig(), work.device
    speed = Throughput(state.model.config, work.objective, peak=peak_of(device, work.dtype))
    with Prefetched(state.batches, 2, pin=device.type == "cuda") as batches:
        lengths = []
        for n in range(3 + steps):
            if n == 3:
                speed.take()
                lengths = []
            speed.start()
            _, _, batch = batches.at(state.step)
            begun = time.perf_counter()
            report = take_step(settings, optimizer, state, work, batch.to(device))
            assert math.isfinite(float(report["loss"]))
            lengths.append(time.perf_counter() - begun)
            speed.stop(batch, state.step)
            state.step += 1
            if each:
                each(n)
    rates = speed.take()
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    return {**rates, "median_s": median(lengths), "longest_s": max(lengths), "peak_gib": peak}


def tensors(state: State) -> list[torch.Tensor]:
    return [t.detach().cpu() for m in (state.model, state.teacher) for t in m.state_dict().values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("packed-training"))
    parser.add_argument("--tokens", type=int, default=32_768, help="of a step")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--dry", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() and not args.dry else "cpu")
    scale, tokens, steps = (32, 400, 3) if args.dry else (1, args.tokens, args.steps)
    shape = TINY if args.dry else preset("675m")
    shape = replace(shape, modalities=CHANNELS, text_channels=192)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu", "torch": torch.__version__,
        "tokens": tokens, "steps": steps, "ways": {},
    }  # fmt: skip

    def note() -> None:
        (args.out / "packed_training.json").write_text(json.dumps(found, indent=1))
        columns = ("tokens_per_second", "samples_per_second", "mfu", "median_s", "longest_s", "peak_gib")
        rows = [f"| way | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
        for way, rates in found["ways"].items():
            rows.append(f"| {way} | " + " | ".join(f"{rates.get(c, 0):.4g}" for c in columns) + " |")
        rows += ["", f"save: {found.get('save')}", f"going on gives the same bits: {found.get('exact')}"]
        (args.out / "packed_training.md").write_text("\n".join(rows) + "\n")

    ways = [("batches, sdpa", False, "sdpa"), ("packed, varlen", True, "varlen"), ("packed, sdpa", True, "sdpa")]
    if device.type == "cuda":
        ways.insert(2, ("packed, flex", True, "flex"))
    for way, packed, attention in ways:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        settings = RunConfig(attention=attention)  # type: ignore[arg-type]
        state, work = state_of(shape, settings, tokens, packed, scale, device)
        found["ways"][way] = timed(state, work, settings, steps)
        print(way, found["ways"][way], flush=True)
        note()
        del state, work

    settings = RunConfig(attention="varlen")
    saved, work = state_of(shape, settings, tokens, True, scale, device)
    folder = args.out / "checkpoints"
    with saved.writer(folder, settings) as writer:
        copied = []

        def save(n: int) -> None:
            if n == 4:
                begun = time.perf_counter()
                saved.save(writer)
                copied.append(time.perf_counter() - begun)

        beside = timed(saved, work, settings, steps, save)
        begun = time.perf_counter()
        writer.wait()
        waited = time.perf_counter() - begun
    size = sum(f.stat().st_size for f in folder.rglob("*.safetensors")) / 1e9
    found["save"] = {"gb": size, "copy_s": copied[0], "longest_step_beside_s": beside["longest_s"], "left_s": waited}
    shutil.rmtree(folder)
    note()

    settings = RunConfig(attention="varlen", async_save=False)
    whole, work = state_of(shape, settings, tokens, True, scale, device)
    timed(whole, work, settings, 3)
    first, work = state_of(shape, settings, tokens, True, scale, device)
    timed(first, work, settings, 0)
    with first.writer(folder, settings) as writer:
        first.save(writer)
    again, work = state_of(shape, settings, tokens, True, scale, device)
    again.load(folder / "step-000003")
    timed(again, work, settings, 0)
    found["exact"] = all(torch.equal(a, b) for a, b in zip(tensors(whole), tensors(again), strict=True))
    shutil.rmtree(folder)
    note()
    print((args.out / "packed_training.md").read_text())


if __name__ == "__main__":
    main()
