"""Presets: every one built without memory, its count by a formula written here, and the names it must deserve."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
import torch
from safetensors import safe_open

from selfflow_mm.config import dump_yaml, from_dict, load_config
from selfflow_mm.config_yaml import parse_yaml
from selfflow_mm.errors import UserError
from selfflow_mm.models import JointConfig, JointTransformer
from selfflow_mm.models.presets import (
    ABOUT,
    MODALITIES,
    PRESETS,
    SOURCES,
    TEXT_CHANNELS,
    channels_of,
    count_parameters,
    counted,
    preset,
)
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.weights import find_weights

#: What each name promises, in parameters.
PROMISED = {"290m": 290e6, "420m": 420e6, "625m": 625e6, "675m": 675e6, "1b": 1e9, "4b": 4e9}


def _by_hand(c: JointConfig) -> int:
    """Parameters without the projector, from the shapes of FLUX.2's layers."""
    d, h, b = c.width, int(c.width * c.mlp_ratio), int(c.bias)
    half = 3 * d * d + d * d + 3 * h * d + 2 * (d // c.heads)  # qkv, proj, SwiGLU, two norms' scales
    half += c.qkv_bias * 3 * d + b * (d + 2 * h + d)
    single = d * (3 * d + 2 * h) + (d + h) * d + 2 * (d // c.heads) + c.qkv_bias * 3 * d + b * (2 * h + d)
    modulation = (6 + 6 + 3 + 2) * (d * d + b * d)
    level = 256 * d + d * d + 2 * b * d
    text = c.text_channels * d + b * d
    media = sum(2 * n * d + b * (d + n) for n in c.modalities.values())
    place = c.absolute_positions * (d // c.heads) * d
    return place + c.double_blocks * 2 * half + c.single_blocks * single + modulation + level + text + media


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_built_and_counted_as_promised(name: str) -> None:
    config = preset(name)
    assert config.preset == name
    with torch.device("meta"):
        model = JointTransformer(config)
    exact = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("projector."))
    assert exact == _by_hand(config) == counted(count_parameters(config))
    if name == "tiny":  # it promises to be the bundled model
        with safe_open(find_weights("tiny") / "model.safetensors", "pt") as file:
            stored = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
        assert stored == {key: list(value.shape) for key, value in model.state_dict().items()}
    else:
        assert abs(exact / PROMISED[name] - 1) <= 0.04
    sum_of_parts = sum(count_parameters(config).values())
    assert sum_of_parts == sum(p.numel() for p in model.parameters())


def test_the_total_depths_are_the_paper_s() -> None:
    depths = {name: preset(name).depth for name in ("290m", "420m", "625m", "1b")}
    assert depths == {"290m": 8, "420m": 14, "625m": 21, "1b": 28}


def test_625m_is_the_paper_s_and_4b_the_open_shape() -> None:
    paper = preset("625m")
    assert (paper.width, paper.heads, paper.mlp_ratio) == (1152, 16, 4.0)
    assert (paper.double_blocks, paper.single_blocks, paper.bias, paper.qkv_bias) == (7, 14, False, True)
    open_one = preset("4b")
    assert (open_one.width, open_one.heads, open_one.mlp_ratio) == (3072, 24, 3.0)
    assert (open_one.double_blocks, open_one.single_blocks) == (5, 20)
    assert (open_one.bias, open_one.qkv_bias) == (False, False)
    assert (open_one.rope_axes, open_one.rope_theta) == ((32, 32, 32, 32), 2000.0)
    assert counted(count_parameters(open_one)) == pytest.approx(3.88e9, rel=0.002)


def test_tiny_is_the_bundled_model_s_shape() -> None:
    stored = json.loads((find_weights("tiny") / "config.json").read_text())["model"]
    bundled = from_dict(JointConfig, {**stored, "preset": "tiny"})
    assert bundled == preset("tiny")


def test_each_preset_sets_the_same_fields_and_says_where_from() -> None:
    names = {f.name for f in fields(JointConfig)}
    for name, values in PRESETS.items():
        assert set(values) == set(PRESETS["625m"]) <= names
        assert set(SOURCES[name]) == set(values), name
        assert name in ABOUT
    assert channels_of("625m") == (MODALITIES, TEXT_CHANNELS)


def test_changes_take_the_preset_s_place() -> None:
    config = preset("290m", modalities={"audio": 7}, text_channels=5, width=1024, rope_axes=(24, 16, 16, 8))
    assert (config.width, config.double_blocks, config.modalities, config.text_channels) == (1024, 4, {"audio": 7}, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preset("290"), "no preset '290' .*the nearest is '290m'"),
        (lambda: preset("XL"), "there are tiny, 290m"),
        (lambda: preset("625m", width=1000), "width 1000 is not a multiple of heads 16"),
        (lambda: preset("625m", width=1024), r"rope_axes sums to 72, the head width is 64 \(width / heads\)"),
        (lambda: preset("625m", double_blocks=0, single_blocks=0), "at least one block"),
    ],
)
def test_impossible_presets_are_refused(call, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize("name", PRESETS)
def test_a_run_s_config_starts_from_a_preset_and_reads_back(name: str) -> None:
    config = load_config(TrainConfig, "tiny.yaml", [f"model.preset={name}", "model.projector_ratio=3"])
    expected = preset(name, modalities={}, text_channels=0, projector_ratio=3.0)
    assert config.model == expected
    assert from_dict(TrainConfig, parse_yaml(dump_yaml(config), "dump")) == config


def test_the_message_names_the_key_that_no_longer_fits() -> None:
    with pytest.raises(UserError, match="command line: model: rope_axes sums to 72, the head width is 64"):
        load_config(TrainConfig, "tiny.yaml", ["model.preset=290m", "model.width=1024"])
    with pytest.raises(UserError, match="command line: 'model.preset' is '290', .*; the nearest is '290m'"):
        load_config(TrainConfig, "tiny.yaml", ["model.preset=290"])
