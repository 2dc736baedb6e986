"""Three ways to ask a robot model: as a policy, as a world model, as an inverse model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_mm.generation.field import Field
from selfflow_robotics.adapter import FlowPolicy, FlowWorldModel
from selfflow_robotics.adapter.inverse import recover_actions
from selfflow_robotics.adapter.world_model import _NEXT
from selfflow_robotics.interfaces import Observation, Request
from selfflow_tokenizers import VideoTokenizer
from tests.robotics.tiny_robot import make_spec, random_model

TOLD = ["pick coke can", "", "move the apple near the orange"]


@pytest.fixture(scope="module")
def stills(still_tokenizer):
    return VideoTokenizer.from_pretrained(still_tokenizer)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "isolated"])
def model(stills, request):
    return random_model(stills, isolated=request.param)


@pytest.fixture(scope="module")
def clips_model(clip_tokenizer):
    return random_model(VideoTokenizer.from_pretrained(clip_tokenizer), make_spec(video_rate=12.0))


def pictures(rows, *shape, seed=0):
    """Pictures that differ as wholes, which survives shrinking."""
    random = np.random.default_rng(seed)
    base = random.integers(0, 256, (rows, *shape[:-3], 4, 4, 3)).astype(np.uint8)
    return base.repeat(shape[-3] // 4, axis=-3).repeat(shape[-2] // 4, axis=-2)


def requests(states=True, rows=3):
    random = np.random.default_rng(1)
    state = random.normal(1, 2, (rows, 2)).astype(np.float32)
    seen = pictures(rows, 40, 48, 3)
    return [
        Request(Observation(seen[i], TOLD[i % 3], state[i] if states else None), seed=100 + i, query=i)
        for i in range(rows)
    ]


def actions(rows, length, seed=2):
    random = np.random.default_rng(seed)
    found = random.normal(0, 0.1, (rows, length, 7)).astype(np.float32)
    found[..., 6] = random.integers(0, 2, (rows, length))
    return found


def alike(a, b):
    """Batches sum in another order; a row that depended on another would differ in the first digit."""
    return np.abs(a - b).max() < 2e-5


# --- the policy


@pytest.mark.parametrize(
    "settings",
    [{}, {"state": "absent"}, {"video": "denoised"}, {"video": 0.7}, {"context_level": 0.2}, {"guidance": 2.0}],
)
def test_a_chunk_depends_on_its_request_alone(model, settings):
    policy = FlowPolicy(model, **settings)
    asked = requests()
    together = policy.chunks(asked)
    assert together.shape == (3, 3, 7) and together.dtype == np.float32
    for i, request in enumerate(asked):
        assert alike(policy.chunks([request])[0], together[i])
    assert np.array_equal(policy.chunks(asked), together)  # and on no hidden state
    assert not alike(together[0], together[1])


@pytest.mark.parametrize("change", ["seed", "image", "instruction", "state"])
def test_everything_in_a_request_counts_but_the_query(model, change):
    policy = FlowPolicy(model)
    [request] = requests(rows=1)
    seen = request.observation
    other = {
        "seed": Request(seen, seed=request.seed + 1),
        "image": Request(Observation(255 - seen.image, seen.instruction, seen.state), request.seed),
        "instruction": Request(Observation(seen.image, "close the drawer", seen.state), request.seed),
        "state": Request(Observation(seen.image, seen.instruction, seen.state + 1), request.seed),
    }[change]
    before, after = policy.chunks([request]), policy.chunks([other])
    assert np.abs(before - after).max() > 1e-4
    same = Request(seen, seed=request.seed, query=99)
    assert np.array_equal(policy.chunks([same]), before)


def test_actions_are_in_raw_units(stills):
    """With ten times larger statistics the same model gives ten times larger motions."""
    import dataclasses

    spec = make_spec()
    larger = dataclasses.replace(
        spec.actions,
        shift=tuple(10 * v for v in spec.actions.shift[:6]) + spec.actions.shift[6:],
        scale=tuple(10 * v for v in spec.actions.scale[:6]) + spec.actions.scale[6:],
    )
    small, large = (
        FlowPolicy(random_model(stills, make_spec(actions=a))).chunks(requests()) for a in (spec.actions, larger)
    )
    assert large[..., :6] == pytest.approx(10 * small[..., :6], rel=1e-4, abs=1e-6)
    assert large[..., 6] == pytest.approx(small[..., 6]) and small[..., 6].min() >= 0 and small[..., 6].max() <= 1


def test_rows_with_and_without_a_state_keep_their_places(model):
    policy = FlowPolicy(model)
    with_state, without = requests(), requests(states=False)
    mixed = policy.chunks([with_state[0], without[1], with_state[2]])
    assert alike(mixed[[0, 2]], policy.chunks([with_state[0], with_state[2]]))
    assert alike(mixed[1], policy.chunks([without[1]])[0])
    blind = FlowPolicy(model, state="absent").chunks(with_state)
    assert alike(blind[1], mixed[1]) and not alike(blind[0], mixed[0])


def test_ways_to_treat_the_video_are_different_and_meet_at_the_ends(model):
    asked = requests()
    found = {video: FlowPolicy(model, video=video).chunks(asked) for video in ("absent", "denoised", 1.0, 0.5, 1e-6)}
    assert alike(found["denoised"], found[1e-6])
    others = [found[k] for k in ("absent", "denoised", 1.0, 0.5)]
    assert all(np.abs(a - b).max() > 1e-4 for i, a in enumerate(others) for b in others[:i])


def test_a_policy_says_what_it_is(model):
    about = FlowPolicy(model, steps=7, video=0.5).about
    assert (about.horizon, about.control_rate) == (3, 3.0)
    assert about.action_names == model.spec.action_names and about.state_names == ("s0", "s1")
    assert not about.needs_state
    assert json.loads(json.dumps(about.extra))["steps"] == 7 and about.extra["video"] == 0.5
    assert FlowPolicy(model).about.extra["steps"] == 3
    assert FlowPolicy(model, state="absent").about.state_names == ()


def test_a_model_that_always_saw_the_state_needs_it(stills):
    model = random_model(stills, make_spec(state_optional=False))
    policy = FlowPolicy(model)
    assert policy.about.needs_state
    with pytest.raises(UserError, match="needs a state of 2 numbers"):
        policy.chunks(requests(states=False))
    with pytest.raises(UserError, match="always saw the state"):
        FlowPolicy(model, state="absent")


def test_a_model_without_state_passes_over_states(stills):
    policy = FlowPolicy(random_model(stills, make_spec(state_count=0)))
    assert np.array_equal(policy.chunks(requests()), policy.chunks(requests(states=False)))
    assert policy.about.state_names == () and not policy.about.needs_state


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"video": "blurred"}, "absent, denoised, or a noise level"),
        ({"video": 0.0}, r"lies in \(0, 1\], got 0"),
        ({"video": 1.2}, r"lies in \(0, 1\], got 1.2"),
        ({"context_level": 1.0}, r"context_level lies in \[0, 1\)"),
        ({"steps": 0}, "at least one, got 0"),
        ({"steps": 2.5}, "whole number of steps, at least one, got 2.5"),
        ({"guidance": float("nan")}, "guidance is a finite number"),
        ({"state": "maybe"}, "given or absent, not 'maybe'"),
    ],
)
def test_settings_of_a_policy_out_of_range(model, settings, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        FlowPolicy(model, **settings)
    assert "\n" not in str(caught.value)


def test_what_a_model_was_not_trained_for_is_refused(stills):
    only_policy = random_model(stills, make_spec(tasks=("policy",)))
    FlowPolicy(only_policy)
    for ask, task in (
        (lambda m: FlowPolicy(m, video="denoised"), "joint"),
        (lambda m: FlowPolicy(m, video=0.5), "joint"),
        (FlowWorldModel, "world"),
        (lambda m: recover_actions(m, pictures(1, 4, 32, 32, 3), seeds=[0]), "inverse"),
    ):
        with pytest.raises(UserError, match=f"was not trained for '{task}', only for policy; give tasks.{task}"):
            ask(only_policy)


def test_a_state_of_another_width_is_refused(model):
    [request] = requests(rows=1)
    wide = Request(Observation(request.observation.image, "", np.zeros(5)), seed=0)
    with pytest.raises(UserError, match="the state has 5 numbers, this policy's has 2: s0, s1"):
        FlowPolicy(model).chunks([wide])


# --- the world model


@pytest.mark.parametrize("settings", [{}, {"context_level": 0.3, "steps": 2}])
def test_an_imagined_row_depends_on_its_own_row_alone(model, settings):
    world = FlowWorldModel(model)
    now, acts, seeds = pictures(3, 40, 48, 3), actions(3, 4), [5, 6, 7]
    together = world.imagine(now, acts, TOLD, seeds=seeds, **settings)
    assert together.shape == (3, 4, 32, 32, 3) and together.dtype == np.uint8
    for i in range(3):
        row = slice(i, i + 1)
        alone = world.imagine(now[row], acts[row], TOLD[row], seeds=seeds[row], **settings)
        # A pixel may round the other way; 3e-3 of them did.
        assert np.abs(alone[0].astype(int) - together[i]).max() <= 1 and (alone[0] == together[i]).mean() > 0.97
    assert np.array_equal(world.imagine(now, acts, TOLD, seeds=seeds, **settings), together)


def test_pictures_actions_words_and_seeds_all_count(model):
    world = FlowWorldModel(model)
    now, acts = pictures(1, 40, 48, 3), actions(1, 3)
    before = world.imagine(now, acts, ["pick"], seeds=[1]).astype(int)
    for other in (
        world.imagine(255 - now, acts, ["pick"], seeds=[1]),
        world.imagine(now, acts + 0.1, ["pick"], seeds=[1]),
        world.imagine(now, acts, ["close"], seeds=[1]),
        world.imagine(now, acts, ["pick"], seeds=[2]),
        world.imagine(now, acts, ["pick"], seeds=[1], steps=1),
        world.imagine(now, acts, ["pick"], seeds=[1], context_level=0.5),
    ):
        assert np.abs(before - other).max() > 1
    assert np.array_equal(
        world.imagine(now, acts, seeds=[1]), world.imagine(now, acts, [""], seeds=[1])
    )  # no instruction is the empty one
    settled = FlowWorldModel(model, steps=1, context_level=0.5)
    asked = world.imagine(now, acts, seeds=[1], steps=1, context_level=0.5)
    assert np.array_equal(settled.imagine(now, acts, seeds=[1]), asked)


@pytest.mark.parametrize("chunk", [None, 2, 1])
def test_beyond_the_horizon_it_goes_on_from_its_own_last_picture(model, chunk):
    world = FlowWorldModel(model, chunk=chunk)
    now, acts, seeds = pictures(2, 40, 48, 3), actions(2, 7), [8, 2**63 - 1]
    whole = world.imagine(now, acts, TOLD[:2], seeds=seeds)
    assert whole.shape[1] == 7
    step = chunk or 3
    by_hand, last = [], now
    for number, begin in enumerate(range(0, 7, step)):
        mixed = [(seed + number * _NEXT) % 2**63 for seed in seeds]
        by_hand.append(world.imagine(last, acts[:, begin : begin + step], TOLD[:2], seeds=mixed))
        last = by_hand[-1][:, -1]
    assert np.array_equal(whole, np.concatenate(by_hand, axis=1))
    # What comes later cannot change what was before, and another horizon's parts have noise of their own.
    assert np.array_equal(world.imagine(now, acts[:, :step], TOLD[:2], seeds=seeds), whole[:, :step])


def test_of_several_frames_per_action_the_last_is_given(clips_model):
    """Four frames an action in one latent frame: pictures 4, 8 and 12 of the clip."""
    world = FlowWorldModel(clips_model)
    now, acts = pictures(1, 32, 32, 3), actions(1, 3)
    seen = []
    decode = clips_model.decode
    clips_model.decode = lambda values, frames: seen.append(decode(values, frames)) or seen[-1]
    try:
        found = world.imagine(now, acts, seeds=[0])
    finally:
        del clips_model.decode
    assert seen[0].shape[1] == 13
    assert np.array_equal(found, seen[0][:, [4, 8, 12]])
    assert world.imagine(now, actions(1, 4), seeds=[0]).shape[1] == 4  # the fourth is a part of one action


def test_a_world_model_says_what_it_is(model):
    about = FlowWorldModel(model, chunk=2).about
    assert (about.fit, about.camera) == ("stretch", "")  # with which others prepare pictures alike
    assert (about.height, about.width, about.control_rate, about.horizon) == (32, 32, 3.0, 3)
    columns = model.spec.statistics.actions
    assert about.action_low == (*columns.q01[:6], 0.0) and about.action_high == (*columns.q99[:6], 1.0)
    assert json.loads(json.dumps(about.extra))["chunk"] == 2


def test_a_reconstruction_is_the_picture_through_the_tokenizer(model, stills):
    import torch

    now = pictures(2, 32, 32, 3)
    tokens = stills.encode_batch(torch.from_numpy(now)[:, None])
    assert np.array_equal(FlowWorldModel(model).reconstruct(now), stills.decode_batch(tokens, 2, 2)[:, 0].numpy())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": np.zeros((2, 32, 32), np.uint8)}, "images are"),
        ({"images": np.zeros((2, 32, 32, 3), np.float32)}, "images are .* float32"),
        ({"actions": np.zeros((2, 3, 8))}, "actions are"),
        ({"actions": np.zeros((2, 0, 7))}, "T at least 1"),
        ({"actions": np.full((2, 3, 7), np.nan)}, "NaN or infinity"),
        ({"seeds": [1]}, "2 images, 2 rows of actions, 2 instructions and 1 seeds"),
        ({"instructions": ["a"]}, "1 instructions"),
        ({"context_level": 1.0}, r"context_level lies in \[0, 1\)"),
        ({"context_level": -0.1}, r"context_level lies in \[0, 1\)"),
        ({"steps": 0}, "steps"),
    ],
)
def test_what_cannot_be_imagined(model, change, sentence):
    asked = {"images": pictures(2, 32, 32, 3), "actions": actions(2, 3), "seeds": [1, 2]} | change
    with pytest.raises(UserError, match=sentence) as caught:
        FlowWorldModel(model).imagine(**asked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"chunk": 0}, "1 to 3 actions"),
        ({"chunk": 4}, "1 to 3 actions"),
        ({"steps": 0}, "at least one step"),
        ({"context_level": 1.0}, "context_level lies in"),
    ],
)
def test_settings_of_a_world_model_out_of_range(model, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        FlowWorldModel(model, **settings)


# --- the inverse model


def test_recovered_actions_depend_on_their_own_row_alone(model):
    frames, seeds = pictures(3, 4, 40, 48, 3), [1, 2, 3]
    together = recover_actions(model, frames, TOLD, seeds=seeds)
    assert together.shape == (3, 3, 7) and together.dtype == np.float32
    for i in range(3):
        row = slice(i, i + 1)
        assert alike(recover_actions(model, frames[row], TOLD[row], seeds=seeds[row])[0], together[i])
    later = frames.copy()
    later[:, -1] = 255 - later[:, -1]
    for other in (
        recover_actions(model, later, TOLD, seeds=seeds),
        recover_actions(model, frames, TOLD, seeds=[4, 5, 6]),
        recover_actions(model, frames, seeds=seeds),
    ):
        assert np.abs(other - together)[0].max() > 1e-4


def test_an_inverse_model_takes_any_whole_number_of_actions(model, clips_model):
    assert recover_actions(model, pictures(1, 2, 32, 32, 3), seeds=[0]).shape == (1, 1, 7)
    assert recover_actions(clips_model, pictures(1, 9, 32, 32, 3), seeds=[0]).shape == (1, 2, 7)
    for asked, count in ((model, 1), (model, 5), (clips_model, 8)):
        with pytest.raises(UserError, match=f"{count} frames do not show 1 to 3 whole actions"):
            recover_actions(asked, pictures(1, count, 32, 32, 3), seeds=[0])


# --- isolated conditions


def test_kept_keys_and_values_of_the_conditions_change_nothing(stills, monkeypatch):
    """A model that isolates its conditions computes their keys once; without that, it computes them at every step."""
    model = random_model(stills, isolated=True)
    kept = []
    once = Field._conditions_once

    def counted(self):
        kept.append(once(self))
        return kept[-1]

    def ask():
        chunk = FlowPolicy(model, guidance=1.5, context_level=0.2).chunks(requests())
        joint = FlowPolicy(model, video="denoised").chunks(requests(states=False))
        inverse = recover_actions(model, pictures(3, 4, 32, 32, 3), TOLD, seeds=[1, 2, 3])
        film = FlowWorldModel(model).imagine(pictures(3, 32, 32, 3), actions(3, 3), TOLD, seeds=[1, 2, 3])
        return chunk, joint, inverse, film

    monkeypatch.setattr(Field, "_conditions_once", counted)
    fast = ask()
    assert len(kept) == 4 and all(past is not None for past in kept)
    monkeypatch.setattr(Field, "_conditions_once", lambda self: None)
    slow = ask()
    for a, b in zip(fast[:3], slow[:3], strict=True):
        assert alike(a, b)
    assert np.abs(fast[3].astype(int) - slow[3]).max() <= 1 and (fast[3] == slow[3]).mean() > 0.97
