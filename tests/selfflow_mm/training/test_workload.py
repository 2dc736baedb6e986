"""What a planned run draws: shares, tokens and shapes of data that are not here, arithmetic."""

from __future__ import annotations

from typing import Any

import pytest

from selfflow_mm.config import from_dict
from selfflow_mm.errors import UserError
from selfflow_mm.models import preset
from selfflow_mm.models.flops import joint_forward_flops, training_step_flops
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.data_sums import batch_bytes, data_sums
from selfflow_mm.training.plan import make_plan

STILLS = {"path": "nowhere", "ratio": 3, "batch": 10, "tasks": {"t2i": 1}}
CLIPS = {"path": "nowhere", "ratio": 1, "batch": 4, "tasks": {"t2v": 1, "t2va": 3}}


def _config(**sources: dict[str, Any]) -> TrainConfig:
    named = {"image": "flux2", "video": "wan2.2", "audio": "avae"}
    model = {"preset": "290m", "rope_axes": [24, 20, 20, 8]}
    run = {"steps": 200, "recompute": "blocks", "precision": "bfloat16"}
    return from_dict(TrainConfig, {"model": model, "tokenizers": named, "run": run, "data": {"sources": sources}})


def _known() -> TrainConfig:
    stills = {**STILLS, "expects": {"samples": 1000, "captions": 4, "height": 64, "width": 32}}
    shape = {"height": 32, "width": 48, "frames": 9, "fps": 24, "seconds": 0.4}
    return _config(stills=stills, clips={**CLIPS, "expects": {"samples": 50, **shape}})


def test_shares_are_those_of_sources_and_tasks() -> None:
    draws = make_plan(_known()).draws
    assert [(d.source, d.task, d.batch) for d in draws] == [
        ("stills", "t2i", 10),
        ("clips", "t2v", 4),
        ("clips", "t2va", 4),
    ]
    assert [d.share for d in draws] == pytest.approx([0.75, 0.0625, 0.1875])


def test_data_that_are_not_here_have_the_shape_that_is_expected_of_them() -> None:
    draws = make_plan(_known()).draws
    # 16 x 16 pixels a token; 9 frames are 3 latent frames; 0.4 s are 10 latents.
    assert [dict(d.sizes) for d in draws] == [{"image": 8}, {"video": 3 * 6}, {"video": 3 * 6, "audio": 10}]


def test_the_arithmetic_is_that_of_the_formula_and_recomputation_comes_on_top() -> None:
    plan = make_plan(_known())
    draw = plan.draws[2]
    config = preset("290m", modalities={"image": 128, "video": 48, "audio": 64}, text_channels=192)
    student = joint_forward_flops(config, draw.sizes, draw.text, 2, projector=True)
    teacher = joint_forward_flops(config, draw.sizes, draw.text, blocks=6)
    assert draw.flops == training_step_flops(student, teacher).total
    assert draw.flops + draw.again == training_step_flops(student, teacher, recompute=True).total
    assert draw.again == student.parts["blocks"] + student.parts["attention"]


def test_what_data_sets_hold() -> None:
    plan = make_plan(_known())
    stills, clips = data_sums(plan.config, plan.draws, {**plan.channels, "text": 100}, 2)
    assert (stills.tokens, stills.all_tokens, stills.latent_bytes) == (8, 8000, 8 * 128 * 2)
    assert (clips.tokens, clips.latent_bytes) == (28, (18 * 48 + 10 * 64) * 2)
    assert stills.all_text_bytes == 1000 * 4 * 16 * 100 * 2
    assert stills.drawn == pytest.approx(200 * 0.75 * 10) and stills.passes == pytest.approx(1.5)
    assert batch_bytes(plan.draws[2], {**plan.channels, "text": 100}, 2) == 4 * ((18 * 48 + 10 * 64) + 16 * 100) * 2


def test_the_bundled_text_encoder_stores_nothing() -> None:
    assert all(d.text_bytes == 0 for d in make_plan(_known()).data())


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(UserError, match="nothing that a sample is can be negative"):
        _config(stills={**STILLS, "expects": {"height": -1}})


def test_a_folder_that_is_not_here_has_no_published_geometry() -> None:
    config = from_dict(TrainConfig, {"tokenizers": {"video": "wan2.2:weights/nowhere"}})
    with pytest.raises(UserError, match="weights/nowhere"):
        make_plan(config)
