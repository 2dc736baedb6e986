"""Tokens of a robot's world: where they stand, and which of them each task is given."""

from __future__ import annotations

import pytest
import torch

from selfflow_mm.errors import UserError
from selfflow_robotics.adapter.streams import action_stream, state_stream, video_positions
from selfflow_robotics.adapter.tasks import TASKS
from selfflow_robotics.finetune.batches import batch_of
from selfflow_robotics.finetune.windows import TokenWindows
from selfflow_tokenizers import ByteTextEncoder, VideoTokenizer
from tests.robotics.tiny_robot import make_spec


@pytest.fixture(scope="module")
def stills(still_tokenizer):
    return VideoTokenizer.from_pretrained(still_tokenizer)


@pytest.fixture(scope="module")
def clips(clip_tokenizer):
    return VideoTokenizer.from_pretrained(clip_tokenizer)


def test_actions_stand_where_they_begin_to_act_in_their_order():
    values = torch.randn(2, 4, 7)
    stream = action_stream(values, 5.0)
    assert torch.equal(stream.values, values) and stream.full
    expected = torch.tensor([[0, 0, 0, 0], [0.2, 0, 0, 1], [0.4, 0, 0, 2], [0.6, 0, 0, 3]])
    assert torch.allclose(stream.positions, expected.expand(2, 4, 4))


def test_the_state_is_one_token_of_the_present():
    values = torch.randn(3, 8)
    stream = state_stream(values)
    assert torch.equal(stream.values, values[:, None])
    assert torch.equal(stream.positions, torch.zeros(3, 1, 4))


def test_frames_stand_in_the_same_seconds_as_actions(stills, clips):
    # 32 x 32 pixels are 2 x 2 tokens. Three actions at 3 Hz, a frame each: frame j is on from j / 3 to (j + 1) / 3.
    found = video_positions(stills, make_spec(), 4)
    assert found[:4].tolist() == [[pytest.approx(1 / 6), row, column, 0] for row in (0, 1) for column in (0, 1)]
    assert found[::4, 0].tolist() == pytest.approx([1 / 6, 3 / 6, 5 / 6, 7 / 6])
    assert video_positions(stills, make_spec(), 1)[:, 0].tolist() == [0] * 4
    # At 12 Hz an action is four frames, which one latent frame covers: frames 1 to 4 end at 5 / 12 and begin at 1 / 12.
    found = video_positions(clips, make_spec(video_rate=12.0), 13)
    assert found[::4, 0].tolist() == pytest.approx([0.5 / 12, 3 / 12, 7 / 12, 11 / 12])


#: Task -> (what it generates, modality -> share of its tokens that are given), for clips of four latent frames.
EXPECTED = {
    "policy": (("action",), {"video": 1.0, "state": 1.0}),
    "joint": (("action", "video"), {"video": 0.25, "state": 1.0}),
    "world": (("video",), {"video": 0.25, "action": 1.0}),
    "video": (("video",), {"video": 0.25}),
    "inverse": (("action",), {"video": 1.0}),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("compressed", [False, True])
def test_what_every_task_generates_and_what_it_is_given(task, compressed, stills, clips):
    tokenizer, spec = (clips, make_spec(video_rate=12.0)) if compressed else (stills, make_spec())
    count = 4 if task == "policy" else 16
    windows = TokenWindows(
        video=torch.randn(2, count, tokenizer.spec.channels),
        actions=torch.randn(2, 3, 7),
        states=torch.randn(2, 2),
        instructions=["a", "b"],
        ids=torch.arange(2),
        names=["a@0", "b@0"],
    )
    batch = batch_of(task, windows, ["a", "b"], spec, tokenizer, ByteTextEncoder())
    generate, given = EXPECTED[task]
    assert sorted(batch.conditions.generate) == sorted(generate)
    masks = batch.conditions.masks(batch.streams)
    assert {m: float(mask.float().mean()) for m, mask in masks.items()} == given
    assert set(batch.streams) == set(generate) | set(given)
    if given["video"] < 1:
        assert masks["video"][0].tolist() == [True] * 4 + [False] * 12  # the present frame's, all of them
    assert all(part.level == 0 for part in batch.conditions.given.values())
    # Values are the windows' own, in place.
    assert torch.equal(batch.streams["video"].values, windows.video)
    if "action" in batch.streams:
        assert torch.equal(batch.streams["action"].values, windows.actions)
    if "state" in batch.streams:
        assert torch.equal(batch.streams["state"].values[:, 0], windows.states)


@pytest.mark.parametrize("task", TASKS)
def test_the_level_is_of_pictures_alone_and_the_state_can_be_left_out(task):
    conditions = TASKS[task].conditions(0.3, state=False)
    assert conditions.given["video"].level == 0.3
    assert "state" not in conditions.modalities
    assert all(part.level == 0 for name, part in conditions.given.items() if name != "video")
    with pytest.raises(UserError, match="level lies in"):
        TASKS[task].conditions(1.0)
