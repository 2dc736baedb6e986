"""Tokens of a clip as changes since its first frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfflow_robotics.adapter.streams import from_changes, to_changes, video_positions
from selfflow_robotics.adapter.tasks import VIDEO
from selfflow_robotics.finetune.batches import batch_of
from selfflow_robotics.finetune.windows import TokenWindows
from selfflow_tokenizers import ByteTextEncoder, VideoTokenizer
from tests.robotics.tiny_robot import make_spec, random_model


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(0, 99))
def test_changes_come_back_and_are_zero_where_nothing_moves(rows, frames, present, seed):
    generator = torch.Generator().manual_seed(seed)
    clip = torch.randn(rows, frames, present, 4, generator=generator)
    clip[:, 1:, 0] = clip[:, :1, 0]  # one place stands still
    values = clip.flatten(1, 2)
    seen = to_changes(values, present)
    assert torch.equal(seen[:, :present], values[:, :present])
    assert not seen.unflatten(1, (frames, present))[:, 1:, 0].any()
    for k in range(1, frames):
        assert torch.equal(seen.unflatten(1, (frames, present))[:, k], clip[:, k] - clip[:, 0])
    assert torch.allclose(from_changes(seen, present), values, atol=1e-6)


def test_a_model_of_changes_shows_the_same_pictures(still_tokenizer):
    tokenizer = VideoTokenizer.from_pretrained(still_tokenizer)
    plain = random_model(tokenizer)
    changes = random_model(tokenizer, replace(plain.spec, video_tokens="changes"))
    random = np.random.default_rng(0)
    film = random.integers(0, 256, (2, 4, 32, 32, 3)).astype(np.uint8)
    frames, seen = plain.encode(film), changes.encode(film)
    assert not torch.allclose(frames, seen, atol=0.1)
    difference = plain.decode(frames, 4).astype(int) - changes.decode(seen, 4)
    assert np.abs(difference).max() <= 1
    assert np.array_equal(
        plain.decode(frames[:, : frames.shape[1] // 4], 1), changes.decode(changes.encode(film[:, :1]), 1)
    )


def test_batches_hold_changes_where_frames_follow(still_tokenizer):
    tokenizer = VideoTokenizer.from_pretrained(still_tokenizer)
    spec, text = make_spec(video_tokens="changes"), ByteTextEncoder()
    present = len(video_positions(tokenizer, spec, 1))
    for task, frames in (("policy", 1), ("joint", 4), ("world", 4), ("inverse", 4)):
        video = torch.randn(2, frames * present, tokenizer.spec.channels)
        windows = TokenWindows(video, torch.zeros(2, 3, 7), torch.zeros(2, 2), ["a", "b"], torch.arange(2), ["x", "y"])
        values = batch_of(task, windows, ["a", "b"], spec, tokenizer, text).streams[VIDEO].values
        assert torch.equal(values, to_changes(video, present))
        assert torch.equal(values, video) == (frames == 1)
