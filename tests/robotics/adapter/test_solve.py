"""Integration against closed forms: a transformer whose velocity is known in place of a trained one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from selfflow_mm.tokens import TokenStream
from selfflow_robotics.adapter.model import RobotModel
from selfflow_robotics.adapter.streams import action_stream, state_stream, video_positions
from selfflow_robotics.adapter.tasks import TASKS
from selfflow_tokenizers import ByteTextEncoder, VideoTokenizer
from tests.robotics.tiny_robot import make_spec

TEXT = ByteTextEncoder()


class Exact(nn.Module):
    """All of the data is one point x0 per modality, so the velocity is (x - x0) / t: what flow matching would learn.

    ``voice`` adds to it what the text says: the sum of its tokens' first channel.
    """

    def __init__(self, points, voice=0.0):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(isolate_conditions=False)
        self.points, self.voice, self.calls = points, voice, []

    def forward(self, inputs, levels, text, given=None):
        self.calls.append((inputs, {m: lv.per_token() for m, lv in levels.items()}, text, given))
        said = self.voice * (text.values[..., 0] * text.valid).sum(dim=1)[:, None, None]
        velocity = {}
        for m, stream in inputs.items():
            t = self.calls[-1][1][m].unsqueeze(-1)
            points = self.points[m].repeat(len(t) // len(self.points[m]), 1, 1)  # guidance doubles the batch
            velocity[m] = torch.where(t > 0, (stream.values - points) / t.clamp(min=1e-9), 7.0) + said
        return SimpleNamespace(velocity=velocity)


@pytest.fixture(scope="module")
def stills(still_tokenizer):
    return VideoTokenizer.from_pretrained(still_tokenizer)


@pytest.fixture
def world(stills):
    """A model, and streams and clean values of a joint task for two rows."""

    def make(voice=0.0, **settings):
        generator = torch.Generator().manual_seed(4)
        channels = stills.spec.channels
        points = {
            "video": torch.randn(2, 16, channels, generator=generator),
            "action": torch.randn(2, 3, 7, generator=generator),
            "state": torch.zeros(2, 1, 2),
        }
        spec = make_spec()
        model = RobotModel(Exact(points, voice), stills, TEXT, spec, **{"steps": 5, **settings})
        video = TokenStream.dense(model.noise("video", [1, 2], 16, channels), video_positions(stills, spec, 4))
        action = action_stream(model.noise("action", [1, 2], 3, 7), 3.0)
        state = state_stream(torch.randn(2, 2, generator=generator))
        clean = {"video": torch.randn(2, 16, channels, generator=generator), "state": state.values}
        return model, {"video": video, "action": action, "state": state}, clean, points

    return make


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("shift", [1.0, 4.0])
def test_an_exact_flow_to_a_point_ends_there_in_any_number_of_steps(world, steps, shift):
    model, streams, clean, points = world(shift={"video": shift, "action": 2.0})
    found = model.solve(TASKS["joint"].conditions(), streams, clean, ["a", "b"], steps=steps)
    assert torch.allclose(found["action"], points["action"], atol=1e-5)
    assert torch.allclose(found["video"][:, 4:], points["video"][:, 4:], atol=1e-5)
    assert len(model.transformer.calls) == steps
    # Given tokens come back as they were given, untouched by a velocity that is 7 there.
    assert torch.equal(found["video"][:, :4], clean["video"][:, :4])
    assert torch.equal(found["state"], clean["state"])


def test_the_models_own_steps_and_shifts_are_used(world, stills):
    model, streams, clean, _ = world(steps=4, shift={"action": 3.0})
    model.solve(TASKS["joint"].conditions(), streams, clean, ["a", "b"])
    calls = model.transformer.calls
    plain = [1.0, 0.75, 0.5, 0.25]
    assert [float(levels["video"][0, -1]) for _, levels, _, _ in calls] == pytest.approx(plain)
    assert stills.spec.sample_shift == 1
    # A shift a takes t to a t / (1 + (a - 1) t).
    assert [float(levels["action"][0, 0]) for _, levels, _, _ in calls] == pytest.approx(
        [3 * t / (1 + 2 * t) for t in plain]
    )
    assert all(float(levels["text"].abs().max()) == 0 for _, levels, _, _ in calls)


def test_given_tokens_are_seen_at_their_level(world):
    model, streams, clean, _ = world()
    model.solve(TASKS["joint"].conditions(0.25), streams, clean, ["a", "b"])
    expected = 0.75 * clean["video"][:, :4] + 0.25 * streams["video"].values[:, :4]
    assert len(model.transformer.calls) == 5
    for inputs, levels, _, given in model.transformer.calls:
        assert torch.allclose(inputs["video"].values[:, :4], expected, atol=1e-6)
        assert (levels["video"][:, :4] == 0.25).all() and (levels["state"] == 0).all()
        assert torch.equal(inputs["state"].values, clean["state"])
        assert given["video"].sum() == 8 and given["state"].all() and "action" not in given


@pytest.mark.parametrize("floor", [1.0, 0.6, 0.05])
def test_a_floor_keeps_a_modality_at_its_level(world, floor):
    model, streams, clean, points = world()
    found = model.solve(TASKS["joint"].conditions(), streams, clean, ["a", "b"], floor={"video": floor}, steps=8)
    rest = slice(4, None)
    expected = (1 - floor) * points["video"][:, rest] + floor * streams["video"].values[:, rest]
    assert torch.allclose(found["video"][:, rest], expected, atol=1e-5)
    if floor == 1:  # not one bit of the noise is touched
        assert torch.equal(found["video"][:, rest], streams["video"].values[:, rest])
    assert torch.allclose(found["action"], points["action"], atol=1e-5)
    levels = [float(levels["video"][0, -1]) for _, levels, _, _ in model.transformer.calls]
    assert levels == pytest.approx([max(floor, 1 - k / 8) for k in range(8)])


@pytest.mark.parametrize("scale", [1.0, 0.0, 2.5])
def test_guidance_is_u_plus_s_times_c_minus_u(world, scale):
    """In one step from level 1 the point is missed by exactly the velocity that the text adds."""
    model, streams, clean, points = world(voice=0.01)
    told = ["pick coke can", "open the top drawer"]
    found = model.solve(TASKS["joint"].conditions(), streams, clean, told, steps=1, guidance=scale)

    def said(text):
        tokens = TEXT.encode([text])
        return float((tokens.values[..., 0] * tokens.valid).sum()) * 0.01

    for row, text in enumerate(told):
        u, c = said(""), said(text)
        expected = points["action"][row] - (u + scale * (c - u))
        assert torch.allclose(found["action"][row], expected, atol=1e-5)
        assert abs(c - u) > 1e-3  # or nothing would have been tested
    [(inputs, _, _, _)] = model.transformer.calls
    assert len(inputs["action"].values) == (2 if scale == 1 else 4)  # no second batch where it would cost for nothing


def test_texts_are_encoded_once_and_a_full_store_changes_nothing(world, monkeypatch):
    model, streams, clean, points = world(voice=0.01)
    asked = []

    def encode(texts):
        asked.extend(texts)
        return TEXT.encode(texts)

    model.text = SimpleNamespace(encode=encode)
    one = model.solve(TASKS["joint"].conditions(), streams, clean, ["pick can", "pick can"], steps=1)
    model.solve(TASKS["joint"].conditions(), streams, clean, ["pick can", "place"], steps=1)
    assert asked == ["pick can", "place"]
    monkeypatch.setattr("selfflow_robotics.adapter.model._TEXTS", 2)
    model.solve(TASKS["joint"].conditions(), streams, clean, ["a", "b"], steps=1)
    again = model.solve(TASKS["joint"].conditions(), streams, clean, ["pick can", "pick can"], steps=1)
    assert torch.equal(one["action"], again["action"])
    assert asked == ["pick can", "place", "a", "b", "pick can"]


def test_noise_is_a_function_of_the_seed_the_modality_and_nothing_else(world):
    model, *_ = world()
    rows = model.noise("action", [5, 9, 5], 3, 7)
    assert rows.shape == (3, 3, 7)
    assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])
    assert torch.equal(model.noise("action", [9], 3, 7)[0], rows[1])
    assert not torch.equal(model.noise("video", [5], 3, 7)[0], rows[0])
    many = model.noise("action", range(2**62, 2**62 + 400), 5, 7)
    assert abs(float(many.mean())) < 5 / many.numel() ** 0.5 and float(many.std()) == pytest.approx(1, abs=0.03)


def test_pictures_become_tokens_and_tokens_pictures(stills):
    """24 x 40 pixels fill 2 x 3 tokens of 16; what is filled up is cropped again."""
    model = RobotModel(Exact({}), stills, TEXT, make_spec(height=24, width=40))
    frames = torch.randint(0, 256, (2, 3, 12, 20, 3), dtype=torch.uint8).numpy()
    values = model.encode(frames)
    assert values.shape == (2, 3 * 6, stills.spec.channels)
    resized = torch.from_numpy(model.spec.pictures(frames))
    filled = torch.nn.functional.pad(resized.permute(0, 1, 4, 2, 3).float().flatten(0, 1), (0, 8, 0, 8), "replicate")
    filled = filled.view(2, 3, 3, 32, 48).permute(0, 1, 3, 4, 2).to(torch.uint8)
    assert torch.allclose(values, stills.encode_batch(filled), atol=1e-5)
    decoded = model.decode(values, 3)
    assert decoded.shape == (2, 3, 24, 40, 3)
    assert (decoded == stills.decode_batch(values, 2, 3).numpy()[:, :, :24, :40]).all()


def test_a_clip_begins_with_the_present(stills):
    model = RobotModel(Exact({}), stills, TEXT, make_spec())
    present = torch.randn(2, 4, stills.spec.channels)
    stream, clean = model.clip(present, 2, [3, 4])
    assert stream.values.shape == clean.shape == (2, 12, stills.spec.channels)
    assert torch.equal(clean[:, :4], present) and not clean[:, 4:].any()
    assert torch.equal(stream.values, model.noise("video", [3, 4], 12, stills.spec.channels))
    assert torch.equal(stream.positions[0], video_positions(stills, model.spec, 3))
