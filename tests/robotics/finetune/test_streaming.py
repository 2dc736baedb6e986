"""Windows encoded as they come: the samples' own, never of held-out episodes, resumed to the sample."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from selfflow_mm.training.ranks import Ranks
from selfflow_robotics.actions.chunks import padded
from selfflow_robotics.finetune.streaming import StreamedWindows
from selfflow_robotics.samples import RobotSamples
from selfflow_robotics.stream import EpisodeStream
from selfflow_robotics.windows import WindowSpec


def streamed(parts, *, rank=0, world=1, seed=3):
    return StreamedWindows(
        parts.files, parts.tokenizer, parts.spec, camera="", seed=seed, stride=1, ranks=Ranks(rank, world),
        without=parts.left_out,
    )  # fmt: skip


@pytest.fixture
def clip_parts(make_parts, clip_tokenizer):
    """Four frames an action, joined by the tokenizer; horizon 2."""
    return make_parts(f"tokenizer={clip_tokenizer}", "data.video_rate=12", "data.horizon=2")


def test_they_are_the_samples_of_the_stream_with_their_clips_encoded(clip_parts):
    parts = clip_parts
    stream = EpisodeStream(parts.files, seed=3, without=parts.left_out)
    samples = iter(
        RobotSamples(
            stream,
            WindowSpec(actions=2, frames=9, video_rate=12.0),
            actions=parts.spec.actions,
            states=parts.spec.states,
            size=(32, 32),
            fit="stretch",
            windows=1,
            seed=3,
        )
    )
    windows = streamed(parts)
    for clip, actions, frames in ((True, 2, 9), (True, 1, 5), (False, 2, 1)):
        found = windows.take(3, actions, clip)
        truth = list(itertools.islice(samples, 3))
        pictures = torch.from_numpy(np.stack([s.video[:frames] for s in truth]))
        assert torch.equal(found.video, parts.tokenizer.encode_batch(pictures))
        assert found.video.shape[1] == 4 * (1 + (frames - 1) // 4)
        assert np.array_equal(found.actions.numpy(), np.stack([s.actions[:actions] for s in truth]))
        assert np.array_equal(found.states.numpy(), np.stack([s.states[0] for s in truth]))
        assert list(found.instructions) == [s.instruction for s in truth]
        assert found.names == [f"{s.episode}@{s.start}" for s in truth]


@pytest.mark.parametrize("relative", ["step", "chunk"])
def test_actions_are_the_episodes_own_as_the_model_sees_them(make_parts, relative):
    parts = make_parts(f"data.relative_to={relative}")
    episodes = {e.id: e for e in (parts.files.read(*parts.files.locate(n)) for n in parts.train)}
    found = streamed(parts).take(6, 3, False)
    for name, seen in zip(found.names, found.actions.numpy(), strict=True):
        episode, start = name.split("@")
        raw = padded(np.asarray(episodes[episode].actions, np.float32), int(start) + np.arange(3))
        np.testing.assert_allclose(seen, parts.spec.seen_actions(raw), atol=1e-6)


@pytest.mark.parametrize("world", [1, 2])
def test_held_out_episodes_never_come_and_all_others_do(make_parts, world):
    parts = make_parts("data.latents=off", "data.episodes=5")
    expected = {parts.files.read(*parts.files.locate(n)).id for n in parts.train}
    assert len(expected) == 5 and len(parts.left_out) == 5
    seen = []
    for rank in range(world):
        windows = streamed(parts, rank=rank, world=world)
        seen += [name.split("@")[0] for _ in range(10) for name in windows.take(2, 3, False).names]
    assert set(seen) == expected


def test_windows_of_an_episode_differ_from_epoch_to_epoch(make_parts):
    """A window is a function of (seed, epoch, episode); without the held-out ones, epochs are as long as they look."""
    parts = make_parts("data.latents=off", "data.episodes=3")
    windows = streamed(parts)
    names = [name for _ in range(8) for name in windows.take(3, 3, False).names]
    epochs = [names[i : i + 3] for i in range(0, 24, 3)]
    assert all(len({name.split("@")[0] for name in epoch}) == 3 for epoch in epochs)
    for episode in {name.split("@")[0] for name in names}:
        assert len({name for name in names if name.startswith(f"{episode}@")}) > 2


def test_ids_of_windows_are_never_the_same(make_parts):
    parts = make_parts("data.latents=off")
    shares = [streamed(parts, rank=r, world=2) for r in range(2)]
    ids = torch.cat([share.take(3, 3, False).ids for _ in range(4) for share in shares])
    assert sorted(ids.tolist()) == list(range(24))


@pytest.mark.parametrize("given", [0, 1, 7, 9])
def test_a_saved_place_goes_on_with_the_very_next_window(make_parts, given):
    parts = make_parts("data.latents=off")
    for rank, world in ((0, 1), (1, 2)):
        whole, begun = streamed(parts, rank=rank, world=world), streamed(parts, rank=rank, world=world)
        for _ in range(given):
            whole.take(2, 3, False)
            begun.take(2, 3, False)
        again = streamed(parts, rank=rank, world=world)
        again.load_state_dict(json.loads(json.dumps(begun.state_dict())))
        for _ in range(5):
            a, b = whole.take(2, 3, True), again.take(2, 3, True)
            assert a.names == b.names and torch.equal(a.ids, b.ids)
            assert torch.equal(a.video, b.video) and torch.equal(a.actions, b.actions)
