"""Which task, how long a clip, and with which words: functions of the seed and the step, the same on all processes."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch

from selfflow_mm.training.ranks import Ranks
from selfflow_robotics.adapter.tasks import TASKS
from selfflow_robotics.finetune.batches import RobotBatches
from selfflow_robotics.finetune.windows import TokenWindows
from selfflow_tokenizers import ByteTextEncoder


class Windows:
    """A source that makes windows of zeros and remembers what it was asked."""

    def __init__(self, spec, channels):
        self.spec, self.channels, self.taken, self.asked = spec, channels, 0, []

    def take(self, count, actions, clip):
        self.asked.append((count, actions, clip))
        ids = torch.arange(self.taken, self.taken + count)
        self.taken += count
        return TokenWindows(
            video=torch.zeros(count, 4 * (self.spec.frames(actions) if clip else 1), self.channels),
            actions=torch.zeros(count, actions, 7),
            states=torch.zeros(count, 8) if self.spec.state_names else None,
            instructions=[f"told {i % 7}" for i in ids.tolist()],
            ids=ids,
            names=[f"e@{i}" for i in ids.tolist()],
        )

    def state_dict(self):
        return {"taken": self.taken}

    def load_state_dict(self, state):
        self.taken = state["taken"]


class Words(ByteTextEncoder):
    """Remembers the captions."""

    def encode(self, texts):
        self.texts = list(texts)
        return super().encode(texts)


@pytest.fixture
def make_batches(make_parts):
    def make(*overrides, share=4):
        parts = make_parts(*overrides)
        windows = Windows(parts.spec, parts.tokenizer.spec.channels)
        return RobotBatches(parts.config, windows, parts.spec, parts.tokenizer, Words(), share)

    return make


def test_instructions_are_padded_to_multiples(make_batches):
    plain, padded = (make_batches(f"text.pad_to={n}").at(0)[2].text for n in (1, 16))
    assert padded.values.shape[1] % 16 == 0 and plain.values.shape[1] % 16
    assert padded.valid.sum(1).tolist() == plain.valid.sum(1).tolist()


def test_tasks_come_in_their_shares(make_batches):
    batches = make_batches("tasks={policy: 6, world: 3, inverse: 1, video: 0}", "data.shorter=0", share=1)
    count = Counter(batches.at(step)[1] for step in range(600))
    assert set(count) == {"policy", "world", "inverse"}
    for task, share in (("policy", 0.6), ("world", 0.3), ("inverse", 0.1)):
        assert abs(count[task] - 600 * share) < 4 * (600 * share * (1 - share)) ** 0.5


def test_a_clip_that_is_given_actions_or_none_may_be_shorter(make_batches):
    batches = make_batches("data.horizon=5", "data.shorter=0.5", share=2)
    lengths = {task: Counter() for task in TASKS}
    for step in range(800):
        _, task, batch = batches.at(step)
        _, actions, clip = batches.source.asked[-1]
        assert clip == (task != "policy")
        lengths[task][actions] += 1
        if "action" in batch.streams:
            assert batch.streams["action"].values.shape[1] == actions
        frames = batches.spec.frames(actions) if clip else 1
        assert batch.streams["video"].values.shape[1] == 4 * frames
    for task in ("policy", "joint", "inverse"):  # a policy always gives a whole chunk
        assert set(lengths[task]) == {5}
    for task in ("world", "video"):
        total = sum(lengths[task].values())
        assert set(lengths[task]) == {1, 2, 3, 4, 5}
        assert abs(lengths[task][5] - total / 2) < 4 * (total / 4) ** 0.5
        for shorter in (1, 2, 3, 4):
            assert abs(lengths[task][shorter] - total / 8) < 4 * (total * 7 / 64) ** 0.5


@pytest.mark.parametrize("dropout", [0, 0.3, 1])
def test_the_state_is_left_out_of_a_share_of_batches(make_batches, dropout):
    batches = make_batches(f"data.state_dropout={dropout}", "tasks={policy: 1}", share=1)
    seen = ["state" in batches.at(step)[2].streams for step in range(300)]
    assert abs(300 - sum(seen) - 300 * dropout) <= 4 * (300 * dropout * (1 - dropout)) ** 0.5
    for step in range(5):
        _, _, batch = batches.at(step)
        assert ("state" in batch.streams) == ("state" in batch.conditions.given)


def test_captions_are_dropped_for_a_share_of_samples(make_batches):
    batches = make_batches("objective.caption_dropout=0.2", share=10)
    dropped = 0
    for step in range(60):
        batches.at(step)
        texts = batches.text_encoder.texts
        ids = range(10 * step, 10 * step + 10)
        assert all(text in ("", f"told {i % 7}") for text, i in zip(texts, ids, strict=True))
        dropped += texts.count("")
    assert abs(dropped - 120) < 4 * (600 * 0.16) ** 0.5


def test_a_step_is_a_function_of_the_seed_and_the_step(make_batches):
    whole, other = make_batches(), make_batches("run.seed=6")
    steps = [whole.at(step)[1] for step in range(20)]
    assert steps != [other.at(step)[1] for step in range(20)]
    again = make_batches()
    for step in range(10):
        again.at(step)
    resumed = make_batches()
    resumed.load_state_dict(json.loads(json.dumps(again.state_dict())))
    assert [resumed.at(step)[1] for step in range(10, 20)] == steps[10:]
    assert resumed.source.asked == whole.source.asked[10:]


def test_processes_ask_the_same_question_of_shares_of_the_windows(make_parts, tmp_path):
    from selfflow_robotics.finetune.latents import CachedWindows, encode_episodes

    parts = make_parts()
    data = encode_episodes(parts.files, parts.train, parts.tokenizer, parts.spec, "", tmp_path / "latents")

    def batches(rank, world):
        windows = CachedWindows(data, parts.spec, seed=5, ranks=Ranks(rank, world))
        return RobotBatches(parts.config, windows, parts.spec, parts.tokenizer, Words(), 4 // world)

    alone, two = batches(0, 1), [batches(r, 2) for r in range(2)]
    for step in range(8):
        _, task, batch = alone.at(step)
        for rank, each in enumerate(two):
            _, own, part = each.at(step)
            assert own == task and torch.equal(part.ids, batch.ids[rank::2])
            assert each.text_encoder.texts == alone.text_encoder.texts[rank::2]
            assert part.streams.keys() == batch.streams.keys()
            for m in batch.streams:
                assert torch.equal(part.streams[m].values, batch.streams[m].values[rank::2])


def test_samples_are_named_for_messages(make_batches):
    batches = make_batches()
    source, _, batch = batches.at(0)
    assert batches.numbers(source, batch) == ["e@0", "e@1", "e@2", "e@3"]
