"""Which samples a run sees: shares of sources and tasks, each once an epoch, none without its sound, exact resume."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_mm.data.encode_dataset import encode_dataset
from selfflow_mm.data.shards import ShardDataset
from selfflow_mm.errors import UserError
from selfflow_mm.training.batches import Batches
from selfflow_mm.training.config import SourceConfig
from selfflow_tokenizers import ByteTextEncoder, load_tokenizer


@pytest.fixture(scope="module")
def latents(small_clips, small_tokenizers, tmp_path_factory):
    tokenizers = {m: load_tokenizer(small_tokenizers[m]) for m in ("image", "video", "audio")}
    folder = tmp_path_factory.mktemp("encoded") / "x"
    return encode_dataset(ShardDataset(small_clips), tokenizers, dict.fromkeys(tokenizers, "h"), folder)


def make(latents, dropout: float = 0.0) -> Batches:
    joint = SourceConfig("a", {"t2va": 0.5, "t2a": 0.5}, ratio=3.0, batch=4)
    pictures = SourceConfig("b", {"t2i": 1.0}, ratio=1.0, batch=5)
    return Batches({"clips": (joint, latents), "stills": (pictures, latents)}, ByteTextEncoder(), 7, dropout)


def test_sources_and_tasks_come_in_their_shares(latents):
    batches = make(latents)
    drawn = Counter((source, task) for source, task, _ in (batches.at(step) for step in range(400)))
    assert drawn["stills", "t2i"] == pytest.approx(100, abs=35)
    assert drawn["clips", "t2va"] == pytest.approx(150, abs=40)
    assert drawn["clips", "t2a"] == pytest.approx(150, abs=40)


def test_an_epoch_holds_every_fitting_sample_once_and_no_silent_film(latents):
    batches = make(latents)
    seen: dict[str, list[int]] = {"t2va": [], "t2i": []}
    for step in range(120):
        _, task, batch = batches.at(step)
        if task in seen:
            seen[task] += batch.ids.tolist()
    for start in range(0, 3 * 8, 8):  # eight of the ten clips have sound
        assert sorted(seen["t2va"][start : start + 8]) == list(range(8))
    for start in range(0, 3 * 10, 10):  # the second source's ids follow the first's
        assert sorted(seen["t2i"][start : start + 10]) == list(range(10, 20))


def test_going_on_from_the_cursors_gives_what_would_have_come(latents):
    whole = make(latents)
    expected = [whole.at(step)[2].ids.tolist() for step in range(30)]
    first = make(latents)
    for step in range(17):
        first.at(step)
    second = make(latents)
    second.cursors.update(first.cursors)
    assert [second.at(step)[2].ids.tolist() for step in range(17, 30)] == expected[17:]


def test_captions_are_dropped_at_their_rate_and_dropped_ones_are_empty(latents):
    batches = make(latents, dropout=0.3)
    lengths = [n for step in range(300) for n in batches.at(step)[2].text.valid.sum(1).tolist()]
    assert sum(n == 1 for n in lengths) / len(lengths) == pytest.approx(0.3, abs=0.05)  # one end token is all
    assert set(lengths) == {1, 3}  # "clip 4" and "number 4" are two words and the end


def test_captions_are_padded_to_multiples(latents):
    sources = {"clips": (SourceConfig("a", {"t2va": 1.0}, batch=4), latents)}
    plain, padded = (Batches(sources, ByteTextEncoder(), 7, 0.5, pad_text=n) for n in (1, 8))
    for step in range(20):
        short, text = plain.at(step)[2].text, padded.at(step)[2].text
        assert text.values.shape[1] == 8 and not text.full
        assert torch.equal(text.until(short.values.shape[1]).values, short.values)
        assert torch.equal(text.valid.sum(1), short.valid.sum(1))


def test_a_task_no_sample_can_serve_is_refused(latents):
    with pytest.raises(UserError, match="no sample in .* has the audio that task t2a needs"):
        latents_without = type(latents).__new__(type(latents))
        latents_without.__dict__.update(latents.__dict__ | {"_place": {"video": latents._place["video"]}})
        Batches({"x": (SourceConfig("a", {"t2a": 1.0}), latents_without)}, ByteTextEncoder(), 0, 0.0)


@pytest.fixture(scope="module")
def mixed(mixed_clips, small_tokenizers, tmp_path_factory):
    tokenizers = {m: load_tokenizer(small_tokenizers[m]) for m in ("image", "video", "audio")}
    folder = tmp_path_factory.mktemp("mixed") / "x"
    return encode_dataset(ShardDataset(mixed_clips), tokenizers, dict.fromkeys(tokenizers, "h"), folder)


#: The dozen clips by what they share, written out.
BY_SIZE = {"t2v": [[0, 2, 4, 6, 8, 10], [1, 5, 7, 11], [3, 9]], "t2va": [[0, 2, 4], [1, 5], [3]]}


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 9), stop=st.integers(0, 30))
def test_buckets_lose_and_repeat_no_sample_and_go_on_after_a_stop(mixed, seed, size, stop):
    """A batch is of one size; of every size each epoch holds every clip once, also where a batch is larger."""
    config = SourceConfig("a", {"t2v": 0.5, "t2va": 0.5}, batch=size)

    def fresh() -> Batches:
        return Batches({"clips": (config, mixed)}, ByteTextEncoder(), seed, 0.0)

    batches, seen = fresh(), {}
    for step in range(30):
        if step == stop:
            state, batches = batches.state_dict(), fresh()
            batches.load_state_dict(state)
        _, task, batch = batches.at(step)
        ids = batch.ids.tolist()
        own = next(bucket for bucket in BY_SIZE[task] if ids[0] in bucket)
        assert len(ids) == size and set(ids) <= set(own)
        for modality, stream in batch.streams.items():
            assert torch.equal(stream.values, torch.cat([mixed.stream(modality, [i]).values for i in ids]))
            assert all(torch.equal(p, mixed.place(modality, i)) for p, i in zip(stream.positions, ids, strict=True))
        seen.setdefault((task, tuple(own)), []).extend(ids)
    for (_, own), ids in seen.items():
        for start in range(0, len(ids) - len(own) + 1, len(own)):
            assert sorted(ids[start : start + len(own)]) == list(own)


def test_a_bucket_is_drawn_as_often_as_it_has_samples(mixed):
    batches = Batches({"clips": (SourceConfig("a", {"t2v": 1.0}, batch=2), mixed)}, ByteTextEncoder(), 3, 0.0)
    drawn = Counter(batches.at(step)[2].streams["video"].positions[0, :, 2].max().item() for step in range(300))
    # 150, 100 and 50 are expected: columns of 32, 48 and 16 pixels; four deviations of the binomial.
    assert [drawn[column] for column in (1.0, 2.0, 0.0)] == [
        pytest.approx(n, abs=4 * (n * (1 - n / 300)) ** 0.5) for n in (150, 100, 50)
    ]
    assert list(batches.cursors) and all(cursor.startswith("clips/video/video ") for cursor in batches.cursors)


def test_samples_of_one_size_have_the_cursors_of_an_earlier_release(latents):
    batches = make(latents)
    for step in range(40):
        batches.at(step)
    assert set(batches.cursors) == {"clips/video+audio", "clips/audio", "stills/image"}
