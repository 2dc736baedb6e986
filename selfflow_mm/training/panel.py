"""How a run shows itself while it trains: a live panel on a terminal, one plain line per log line elsewhere."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Literal

Numbers = Mapping[str, float]
#: Seconds from one drawing of the panel to the next (each takes a millisecond or two of the run), and log lines that a
#: trend shows.
_PAUSE, _TREND = 0.5, 24
_BARS = "▁▂▃▄▅▆▇█"


class Quiet:
    """Shows nothing, and is what the others are made of. Numbers go by their names in log.jsonl.

    Args:
        name: of the run.
        step, steps: done before it was started, and in all.
    """

    def __init__(self, name: str, step: int, steps: int) -> None:
        self.name, self.steps = name, steps
        self._pace = _Pace(step, steps)

    def step(self, step: int, numbers: Callable[[], Numbers]) -> None:
        """A step is done; ``numbers`` as they stand are asked for where they are shown."""
        self._pace.at(step)

    def line(self, step: int, numbers: Numbers) -> None:
        """What was logged at a step."""

    def saved(self, step: int) -> None:
        """A checkpoint was written."""

    def note(self, text: str) -> None:
        """A sentence that has to be seen, such as a warning."""

    def aside(self) -> AbstractContextManager[None]:
        """The time in which something else may write to the terminal."""
        return nullcontext()

    def close(self) -> None: ...

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Plain(Quiet):
    """One line on stderr per line of the log: for logs of clusters and CI, without control characters."""

    def __init__(self, name: str, step: int, steps: int) -> None:
        super().__init__(name, step, steps)
        self._saved = ""

    def line(self, step: int, numbers: Numbers) -> None:
        share = f"step {step:,} of {self.steps:,} ({step / self.steps:.0%})"
        left = self._pace.left(step)
        losses = [f"{label} {number(value)}" for label, value in losses_of(numbers).items()]
        facts = [*losses, *facts_of(numbers), *([self._saved] if self._saved else [])]
        print(f"{share}{f', {left} left' if left else ''}: {', '.join(facts)}", file=sys.stderr, flush=True)

    def saved(self, step: int) -> None:
        self._saved = f"saved at {step:,}"

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Panel(Quiet):
    """A panel that is drawn again at most twice a second, by the training loop itself and no thread of its own."""

    def __init__(self, name: str, step: int, steps: int) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(name, step, steps)
        self._at, self._numbers, self._saved = step, dict[str, float](), ""
        self._skipped, self._warnings = 0, list[str]()
        self._trends: dict[str, deque[float]] = {}
        self._drawn = 0.0
        self._console = Console(stderr=True)
        # What is printed meanwhile appears above the panel; a stdout that is a file stays one.
        self._live = Live(
            console=self._console, auto_refresh=False, redirect_stdout=sys.stdout.isatty(), get_renderable=self._render
        )
        self._live.start(refresh=True)

    def step(self, step: int, numbers: Callable[[], Numbers]) -> None:
        super().step(step, numbers)
        self._at = step
        if time.monotonic() - self._drawn >= _PAUSE:
            self._numbers |= numbers()
            self._draw()

    def line(self, step: int, numbers: Numbers) -> None:
        self._numbers |= numbers
        self._skipped += int(numbers.get("skipped", 0))
        for label, value in losses_of(numbers).items():
            self._trends.setdefault(label, deque(maxlen=_TREND)).append(value)
        if step == self.steps:
            self._draw()

    def saved(self, step: int) -> None:
        self._saved = f"saved at {step:,}"

    def note(self, text: str) -> None:
        self._warnings.append(text)
        self._console.print(text, highlight=False, markup=False)

    @contextmanager
    def aside(self) -> Iterator[None]:
        self._live.transient = True
        self._live.stop()
        try:
            yield
        finally:
            self._live.transient = False
            self._live.start(refresh=True)

    def close(self) -> None:
        self._draw()
        self._live.stop()

    def _draw(self) -> None:
        self._live.refresh()
        self._drawn = time.monotonic()

    def _render(self) -> Any:
        from rich.console import Group
        from rich.panel import Panel as Frame
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        top = Table.grid(padding=(0, 1), expand=True)
        top.add_column(no_wrap=True)
        top.add_column(ratio=1)
        top.add_column(no_wrap=True, justify="right")
        left = self._pace.left(self._at)
        top.add_row(
            Text(f"step {self._at:,} of {self.steps:,}", style="bold"),
            ProgressBar(total=self.steps, completed=self._at),
            f"{self._at / self.steps:.0%}{f'  {left} left' if left else ''}",
        )
        losses = Table.grid(padding=(0, 2))
        for label, value in losses_of(self._numbers).items():
            losses.add_row(label, Text(number(value), style="bold"), Text(trend(self._trends.get(label, ())), "cyan"))
        numbers = {k: v for k, v in self._numbers.items() if k != "skipped"}
        facts = [*facts_of(numbers), *([self._saved] if self._saved else [])]
        if self._skipped:
            facts.append(f"{self._skipped} skipped")
        beside = Table.grid(padding=(0, 2))
        for pair in zip(facts[::2], [*facts[1::2], ""], strict=False):
            beside.add_row(*pair)
        middle = Table.grid(padding=(0, 4))
        middle.add_row(losses, beside)
        shown = [top, middle]
        if self._warnings:
            more = f" (and {len(self._warnings) - 1} earlier)" if len(self._warnings) > 1 else ""
            return Frame(Group(*shown, Text(self._warnings[-1] + more, style="yellow")), title=self.name)
        return Frame(Group(*shown), title=self.name)


class _Pace:
    """Time left, from the steps since the second one: the first may have waited for a compiler."""

    def __init__(self, step: int, steps: int) -> None:
        self._first, self._steps = step + 1, steps
        self._since: float | None = None
        self._now = 0.0

    def at(self, step: int) -> None:
        self._now = time.monotonic()
        if self._since is None:
            self._first, self._since = step, self._now

    def left(self, step: int) -> str:
        """As ``3:12:05``; empty where it is not known yet, or none is left."""
        if self._since is None or not self._first < step < self._steps:
            return ""
        each = (self._now - self._since) / (step - self._first)
        return str(timedelta(seconds=round(each * (self._steps - step))))


def open_console(
    kind: Literal["auto", "panel", "plain", "quiet"], name: str, step: int, steps: int, *, first: bool
) -> Quiet:
    """The way a run is shown; only the first process shows it."""
    if kind == "auto":
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        kind = "panel" if terminal else "plain"
    if not first:
        kind = "quiet"
    return {"panel": Panel, "plain": Plain, "quiet": Quiet}[kind](name, step, steps)


def losses_of(numbers: Numbers) -> dict[str, float]:
    """What is shown as a loss: the whole, each modality's, that of the representation."""
    parts = sorted(name for name in numbers if name.startswith("l_gen/"))
    shown = [name for name in ("loss", *parts, "l_rep") if name in numbers]
    return {name.removeprefix("l_gen/"): numbers[name] for name in shown}


def facts_of(numbers: Numbers) -> list[str]:
    """Everything else that is shown, in words."""
    words: dict[str, Callable[[float], str]] = {
        "grad_norm": lambda v: f"grad norm {number(v)}",
        "lr": lambda v: f"lr {v:.3g}",
        "samples_per_second": lambda v: f"{number(v)} samples/s",
        "tokens_per_second": lambda v: f"{number(v)} tokens/s",
        "tflops": lambda v: f"{number(1e12 * v, ' ')}FLOP/s",
        "mfu": lambda v: f"MFU {v:.1%}",
        "memory_gib": lambda v: f"{v:.1f} GiB",
        "skipped": lambda v: f"{v:.0f} skipped",
    }
    return [say(numbers[name]) for name, say in words.items() if name in numbers]


def number(value: float, space: str = "") -> str:
    """Three digits, with k, M, G or T for thousands of thousands."""
    if not math.isfinite(value):
        return str(value)
    for power, letter in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:.3g}{space}{letter}"
    return f"{value:.3g}{space}"


def trend(values: Any) -> str:
    """The last values as bars between their least and their greatest."""
    known = [v for v in values if math.isfinite(v)]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((v - low) * scale)] for v in known)
