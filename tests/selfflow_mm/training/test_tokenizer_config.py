"""Settings of a tokenizer's training: presets, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from selfflow_mm.config import from_dict, load_config
from selfflow_mm.errors import UserError
from selfflow_mm.training.tokenizer_config import AudioPart, TokenizerTrainConfig
from selfflow_tokenizers.presets import VIDEO_PRESETS

ROOT = Path(__file__).parents[3]


def test_a_preset_is_a_start() -> None:
    settings = load_config(
        TokenizerTrainConfig, ROOT / "configs/tokenizers/image_8x.yaml", ["video.model.preset=video-16x-small"]
    )
    assert settings.video is not None
    sizes = settings.video.model.sizes()
    assert sizes == VIDEO_PRESETS["video-16x-small"] and settings.video.multiple == 32
    with pytest.raises(UserError, match="nearest is 'image-8x-base'"):
        load_config(
            TokenizerTrainConfig, ROOT / "configs/tokenizers/image_8x.yaml", ["video.model.preset=image-8x-bas"]
        )


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"video": {"crop": 40}}, "crop is a multiple of a token's 16 pixels"),
        ({"video": {"frames": 4}}, r"frames is 1 \+ 4k"),
        ({"audio": {"latents": 4, "loss": {"windows": [8192]}}}, "a window of 8192 samples"),
    ],
)
def test_impossible_parts(section: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(TokenizerTrainConfig, section)


def test_exactly_one_kind_is_trained() -> None:
    with pytest.raises(UserError, match="either a video or an audio"):
        TokenizerTrainConfig()
    both = from_dict(TokenizerTrainConfig, {"video": {}})
    with pytest.raises(UserError, match="either a video or an audio"):
        dataclasses.replace(both, audio=AudioPart())
