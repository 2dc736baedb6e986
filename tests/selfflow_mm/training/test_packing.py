"""Packed steps: what is in them, that nothing is lost or repeated, and that places can be gone on from."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_mm.conditions import Conditions
from selfflow_mm.config import from_dict
from selfflow_mm.errors import UserError
from selfflow_mm.flow.objectives import Batch
from selfflow_mm.randomness import pick
from selfflow_mm.training.config import SourceConfig, TrainConfig
from selfflow_mm.training.packing import PackedBatches, padding, spread
from selfflow_mm.training.ranks import ONE, Ranks
from selfflow_tokenizers import ByteTextEncoder
from tests.selfflow_mm.training.toy import Latents, sources

TEXT = ByteTextEncoder(channels=6)


def packed(budget: int = 260, rows: int = 1, ranks: Ranks = ONE, data=None, seed: int = 3) -> PackedBatches:
    return PackedBatches(data or sources(), TEXT, seed, 0.2, ranks, budget=budget, rows=rows)


def samples(batches: PackedBatches, batch: Batch) -> list[tuple[str, int]]:
    """(source, id) of a batch's samples."""
    names = (name.split("/") for name in batches.numbers("", batch))
    return [(source, int(number)) for source, number in names]


def drawn_at(batches: PackedBatches, step: int) -> tuple[list, Batch]:
    """What a step takes from the queue, in the order of its only row, and its batch."""
    taken: list = []
    real = batches._take_until_full
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_take_until_full", lambda step: taken.extend(real(step)) or taken)
        _, _, batch = batches.at(step)
    return taken, batch


@given(sizes=st.lists(st.integers(1, 500), min_size=1, max_size=40), bins=st.integers(1, 6))
def test_spread_puts_every_item_into_one_row_of_about_equal_length(sizes, bins):
    rows = spread(sizes, bins)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    assert all(row == sorted(row) for row in rows) and len(rows) == bins
    assert sum(bool(row) for row in rows) == min(bins, len(sizes))
    longest = max(sum(sizes[i] for i in row) for row in rows)
    # Any list schedule is within the mean plus the largest item of the best.
    assert longest <= sum(sizes) / bins + max(sizes)


@given(budget=st.integers(90, 700), rows=st.integers(1, 2), seed=st.integers(0, 50))
@settings(max_examples=15)
def test_a_step_is_filled_and_not_overfilled(budget, rows, seed):
    batches = packed(budget, rows, seed=seed)
    for step in range(4):
        try:
            _, _, batch = batches.at(step)
        except UserError as error:
            assert "holds 1 samples" in str(error) and rows == 2
            return
        tokens = sum(sum(row) for of in batch.lengths.values() for row in of)
        assert tokens <= budget
        waiting = next(batches._queue(step))
        # Its caption may be another one in the step that takes it, so it is measured without.
        assert tokens + waiting.total - waiting.tokens["text"] + TEXT.max_tokens > budget


def test_rows_hold_the_samples_tokens_and_nothing_else():
    batches = packed(rows=2)
    for step in range(5):
        names, tasks, batch = batches.at(step)
        assert set(names.split("+")) == {name for name, _ in samples(batches, batch)}
        for name, stream in {**batch.streams, "text": batch.text}.items():
            for r, lengths in enumerate(batch.lengths[name]):
                expected = [slot for slot, n in enumerate(lengths) for _ in range(n)]
                assert stream.sample[r, : sum(lengths)].tolist() == expected
                assert (stream.sample[r, sum(lengths) :] == -1).all()
        flat = iter(samples(batches, batch))
        for r, text_lengths in enumerate(batch.lengths["text"]):
            for slot in range(len(text_lengths)):
                source, id = next(flat)
                data = batches.sources[source][1]
                for m, stream in batch.streams.items():
                    mine = stream.sample[r] == slot
                    if mine.any():
                        assert torch.equal(stream.values[r, mine], data.stream(m, [id]).values[0])
                        assert torch.equal(stream.positions[r, mine], data.stream(m, [id]).positions[0])


def test_given_tokens_are_those_of_each_samples_task():
    batches = packed(budget=900)
    drawn, batch = drawn_at(batches, 0)
    assert {"v2a", "i2v", "t2va"} <= {item.task for item in drawn}
    for slot, item in enumerate(drawn):
        alone = Conditions.named(item.task)
        for m in alone.modalities:
            mine = batch.streams[m].sample[0] == slot
            whole = batches.sources[item.source][1].stream(m, [item.id])
            part = alone.given.get(m)
            expected = part.select(whole)[0] if part else torch.zeros(whole.values.shape[1], dtype=torch.bool)
            chosen = batch.conditions.given.get(m)
            found = chosen.select(batch.streams[m])[0, mine] if chosen else torch.zeros_like(expected)
            assert torch.equal(found, expected), (item.task, m)


@given(budget=st.integers(150, 500), seed=st.integers(0, 20))
@settings(max_examples=8)
def test_no_sample_is_lost_or_repeated(budget, seed):
    batches = packed(budget, seed=seed)
    seen: dict[str, list[int]] = defaultdict(list)
    for step in range(30):
        for item in drawn_at(batches, step)[0]:
            seen[batches._key(item.source, item.task)].append(item.id)
    for key, ids in seen.items():
        source, modalities = key.split("/")
        all_ids = batches.sources[source][1].having(tuple(modalities.split("+")))
        for start in range(0, len(ids), len(all_ids)):
            epoch = ids[start : start + len(all_ids)]
            assert len(set(epoch)) == len(epoch) and set(epoch) <= set(all_ids)


def test_sources_come_in_their_ratio_whatever_their_size():
    """A long clip that does not fit waits for the next step and is not passed over."""
    batches = packed(budget=150)
    counts: Counter = Counter()
    for step in range(600):
        counts.update(item.source for item in drawn_at(batches, step)[0])
    whole = sum(counts.values())
    for name, share in (("clips", 0.5), ("long", 0.25), ("sounds", 0.25)):
        spread_of = (share * (1 - share) / whole) ** 0.5
        assert abs(counts[name] / whole - share) < 4 * spread_of


@given(cut=st.integers(0, 6))
@settings(max_examples=7)
def test_going_on_gives_what_would_have_come(cut):
    whole, resumed = packed(), packed()
    for step in range(cut):
        whole.at(step)
    resumed.load_state_dict(whole.state_dict())
    for step in range(cut, cut + 3):
        (_, _, a), (_, _, b) = whole.at(step), resumed.at(step)
        assert torch.equal(a.ids, b.ids) and a.lengths == b.lengths and torch.equal(a.text.values, b.text.values)
    with pytest.raises(UserError, match="were not packed so far; go on with data.pack=0"):
        packed().load_state_dict({"cursors": {}})


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_what_one_would_take(world):
    alone, together = packed(700), [packed(700, 2, Ranks(rank, world)) for rank in range(world)]
    for step in range(3):
        _, _, one = alone.at(step)
        parts = [b.at(step)[2] for b in together]
        assert sorted(samples(alone, one)) == sorted(s for b, p in zip(together, parts, strict=True)
                                                     for s in samples(b, p))  # fmt: skip
        assert all(p.conditions.generate == one.conditions.generate for p in parts)
        assert all(p.streams.keys() == one.streams.keys() for p in parts)
        assert alone.state_dict() == together[0].state_dict() == together[-1].state_dict()


def test_padding_is_what_rows_do_not_use():
    batch = packed(rows=2).at(1)[2]
    real = sum(int(s.valid.sum()) for s in (*batch.streams.values(), batch.text))
    laid = sum(s.valid.numel() for s in (*batch.streams.values(), batch.text))
    alone = 0
    for rows in batch.lengths.values():
        every = [n for row in rows for n in row]
        alone += len(every) * max(every)
    assert padding(batch) == pytest.approx({"padding": 1 - real / laid, "padding_unpacked": 1 - real / alone})
    assert padding(packed().at(1)[2])["padding"] == 0  # one row has nothing to fill up to


def test_weights_are_those_of_the_sources():
    batches = packed(data=sources(weight=3.0))
    drawn, batch = drawn_at(batches, 0)
    assert samples(batches, batch) == [(item.source, item.id) for item in drawn]
    expected = [3.0 if item.source == "long" else 1.0 for item in drawn]
    assert batch.weights.tolist() == [expected] and 3.0 in expected and 1.0 in expected
    assert packed().at(0)[2].weights is None


def test_rows_are_cut_out_with_their_own_lengths():
    batch = packed(rows=2).at(0)[2]
    for r in (0, 1):
        row = batch.rows(r, r + 1)
        for m, stream in row.streams.items():
            length = sum(batch.lengths[m][r])
            assert stream.values.shape[1] == length and row.lengths[m] == [batch.lengths[m][r]]
            assert torch.equal(stream.values[0], batch.streams[m].values[r, :length])


def test_pick_goes_by_shares():
    assert [pick(u, {"a": 1, "b": 3}) for u in (0.1, 0.26, 0.99)] == ["a", "b", "b"]
    assert pick(1 - 1e-9, {"a": 1, "b": 0}) == "a"


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(UserError, match="one sample of data.sources.long takes 41 for t2va; raise it to 297 at least"):
        packed(budget=41)
    with pytest.raises(UserError, match="holds 1 samples, and they are shared among 4 rows; raise data.pack"):
        big = {"big": (SourceConfig("", {"t2v": 1}, 1, 8), Latents({"video": 100}, 5))}
        packed(150, 4, data=big).at(0)
    with pytest.raises(UserError, match="weight tells apart the samples of a packed step"):
        from_dict(TrainConfig, {"data": {"sources": {"a": {"path": "x", "tasks": {"t2v": 1}, "weight": 2.0}}}}, "here")
    with pytest.raises(UserError, match="set one of them"):
        from_dict(TrainConfig, {"data": {"pack": 100}, "run": {"compile": True}}, "here")
    with pytest.raises(UserError, match="set text.pad_to to 1"):
        from_dict(TrainConfig, {"data": {"pack": 100}, "text": {"pad_to": 8}}, "here")
