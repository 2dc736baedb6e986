"""What keeps a run from spoiling itself, and what it says when it stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..flow.objectives import Batch


def not_finite(
    step: int,
    report: dict[str, Tensor],
    batch: Batch,
    source: str,
    task: str,
    samples: list[Any],
    last_good: Path | None,
) -> str:
    """What to tell of a loss that is not finite: which, on what, and where to go on from.

    One bad token spoils every loss of its batch through attention, so the latents are looked at, too.
    """
    bad = [name for name, value in report.items() if not bool(torch.isfinite(value))]
    spoilt = []
    for modality, stream in batch.streams.items():
        rows = (~torch.isfinite(stream.values)).flatten(1).any(dim=1).tolist()
        which = [str(number) for number, is_bad in zip(samples, rows, strict=True) if is_bad]
        if which:
            spoilt.append(f"the {modality} latents of sample {', '.join(which)} are not finite themselves; ")
    return (
        f"step {step}: {', '.join(bad)} is not finite (source {source}, task {task}, samples "
        f"{', '.join(map(str, samples))}); {''.join(spoilt)}the last good checkpoint is {last_good}; "
        + ("repair or drop these samples" if spoilt else "lower optimizer.lr or look at these samples")
    )
