"""The stream of episodes: every one once, in a seeded order, shared between ranks, resumed to the episode."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_robotics.stream import EpisodeStream, Quarantined
from tests.robotics.memory import memory_source

SHAPES = st.lists(st.lists(st.integers(1, 3), max_size=5), min_size=1, max_size=6).filter(lambda x: any(x))


def names(stream, n=None):
    return [episode.id for episode in itertools.islice(iter(stream), n)]


def everything(lengths):
    return [f"{s}/{i}" for s, shard in enumerate(lengths) for i in range(len(shard))]


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(0, 5), st.integers(1, 7), st.sampled_from([0, 2]))
def test_every_episode_once_in_each_epoch(lengths, seed, group, ahead):
    stream = EpisodeStream(memory_source(lengths), seed=seed, group=group, epochs=2, ahead=ahead)
    seen = names(stream)
    total = everything(lengths)
    assert sorted(seen[: len(total)]) == sorted(total) == sorted(seen[len(total) :])
    assert stream.epoch == 2


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(1, 4), st.integers(0, 3))
def test_ranks_share_the_common_order(lengths, world, seed):
    total = len(everything(lengths))
    world = min(world, total)
    alone = names(EpisodeStream(memory_source(lengths), seed=seed, epochs=2))
    shares = [
        names(EpisodeStream(memory_source(lengths), seed=seed, epochs=2, rank=r, world=world)) for r in range(world)
    ]
    for rank, share in enumerate(shares):
        assert share == alone[:total][rank::world] + alone[total:][rank::world]


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(0, 20), st.integers(1, 3), st.booleans(), st.sampled_from([0, 2]))
def test_a_resumed_stream_goes_on_with_the_very_next_episode(lengths, stop, world, shuffle, ahead):
    world = min(world, len(everything(lengths)))

    def make(rank):
        return EpisodeStream(
            memory_source(lengths), seed=7, shuffle=shuffle, group=2, rank=rank, world=world, ahead=ahead
        )

    for rank in range(world):
        whole = names(make(rank), stop + 10)
        first, second = make(rank), make(rank)
        assert names(first, stop) == whole[:stop]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert names(second, 10) == whole[stop:]


def test_another_number_of_ranks_goes_on_in_the_common_order():
    lengths = [[1] * 10, [1] * 7]
    alone = names(EpisodeStream(memory_source(lengths), epochs=1))
    two = EpisodeStream(memory_source(lengths), rank=0, world=2)
    names(two, 3)  # both ranks have given 3: six of the common order
    rest = []
    for rank in range(3):
        stream = EpisodeStream(memory_source(lengths), rank=rank, world=3, epochs=1)
        stream.load_state_dict(two.state_dict())
        rest.append(names(stream))
    assert sorted(itertools.chain(*rest)) == sorted(alone[6:])
    assert rest[1] == alone[7::3]


def test_the_order_depends_on_the_seed_and_the_epoch_and_mixes_shards():
    lengths = [[1] * 20] * 4
    a = names(EpisodeStream(memory_source(lengths), seed=0, epochs=2))
    b = names(EpisodeStream(memory_source(lengths), seed=1, epochs=1))
    assert a[:80] != a[80:] and a[:80] != b and a[:80] != everything(lengths)
    assert len({name.split("/")[0] for name in a[:12]}) > 1
    assert names(EpisodeStream(memory_source(lengths), shuffle=False, epochs=1)) == everything(lengths)


def test_a_group_bounds_how_many_shards_are_open_at_once():
    lengths = [[1] * 5] * 6
    seen = names(EpisodeStream(memory_source(lengths), group=2, epochs=1))
    for start in range(0, 30, 10):
        assert len({name.split("/")[0] for name in seen[start : start + 10]}) == 2


def test_what_cannot_be_read_is_listed_once_and_left_out():
    source = memory_source([[1, 1, 1], [1, 1]], bad={(0, 1), (1, 0)})
    stream = EpisodeStream(source, epochs=3)
    seen = names(stream)
    assert sorted(seen) == sorted(["0/0", "0/2", "1/1"] * 3)
    assert sorted(stream.quarantine, key=lambda entry: entry.shard) == [
        Quarantined("shard-0", 1, "its checksum is wrong"),
        Quarantined("shard-1", 0, "its checksum is wrong"),
    ]
    assert source.files.reads.count((0, 1)) == 1  # not tried again


def test_the_quarantine_is_kept_over_a_restart_and_can_be_added_to():
    stream = EpisodeStream(memory_source([[1, 1, 1, 1]], bad={(0, 1)}), epochs=1, ahead=0)
    for episode in stream:
        if episode.id == "0/3":
            stream.exclude(episode, "the picture of step 0 cannot be decoded")
    again = EpisodeStream(memory_source([[1, 1, 1, 1]]), epochs=2, ahead=0)
    again.load_state_dict(stream.state_dict())
    assert sorted(names(again)) == ["0/0", "0/2"]
    assert {(entry.index, entry.reason) for entry in again.quarantine} == {
        (1, "its checksum is wrong"),
        (3, "the picture of step 0 cannot be decoded"),
    }


def test_nothing_readable_is_an_error_and_not_an_endless_loop():
    source = memory_source([[1, 1], [1]], bad={(0, 0), (0, 1), (1, 0)})
    with pytest.raises(UserError, match="not one episode .* its checksum is wrong"):
        names(EpisodeStream(source), 1)


def test_a_state_of_other_data_or_another_order_is_refused():
    state = EpisodeStream(memory_source([[1, 1]])).state_dict()
    with pytest.raises(UserError, match="are not those"):
        EpisodeStream(memory_source([[1, 1, 1]])).load_state_dict(state)
    with pytest.raises(UserError, match="seed 0, now it is 3"):
        EpisodeStream(memory_source([[1, 1]]), seed=3).load_state_dict(state)
    with pytest.raises(UserError, match="version 9"):
        EpisodeStream(memory_source([[1, 1]])).load_state_dict({**state, "version": 9})


@pytest.mark.parametrize(
    "settings", [{"rank": 2, "world": 2}, {"group": 0}, {"epochs": 0}, {"ahead": -1}, {"seed": -1}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(UserError):
        EpisodeStream(memory_source([[1, 1, 1]]), **settings)


def test_no_more_ranks_than_episodes():
    with pytest.raises(UserError, match="none is left for rank 3"):
        EpisodeStream(memory_source([[1, 1, 1]]), rank=3, world=4)


def test_shards_that_are_not_there_are_told_once_and_cost_nothing():
    source = memory_source([[1, 1], [1] * 1000, [1]])
    source.files.missing = frozenset({1})
    stream = EpisodeStream(source, epochs=2)
    assert sorted(names(stream)) == sorted(["0/0", "0/1", "2/0"] * 2)
    assert stream.quarantine == [Quarantined("shard-1", -1, "the file is missing")]
    assert {shard for shard, _ in source.files.reads} == {0, 2}


def left_out(lengths, fraction, seed=0):
    """About that share of the episodes, at least one remaining."""
    places = [(s, i) for s, shard in enumerate(lengths) for i in range(len(shard))]
    chosen = np.random.default_rng(seed).permutation(len(places))[: min(round(fraction * len(places)), len(places) - 1)]
    return {places[n] for n in chosen}


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from([0.2, 0.5, 0.9]), st.integers(0, 3), st.integers(1, 4), st.booleans())
def test_episodes_that_are_left_out_never_come_and_ranks_share_the_others(lengths, fraction, seed, world, shuffle):
    without = left_out(lengths, fraction, seed)
    expected = sorted(set(everything(lengths)) - {f"{s}/{i}" for s, i in without})
    world = min(world, len(expected))

    def make(rank=0, world=1, epochs=3):
        return EpisodeStream(
            memory_source(lengths), seed=seed, shuffle=shuffle, epochs=epochs, rank=rank, world=world, without=without
        )

    alone = names(make())
    count = len(expected)
    epochs = [alone[i : i + count] for i in range(0, 3 * count, count)]
    assert all(sorted(epoch) == expected for epoch in epochs) and len(alone) == 3 * count
    for rank in range(world):  # each rank its part of every epoch, none without one
        assert names(make(rank, world)) == list(itertools.chain(*(epoch[rank::world] for epoch in epochs)))
    # Epochs are told where they begin, so that windows drawn by the epoch differ from one to the next.
    stream = make(epochs=None)
    told = []
    for _ in itertools.islice(iter(stream), count):
        told.append(stream.epoch)
    assert told == [0] * (count - 1) + [1]


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(0, 12), st.integers(1, 2))
def test_a_stream_without_some_goes_on_with_the_very_next_episode(lengths, stop, world):
    without = left_out(lengths, 0.4)
    world = min(world, len(everything(lengths)) - len(without))
    for rank in range(world):
        first, second, whole = (
            EpisodeStream(memory_source(lengths), seed=7, rank=rank, world=world, without=without) for _ in range(3)
        )
        expected = names(whole, stop + 8)
        assert names(first, stop) == expected[:stop]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert names(second, 8) == expected[stop:]


def test_another_choice_of_what_is_left_out_is_other_data():
    lengths = [[1] * 6]
    state = EpisodeStream(memory_source(lengths), without=[(0, 1)]).state_dict()
    EpisodeStream(memory_source(lengths), without=[(0, 1), (0, 1)]).load_state_dict(state)
    for other in ([], [(0, 2)], [(0, 1), (0, 2)]):
        with pytest.raises(UserError, match="are not those"):
            EpisodeStream(memory_source(lengths), without=other).load_state_dict(state)


def test_more_ranks_than_remain():
    with pytest.raises(UserError, match="holds 3 episodes, of which 2 are left out, and none is left for rank 1"):
        EpisodeStream(memory_source([[1, 1, 1]]), rank=1, world=2, without=[(0, 0), (0, 2)])
    source = memory_source([[1, 1], [1]])
    source.files.missing = frozenset({1})
    with pytest.raises(UserError, match="holds 2 episodes, of which 2 are left out"):
        EpisodeStream(source, without=[(0, 0), (0, 1), (1, 0)])
