"""Batches of latents: which source, task and samples each step sees.

A batch holds one task of one source, and samples of one shape: where those of a source differ, they are in buckets, of
which a step takes one. All of this is drawn by (seed, step), a bucket as often as it has samples. The samples of a
bucket come in a seeded permutation, another one every epoch, and only the count of those already taken is state
(``cursors``), so a resumed run goes on with the sample after the last one, and no sample is lost or repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import torch

from ..conditions import Conditions
from ..data.latents import LatentDataset
from ..errors import UserError
from ..flow.objectives import Batch
from ..randomness import Randomness, pick
from .config import SourceConfig
from .prefixes import begun
from .ranks import ONE, Ranks
from .wordings import Wordings


class Batches:
    """An endless, resumable sequence of batches.

    Args:
        sources: name -> (settings, encoded data).
        text_encoder: captions -> token stream.
        seed: of the run.
        caption_dropout: share of captions replaced by the empty one.
        ranks: the processes that share each batch; every one draws the same samples and takes its part.
        pad_text: captions are padded to a multiple of so many tokens.

    Attributes:
        cursors: ``source/modalities``, and ``/bucket`` where there are several -> samples taken so far; its state, see
            ``state_dict``.
    """

    def __init__(
        self,
        sources: Mapping[str, tuple[SourceConfig, LatentDataset]],
        text_encoder: Any,
        seed: int,
        caption_dropout: float,
        ranks: Ranks = ONE,
        pad_text: int = 1,
    ) -> None:
        if not sources:
            raise UserError("data.sources names no data set; add one, e.g. data.sources.clips.path=SHARDS")
        self.sources = dict(sources)
        self.text_encoder = text_encoder
        self.random = Randomness(seed)
        self.caption_dropout, self.ranks, self.pad_text = caption_dropout, ranks, pad_text
        self.cursors: dict[str, int] = {}
        self._buckets: dict[str, dict[str, list[int]]] = {}
        self._orders: dict[str, tuple[int, list[int]]] = {}
        sizes = [data.samples for _, data in self.sources.values()]
        self._offsets = dict(zip(self.sources, accumulate([0, *sizes]), strict=False))
        self._wordings = {n: Wordings(n, data, config.captions) for n, (config, data) in self.sources.items()}
        for name, (config, data) in self.sources.items():
            for task, share in config.tasks.items():
                if share > 0 and not self._ids_by_cursor(name, Conditions.named(task).modalities):
                    raise UserError(
                        f"data.sources.{name}: no sample in {data.folder} has the "
                        f"{' and '.join(Conditions.named(task).modalities)} "
                        f"that task {task} needs; drop the task"
                    )

    def at(self, step: int) -> tuple[str, str, Batch]:
        """This process's part of the batch of a step (source name, task, batch); advances the source's cursor."""
        name = self._pick("source", step, {n: c.ratio for n, (c, _) in self.sources.items()})
        config, data = self.sources[name]
        task = self._pick("task", step, config.tasks)
        conditions = Conditions.named(task)
        ids = self.ranks.part(self._take(name, conditions.modalities, config.batch, step))
        global_ids = torch.tensor(ids) + self._offsets[name]
        text = self.text_encoder.encode(self._captions(name, ids, step)).padded_to_multiple(self.pad_text)
        streams = {m: data.stream(m, ids) for m in conditions.modalities}
        conditions = begun(conditions, streams, self.random.uniform("prefix", step, global_ids)[:, 0])
        return name, task, Batch(streams, conditions, text, global_ids)

    def numbers(self, name: str, batch: Batch) -> list[Any]:
        """The batch's samples by their numbers in their source, for messages."""
        return [i - self._offsets[name] for i in batch.ids.tolist()]

    def state_dict(self) -> dict[str, Any]:
        """The place, as plain values."""
        return {"cursors": dict(self.cursors)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place."""
        self.cursors = dict(state["cursors"])

    def _pick(self, purpose: str, step: int, shares: Mapping[str, float]) -> str:
        return pick(float(self.random.uniform(purpose, step, torch.zeros(1, dtype=torch.int64))), shares)

    def _ids_by_cursor(self, name: str, modalities: tuple[str, ...]) -> dict[str, list[int]]:
        """Cursor -> the samples it counts: one for each bucket, and of a single bucket without its name."""
        key = f"{name}/{'+'.join(modalities)}"
        if key not in self._buckets:
            found = self.sources[name][1].buckets(modalities)
            self._buckets[key] = {f"{key}/{b}" if len(found) > 1 else key: ids for b, ids in found.items()}
        return self._buckets[key]

    def _take(self, name: str, modalities: tuple[str, ...], count: int, step: int) -> list[int]:
        buckets = self._ids_by_cursor(name, modalities)
        key = next(iter(buckets))
        if len(buckets) > 1:
            key = self._pick("bucket", step, {cursor: len(ids) for cursor, ids in buckets.items()})
        first = self.cursors.get(key, 0)
        self.cursors[key] = first + count
        return [self._in_order(key, buckets[key], position) for position in range(first, first + count)]

    def _in_order(self, key: str, ids: list[int], position: int) -> int:
        """The sample at a position of a cursor's endless order."""
        epoch, place = divmod(position, len(ids))
        return ids[self._order(key, epoch, len(ids))[place]]

    def _order(self, key: str, epoch: int, count: int) -> list[int]:
        if self._orders.get(key, (-1, []))[0] != epoch:
            self._orders[key] = (epoch, self.random.permutation(f"order/{key}", epoch, count).tolist())
        return self._orders[key][1]

    def _captions(self, name: str, ids: list[int], step: int) -> list[str]:
        """A caption for each of a source's samples, empty where it is dropped."""
        u = self.random.uniform("caption", step, torch.tensor(ids) + self._offsets[name], 2)
        wordings = self._wordings[name]
        return [
            wordings.draw(i, which) if dropped >= self.caption_dropout else ""
            for i, (dropped, which) in zip(ids, u.tolist(), strict=True)
        ]
