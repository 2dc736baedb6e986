"""What a planned run draws: shares, tokens and shapes of data that are not here, arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from selfflow_mm.cli.main import main
from selfflow_mm.config import from_dict, load_config
from selfflow_mm.data.writing import write_video
from selfflow_mm.errors import UserError
from selfflow_mm.models import preset
from selfflow_mm.models.flops import joint_forward_flops, training_step_flops
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.data_sums import batch_bytes, data_sums
from selfflow_mm.training.plan import describe, make_plan
from selfflow_tokenizers.media import Audio, Video

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


def test_buckets_are_kinds_of_batches_before_and_after_encoding(small_config, tmp_path) -> None:
    """Films of four sizes, stills of three, each with its share; from dataset.json as from the latents."""
    for i, (frames, height, width) in enumerate([(9, 32, 32)] * 3 + [(5, 32, 32)] + [(5, 16, 48)] * 2 + [(9, 48, 16)]):
        picture = torch.full((frames, height, width, 3), 20 * i, dtype=torch.uint8)
        write_video(tmp_path / f"in/film {i}.mp4", Video(picture, 16.0), Audio(torch.ones(2, 9000) / 4, 16_000))
    options = ["--frames", "5,9", "--buckets", "32x32,16x48,48x16", "--workers", "0"]
    assert main(["prepare", str(tmp_path / "in"), str(tmp_path / "data"), *options]) == 0
    settings = ["data.sources.clips.tasks={t2va: 3, t2i: 1}", "data.sources.clips.batch=2"]
    raw = make_plan(load_config(TrainConfig, small_config, [*settings, f"data.sources.clips.path={tmp_path / 'data'}"]))
    named = load_config(TrainConfig, small_config).tokenizers
    command = ["encode", str(tmp_path / "data"), str(tmp_path / "l"), "--workers", "0"]
    assert main([*command, "--video", named["video"], "--audio", named["audio"]]) == 0
    path = f"data.sources.clips.path={tmp_path / 'l'}"
    latents = make_plan(load_config(TrainConfig, small_config, [*settings, path]))
    # 16 x 16 pixels a token; 9 frames are 3 latent frames, 5 are 2; 640 samples of sound a latent.
    for plan in (raw, latents):
        assert sorted((d.task, d.share, tuple(d.sizes.values())) for d in plan.draws) == [
            ("t2i", pytest.approx(0.25 / 7), (3,)),
            ("t2i", pytest.approx(0.25 * 2 / 7), (3,)),
            ("t2i", pytest.approx(0.25 * 4 / 7), (4,)),
            ("t2va", pytest.approx(0.75 / 7), (8, 8)),
            ("t2va", pytest.approx(0.75 / 7), (9, 15)),
            ("t2va", pytest.approx(0.75 * 2 / 7), (6, 8)),
            ("t2va", pytest.approx(0.75 * 3 / 7), (12, 15)),
        ]
        (clips,) = plan.data()
        # Means of 12, 12, 12, 8, 6, 6, 9 and of 15, 15, 15, 8, 8, 8, 15 and of 4, 4, 4, 4, 3, 3, 3, rounded.
        assert clips.buckets == 4 and clips.sizes == {"video": 9, "audio": 12, "image": 4}
    assert "7 samples of 25 tokens in the mean of 4 sizes" in describe(small_config, [*settings, path])
