"""Memory of training steps on one GPU of 80 GB or more, planned and measured: ``benchmarks/training_memory.py`` there.

    PYTHONPATH=.:tokenizers python3 benchmarks/accelerator/training_memory.py [--out DIR]
    PYTHONPATH=.:tokenizers python3 benchmarks/accelerator/training_memory.py --dry      # one small case on a CPU

A model of some 430 M parameters in bfloat16 on made-up latents: plain, recomputed, in two passes, packed with and
without a mask; each case in a process of its own, ``torch.cuda.max_memory_allocated`` of its second step. Writes
``training_memory.md`` to ``$OUT`` or ``--out``; a few minutes in all.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--dry", action="store_true", help="small, on a CPU")
    args = parser.parse_args()
    measure = runpy.run_path(str(Path(__file__).resolve().parents[1] / "training_memory.py"))["main"]
    which = ["--cases", "small"] if args.dry else ["--device", "cuda", "--cases", "large"]
    return measure([*which, "--out", str(args.out / "training_memory.md")])


if __name__ == "__main__":
    sys.exit(main())
