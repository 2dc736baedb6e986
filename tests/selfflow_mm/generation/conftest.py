"""A pipeline of a few thousand random weights."""

from __future__ import annotations

import pytest
import torch

from selfflow_mm.generation.pipeline import Geometry, Pipeline
from selfflow_mm.generation.sampling import SamplingConfig
from selfflow_mm.models import JointConfig, JointTransformer
from selfflow_tokenizers import load_tokenizer


@pytest.fixture(scope="module")
def small_pipeline(small_tokenizers) -> Pipeline:
    video, audio = load_tokenizer(small_tokenizers["video"]), load_tokenizer(small_tokenizers["audio"])
    tokenizers = {"image": video, "video": video, "audio": audio}
    torch.manual_seed(0)
    config = JointConfig(
        width=32, heads=2, double_blocks=1, single_blocks=1, mlp_ratio=2, rope_axes=(8, 4, 2, 2),
        modalities={m: t.spec.channels for m, t in tokenizers.items()}, text_channels=192,
    )  # fmt: skip
    model = JointTransformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return Pipeline(model, tokenizers, Geometry(9, 32, 32, 16.0, 9000), SamplingConfig(steps=3))
