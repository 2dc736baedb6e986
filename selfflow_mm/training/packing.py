"""Packed steps: samples of any size and task, laid end to end in rows until a budget of tokens is full.

The samples of a run are one endless queue: draw n picks a source by its ratio, a task by its share and the next
sample of that source; a step takes from the queue until the next one does not fit, and the next step begins with that
one. So ratios hold to the sample, nothing is lost or repeated, and what a step holds does not depend on how many rows
or processes it is shared among. In the rows attention is block-diagonal (``TokenStream.sample``), and each sample has
levels, noise, caption and weight of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..conditions import Conditions, Part
from ..errors import UserError
from ..flow.objectives import Batch
from ..randomness import pick
from ..tokens import TokenStream
from .batches import Batches
from .prefixes import begun

#: Samples that are looked at ahead of what a step takes, at once.
_AHEAD = 64


@dataclass(frozen=True)
class Drawn:
    """A sample of the queue: where it is from, for which task, its caption, its tokens by stream, and the number that
    says how much of it is given where the task goes on with a prefix.
    """

    source: str
    task: str
    id: int
    begins: float
    caption: str
    tokens: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.tokens.values())


class PackedBatches(Batches):
    """An endless, resumable sequence of packed steps; the arguments are those of :class:`Batches`, and

    Args:
        budget: tokens of a step at most, text included, over all processes.
        rows: how many rows this process's share of a step is laid in; rows of about equal length.

    Attributes:
        draws: samples taken from the queue so far; with ``cursors`` its state.

    Raises:
        UserError: a sample alone is larger than the budget.
    """

    def __init__(self, *args: Any, budget: int, rows: int = 1, **options: Any) -> None:
        super().__init__(*args, **options)
        self.budget, self.rows, self.draws = budget, rows, 0
        self._eligible: dict[str, list[int]] = {}
        self._refuse_too_large()

    def at(self, step: int) -> tuple[str, str, Batch]:
        """This process's rows of a step. The batch's source and task are those of its samples, joined by ``+``."""
        drawn = self._take_until_full(step)
        bins = self.rows * self.ranks.shares
        refuse_few(self.budget, len(drawn), bins)
        laid = spread([item.total for item in drawn], bins)
        first = self.ranks.share_index * self.rows
        mine = [[drawn[i] for i in row] for row in laid[first : first + self.rows]]
        sources = "+".join(dict.fromkeys(item.source for item in drawn))
        tasks = "+".join(dict.fromkeys(item.task for item in drawn))
        return sources, tasks, self._packed(mine, list(dict.fromkeys(item.task for item in drawn)))

    def numbers(self, name: str, batch: Batch) -> list[str]:
        """The samples of a batch, as ``source/number``, for messages."""
        assert batch.lengths is not None
        found = []
        for ids, lengths in zip(batch.ids.tolist(), batch.lengths["text"], strict=True):
            for i in ids[: len(lengths)]:
                source = max((n for n, first in self._offsets.items() if first <= i), key=self._offsets.__getitem__)
                found.append(f"{source}/{i - self._offsets[source]}")
        return found

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"draws": self.draws}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place.

        Raises:
            UserError: it is of a run whose batches were not packed.
        """
        if "draws" not in state:
            raise UserError("this run's batches were not packed so far; go on with data.pack=0")
        super().load_state_dict(state)
        self.draws = state["draws"]

    def _take_until_full(self, step: int) -> list[Drawn]:
        found: list[Drawn] = []
        room = self.budget
        for item in self._queue(step):
            room -= item.total
            if room < 0:
                break
            found.append(item)
        for item in found:
            key = self._key(item.source, item.task)
            self.cursors[key] = self.cursors.get(key, 0) + 1
        self.draws += len(found)
        return found

    def _queue(self, step: int) -> Iterator[Drawn]:
        """The samples that follow, as this step would see them. Nothing is taken by looking."""
        ahead: dict[str, int] = {}
        first = self.draws
        while True:
            picks = []
            for source, task in self._picks(first, _AHEAD):
                key = self._key(source, task)
                position = self.cursors.get(key, 0) + ahead.get(key, 0)
                ahead[key] = ahead.get(key, 0) + 1
                picks.append((source, task, self._in_order(key, self._all(source, task), position)))
            yield from self._measured(picks, step)
            first += _AHEAD

    def _picks(self, first: int, count: int) -> list[tuple[str, str]]:
        """Source and task of draws ``first`` to ``first + count``."""
        numbers = torch.arange(first, first + count)
        which, what = (self.random.uniform(f"pack/{name}", 0, numbers)[:, 0].tolist() for name in ("source", "task"))
        ratios = {name: config.ratio for name, (config, _) in self.sources.items()}
        found = []
        for u, v in zip(which, what, strict=True):
            source = pick(u, ratios)
            found.append((source, pick(v, self.sources[source][0].tasks)))
        return found

    def _measured(self, picks: Sequence[tuple[str, str, int]], step: int) -> list[Drawn]:
        captions: list[str] = [""] * len(picks)
        for source in dict.fromkeys(name for name, _, _ in picks):
            places = [i for i, (name, _, _) in enumerate(picks) if name == source]
            ids = [picks[i][2] for i in places]
            for i, caption in zip(places, self._captions(source, ids, step), strict=True):
                captions[i] = caption
        lengths = self.text_encoder.count(captions)
        global_ids = torch.tensor([i + self._offsets[source] for source, _, i in picks])
        begins = self.random.uniform("prefix", step, global_ids)[:, 0].tolist()
        found = []
        for (source, task, i), caption, length, u in zip(picks, captions, lengths, begins, strict=True):
            data = self.sources[source][1]
            tokens = {m: data.tokens(m, i) for m in Conditions.named(task).modalities}
            found.append(Drawn(source, task, i, u, caption, tokens | {"text": length}))
        return found

    def _all(self, source: str, task: str) -> list[int]:
        """The samples that a task may have, whatever their size."""
        key = self._key(source, task)
        if key not in self._eligible:
            self._eligible[key] = self.sources[source][1].having(Conditions.named(task).modalities)
        return self._eligible[key]

    def _key(self, source: str, task: str) -> str:
        return f"{source}/{'+'.join(Conditions.named(task).modalities)}"

    def _packed(self, rows: list[list[Drawn]], tasks: Sequence[str]) -> Batch:
        conditions = [Conditions.named(task) for task in tasks]
        generate = tuple(dict.fromkeys(m for c in conditions for m in c.generate))
        present = tuple(dict.fromkeys(m for c in conditions for m in c.modalities))
        partly = [m for m in present if any(m in c.given for c in conditions)]
        laid = {m: [self._row(m, row) for row in rows] for m in present}
        streams = {m: TokenStream.pad([stream for stream, _ in laid[m]]) for m in present}
        given = {
            m: Part("mask", tokens=_pad_bool([mask for _, mask in laid[m]], streams[m].values.shape[1])) for m in partly
        }
        lengths = {m: [[item.tokens.get(m, 0) for item in row] for row in rows] for m in (*present, "text")}
        text = TokenStream.pad([self._text(row) for row in rows])
        most = max(map(len, rows))
        ids = torch.full((len(rows), most), -1)
        weights = torch.ones(len(rows), most)
        for r, row in enumerate(rows):
            ids[r, : len(row)] = torch.tensor([item.id + self._offsets[item.source] for item in row])
            weights[r, : len(row)] = torch.tensor([self.sources[item.source][0].weight for item in row])
        own = any(config.weight != 1 for config, _ in self.sources.values())
        return Batch(streams, Conditions(generate, given), text, ids, lengths, weights if own else None)

    def _row(self, modality: str, row: list[Drawn]) -> tuple[TokenStream, Tensor]:
        """The tokens ``(1, N, C)`` of one modality in a row (there may be none), and which of them are given."""
        streams, sample, given = [], [], []
        for slot, item in enumerate(row):
            conditions, data = Conditions.named(item.task), self.sources[item.source][1]
            if modality not in conditions.modalities:
                continue
            stream = data.stream(modality, [item.id])
            if conditions.extends:
                of_all = {m: data.stream(m, [item.id]) for m in conditions.given}
                conditions = begun(conditions, of_all, torch.tensor([item.begins]))
            part = conditions.given.get(modality)
            streams.append(stream)
            sample += [slot] * item.tokens[modality]
            given.append(torch.zeros_like(stream.valid) if part is None else part.select(stream))
        if not streams:
            none = torch.zeros(1, 0, self._channels(modality))
            empty = torch.zeros(1, 0, dtype=torch.int64)
            return TokenStream(none, torch.zeros(1, 0, 4), empty), empty.bool()
        values = torch.cat([s.values for s in streams], dim=1)
        positions = torch.cat([s.positions for s in streams], dim=1)
        return TokenStream(values, positions, torch.tensor([sample])), torch.cat(given, dim=1)

    def _text(self, row: list[Drawn]) -> TokenStream:
        encoded = self.text_encoder.encode([item.caption for item in row])
        valid = encoded.valid
        slots = torch.arange(len(row)).unsqueeze(1).expand(valid.shape)
        return TokenStream(encoded.values[valid][None], encoded.positions[valid][None], slots[valid][None])

    def _channels(self, modality: str) -> int:
        found = next(
            (name, data.having((modality,))) for name, (_, data) in self.sources.items() if data.having((modality,))
        )
        return self.sources[found[0]][1].stream(modality, found[1][:1]).values.shape[2]

    def _refuse_too_large(self) -> None:
        for name, (config, data) in self.sources.items():
            for task, share in config.tasks.items():
                modalities = Conditions.named(task).modalities
                largest = max(sum(data.tokens(m, i) for m in modalities) for i in self._all(name, task))
                if share > 0 and config.ratio > 0:
                    refuse_large(self.budget, name, task, largest, self.text_encoder.max_tokens)


def refuse_few(budget: int, samples: int, rows: int) -> None:
    """Every row of a step has a sample.

    Raises:
        UserError: there are not so many.
    """
    if samples < rows:
        raise UserError(
            f"a step of {budget:,} tokens holds {samples} samples, and they are shared among {rows} rows; "
            "raise data.pack, or take fewer processes or passes"
        )


def refuse_large(budget: int, source: str, task: str, tokens: int, max_text: int) -> None:
    """A sample of ``tokens`` media tokens fits into a step with an empty caption at least.

    Raises:
        UserError: it does not.
    """
    if tokens + 1 > budget:
        raise UserError(
            f"data.pack is {budget:,} tokens, and one sample of data.sources.{source} takes {tokens:,} "
            f"for {task}; raise it to {tokens + max_text:,} at least"
        )


def spread(sizes: Sequence[int], bins: int) -> list[list[int]]:
    """Places of items in ``bins`` rows of about equal length, each row in rising order: largest first, each into the
    row that is shortest so far (longest processing time first, Graham 1969: at most 4/3 of the best).
    """
    rows: list[list[int]] = [[] for _ in range(bins)]
    filled = [0] * bins
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        # An empty row first: every row must hold a sample, or its process would have nothing to do.
        row = min(range(bins), key=lambda r: (bool(rows[r]), filled[r], r))
        rows[row].append(i)
        filled[row] += sizes[i]
    return [sorted(row) for row in rows]


def padding(batch: Batch) -> dict[str, float]:
    """Share of a packed batch's places for tokens that hold none (``padding``), and the share that there would be with
    a row for each sample (``padding_unpacked``).
    """
    assert batch.lengths is not None
    real = laid = alone = 0
    for name, rows in batch.lengths.items():
        stream = batch.text if name == "text" else batch.streams[name]
        assert isinstance(stream, TokenStream)
        every = [length for row in rows for length in row]
        real += sum(every)
        laid += len(rows) * stream.values.shape[1]
        alone += len(every) * max(every, default=0)
    return {"padding": 1 - real / laid, "padding_unpacked": 1 - real / alone}


def _pad_bool(rows: Sequence[Tensor], length: int) -> Tensor:
    found = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        found[i, : row.shape[1]] = row[0]
    return found
