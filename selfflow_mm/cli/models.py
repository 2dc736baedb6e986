"""``selfflow-mm models``: the named models, with parameters, FLOPs and memory."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..training.sizes import Load, Size

HELP = "list the named models: shape, parameters, FLOPs per token, memory to train and to sample"
EXAMPLES = """\
examples:
  selfflow-mm models
  selfflow-mm models --tokens 1024 --text-tokens 128 --batch 8 --recompute
  selfflow-mm models 4b                       one model: every field and where its value comes from, counts by part
  selfflow-mm models --json > models.json
  selfflow-mm train tiny.yaml model.preset=290m --dry-run
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="describe this one in detail")
    parser.add_argument("--tokens", type=int, default=256, metavar="N", help="media tokens of one sample (256)")
    parser.add_argument("--text-tokens", type=int, default=64, metavar="N", help="text tokens of one sample (64)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="samples on one device (16)")
    parser.add_argument("--float32", action="store_true", help="matrix products in float32 instead of bfloat16")
    parser.add_argument("--recompute", action="store_true", help="train with run.recompute=blocks")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from ..training.sizes import NAMES, Load, size_of

    load = Load(args.tokens, args.text_tokens, args.batch, 4 if args.float32 else 2, args.recompute)
    if args.name:
        size = size_of(args.name, load)
        print(json.dumps(size.as_dict(), indent=1) if args.json else "\n".join(_detail(size, load)))
        return 0
    sizes = [size_of(name, load) for name in NAMES]
    print(json.dumps([size.as_dict() for size in sizes], indent=1) if args.json else "\n".join(_table(sizes, load)))
    return 0


def _table(sizes: Sequence[Size], load: Load) -> Iterator[str]:
    head = ("name", "blocks", "width", "heads", "parameters", "M", "forward", "step", "train", "sample")
    rows = [
        (
            s.name,
            s.blocks,
            str(s.width),
            str(s.heads),
            f"{s.parameters:,}",
            f"{s.parameters / 1e6:.1f}",
            f"{s.forward.total / s.tokens / 1e9:.3g}",
            f"{s.step.total / s.tokens / 1e9:.3g}",
            _gib(s.training.total),
            _gib(s.sampling),
        )
        for s in sizes
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        yield "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
    yield ""
    yield "blocks: double-stream + single-stream (xl/2 has one kind). parameters: all but the projector, which only"
    yield "training has; media of 128, 48 and 64 channels, text of 7,680 (tiny: its own)."
    yield f"forward, step: GFLOPs per token of one sample ({_sample(load)}; a multiply-add is 2). step is a"
    yield "Self-Flow training step: student with its backward pass, teacher up to its block."
    yield f"train, sample: memory of one device that holds everything, {load.batch} samples, matrix products in"
    yield f"{_precision(load)}: weights, gradients, AdamW, EMA (float32) and activations"
    yield f"{'with' if load.recompute else 'without'} recomputation; sampling with guidance, so twice the samples."
    yield "NAME says more: selfflow-mm models 4b"


def _detail(size: Size, load: Load) -> Iterator[str]:
    from ..models.flops import OVERHEAD

    yield f"{size.name}: {size.about}"
    yield ""
    yield "shape"
    shown = [(name, _value(value), source) for name, value, source in size.fields()]
    a, b = max(len(n) for n, _, _ in shown), max(len(v) for _, v, _ in shown)
    yield from (f"  {name:{a}}  {value:{b}}  {source}" for name, value, source in shown)
    total = sum(size.counts.values())
    yield ""
    yield f"parameters: {size.parameters:,} ({size.parameters / 1e6:.1f} M), with the projector {total:,}"
    yield from (f"  {part:18} {count:>15,}  {count / total:6.1%}" for part, count in size.counts.items())
    yield ""
    yield f"forward pass over {_sample(load, size)}: {size.forward.total / 1e9:,.1f} GFLOPs"
    for part, count in size.forward.parts.items():
        share = "overhead, not in the sum" if part in OVERHEAD else f"{count / size.forward.total:6.1%}"
        yield f"  {part:18} {count / 1e9:>15,.3f}  {share}"
    yield f"Self-Flow training step over it: {size.step.total / 1e9:,.1f} GFLOPs"
    memory = size.training
    yield ""
    yield (
        f"training {load.batch} samples in {_precision(load)} {'with' if load.recompute else 'without'} recomputation: "
        f"{_gib(memory.total)} on one device"
    )
    for name in ("weights", "gradients", "optimizer", "ema", "casts", "activations"):
        yield f"  {name:18} {_gib(getattr(memory, name)):>15}"
    yield f"sampling {load.batch} with guidance: {_gib(size.sampling)}"


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "-"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value) or "-"


def _sample(load: Load, size: Size | None = None) -> str:
    text = "" if size is not None and size.tokens == load.tokens else f" + {load.text_tokens} text"
    return f"{load.tokens} media{text} tokens"


def _precision(load: Load) -> str:
    return "bfloat16" if load.bytes_per_value == 2 else "float32"


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
