"""What keeps a run from spoiling itself: steps that are skipped, and what is said of them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ..flow.objectives import Batch
from ..tokens import TokenStream

#: Gradient norms that a spike is told from, and how many of them there must be before one is.
RECENT, ENOUGH = 100, 20


class Guard:
    """Decides of every step, before it reaches the weights, whether it counts; remembers what it decides by.

    A decision is made from numbers that are the same in all processes, so all of them skip together.

    Attributes:
        norms: gradient norms of the last good steps, where spikes are looked for.
        in_a_row: bad steps up to now without a good one between them.
        reason: why the last step was bad; empty where it was good.
    """

    def __init__(self) -> None:
        self.norms: deque[float] = deque(maxlen=RECENT)
        self.in_a_row = 0
        self.reason = ""

    def accepts(self, values: Mapping[str, Tensor], spike: float) -> bool:
        """Is this a good step?

        Args:
            values: what the step reports, scalars: losses, their parts, ``grad_norm``.
            spike: how many times the median of the recent norms is too much; 0 looks for none.
        """
        numbers = dict(zip(values, torch.stack([v.float() for v in values.values()]).tolist(), strict=True))
        self.reason = self._complaint(numbers, spike)
        if self.reason:
            self.in_a_row += 1
            return False
        self.in_a_row = 0
        if spike:
            self.norms.append(numbers["grad_norm"])
        return True

    def _complaint(self, numbers: Mapping[str, float], spike: float) -> str:
        if bad := [name for name, value in numbers.items() if not math.isfinite(value)]:
            return f"{', '.join(bad)} is not finite"
        if not spike or len(self.norms) < ENOUGH:
            return ""
        norm, usual = numbers["grad_norm"], median(self.norms)
        if norm <= spike * usual:
            return ""
        return f"the gradient norm {norm:.3g} is a spike, {norm / max(usual, 1e-30):.3g} times the recent {usual:.3g}"

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps (JSON); empty where there is nothing to remember."""
        state: dict[str, Any] = {}
        if self.norms:
            state["norms"] = list(self.norms)
        if self.in_a_row:
            state["in_a_row"] = self.in_a_row
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`; what an older checkpoint does not have is empty."""
        self.norms = deque(state.get("norms", ()), maxlen=RECENT)
        self.in_a_row = int(state.get("in_a_row", 0))


def describe_batch(batch: Batch, source: str, task: str, samples: list[Any]) -> dict[str, Any]:
    """Where a batch is from and which of its samples' tokens are not finite themselves, as plain values.

    One bad token spoils every loss of its batch through attention, so the loss alone does not tell.

    Args:
        batch: on the CPU.
        samples: its samples' names, in the order of rows and of packed samples within them.
    """
    streams = dict(batch.streams)
    if isinstance(batch.text, TokenStream):
        streams["text"] = batch.text
    spoilt = {}
    for modality, stream in streams.items():
        which = _rows_with_bad_tokens(stream, batch.ids)
        if names := [str(name) for name, is_bad in zip(samples, which, strict=True) if is_bad]:
            spoilt[modality] = names
    return {"source": source, "task": task, "samples": [str(s) for s in samples], "spoilt": spoilt}


def _rows_with_bad_tokens(stream: TokenStream, ids: Tensor) -> list[bool]:
    """Per sample, in the order of rows and of packed samples within them."""
    table = ids if ids.ndim == 2 else ids.unsqueeze(1)
    bad = (~torch.isfinite(stream.values)).any(dim=-1) & stream.valid
    found = torch.zeros(table.shape, dtype=torch.bool)
    row, token = bad.nonzero(as_tuple=True)
    found[row, stream.sample[row, token]] = True
    return found[table >= 0].tolist()


def bad_step(step: int, reason: str, parts: list[dict[str, Any]]) -> tuple[str, bool]:
    """One sentence about a bad step, without its end: what was wrong, on what; and whether the data are to blame.

    Args:
        parts: :func:`describe_batch` of every process, in their order.
    """
    samples = ", ".join(name for part in parts for name in part["samples"])
    spoilt: dict[str, list[str]] = {}
    for part in parts:
        for modality, names in part["spoilt"].items():
            spoilt.setdefault(modality, []).extend(names)
    looked = [
        f"; the {modality} {'embeddings' if modality == 'text' else 'latents'} of sample {', '.join(names)} are not "
        "finite themselves"
        for modality, names in spoilt.items()
    ]
    where = f"(source {parts[0]['source']}, task {parts[0]['task']}, samples {samples})"
    return f"step {step}: {reason} {where}{''.join(looked)}", bool(spoilt)


def stopping(sentence: str, data_to_blame: bool, saved: str) -> str:
    """What to tell of a run that stops at a bad step."""
    what = "repair or drop these samples" if data_to_blame else "lower optimizer.lr or look at these samples"
    return f"{sentence}; {saved}; {what}"
