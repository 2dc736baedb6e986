"""Prefixes that training draws: one border for all modalities, something left to make in each, evenly spread."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.conditions import Conditions
from selfflow_mm.tokens import TokenStream
from selfflow_mm.training.batches import Batches
from selfflow_mm.training.config import SourceConfig
from selfflow_mm.training.prefixes import begun
from selfflow_tokenizers import ByteTextEncoder
from tests.selfflow_mm.training.test_packing import drawn_at, packed
from tests.selfflow_mm.training.toy import Latents


def stream(seconds: list[float], rows: int, padding: int = 0) -> TokenStream:
    positions = torch.zeros(len(seconds), 4)
    positions[:, 0] = torch.tensor(seconds)
    dense = TokenStream.dense(torch.zeros(rows, len(seconds), 1), positions)
    sample = dense.sample.clone()
    if padding:
        sample[-1, -padding:] = -1
    return TokenStream(dense.values, dense.positions, sample)


@given(
    u=st.lists(st.floats(1e-6, 1 - 1e-6), min_size=2, max_size=2),
    frames=st.integers(2, 6),
    sounds=st.integers(2, 20),
    padding=st.integers(0, 1),
)
def test_there_is_one_border_and_every_modality_has_something_left_to_make(u, frames, sounds, padding):
    streams = {
        "video": stream([i / 4 for i in range(frames) for _ in range(2)], 2, padding),
        "audio": stream([i / 25 for i in range(sounds)], 2, padding),
    }
    conditions = begun(Conditions.named("extend"), streams, torch.tensor(u))
    for row in range(2):
        given_until, made_from = 0.0, float("inf")
        for m, mask in conditions.masks(streams).items():
            times, valid = streams[m].positions[row, :, 0], streams[m].valid[row]
            assert not mask[row, ~valid].any() and (valid & ~mask[row]).any()
            given_until = max([given_until, *times[mask[row]].tolist()])
            made_from = min(made_from, float(times[valid & ~mask[row]].min()))
        assert given_until < made_from


def test_other_tasks_are_left_as_they_are():
    for task in ("t2va", "i2va", "v2a"):
        conditions = Conditions.named(task)
        assert begun(conditions, {"video": stream([0.0, 0.1], 1)}, torch.tensor([0.5])) is conditions


def test_borders_are_spread_evenly():
    streams = {"video": stream([i / 4 for i in range(5)], 4000)}
    u = torch.linspace(0.0001, 0.9999, 4000)
    counts = begun(Conditions.named("extend-v"), streams, u).masks(streams)["video"].sum(dim=1)
    shares = torch.bincount(counts, minlength=6) / 4000
    assert shares.tolist() == pytest.approx([0, 0.25, 0.25, 0.25, 0.25, 0], abs=0.001)


def extending(task: str) -> dict:
    return {"clips": (SourceConfig("", {task: 1.0}, 1, 6), Latents({"video": 18, "audio": 7, "image": 6}, 12))}


def test_batches_draw_a_prefix_for_every_sample_and_step():
    batches = Batches(extending("extend"), ByteTextEncoder(channels=6), 3, 0.0)
    lengths = []
    for step in range(12):
        _, _, batch = batches.at(step)
        masks = batch.conditions.masks(batch.streams)
        assert set(masks) == {"video", "audio"} and all(bool((~mask).any(dim=1).all()) for mask in masks.values())
        lengths += masks["video"].sum(dim=1).tolist()
        again = Batches(extending("extend"), ByteTextEncoder(channels=6), 3, 0.0)
        again.load_state_dict({"cursors": dict.fromkeys(batches.cursors, 6 * step)})
        assert torch.equal(again.at(step)[2].conditions.masks(batch.streams)["video"], masks["video"])
    assert set(lengths) == {3, 6}  # the sound's last token is at 0.25 s, and video has three tokens every eighth


def test_packed_samples_are_begun_as_they_would_be_alone():
    batches = packed(budget=260, data=extending("extend"))
    drawn, batch = drawn_at(batches, 0)
    masks, places = batch.conditions.masks(batch.streams), batches.sources["clips"][1]
    u = batches.random.uniform("prefix", 0, torch.tensor([item.id for item in drawn]))[:, 0]
    for slot, item in enumerate(drawn):
        alone = {m: places.stream(m, [item.id]) for m in ("video", "audio")}
        expected = begun(Conditions.named("extend"), alone, u[slot : slot + 1]).masks(alone)
        for m, mask in expected.items():
            assert torch.equal(masks[m][0, batch.streams[m].sample[0] == slot], mask[0])
