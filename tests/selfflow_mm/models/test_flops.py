"""FLOPs: the closed form against PyTorch's counter on real passes, and the named totals against hand arithmetic."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from selfflow_mm.errors import UserError
from selfflow_mm.models import (
    IMAGENET_XL_2,
    ImageNetConfig,
    ImageNetModel,
    JointConfig,
    JointTransformer,
    SelfFlowPerTokenDiT,
)
from selfflow_mm.models.flops import (
    Flops,
    imagenet_forward_flops,
    joint_forward_flops,
    training_step_flops,
)
from selfflow_mm.models.presets import preset
from selfflow_mm.tokens import NoiseLevels, TokenStream

_joint = st.fixed_dictionaries(
    {
        "double_blocks": st.integers(0, 2),
        "single_blocks": st.integers(1, 2),
        "heads": st.sampled_from([1, 2]),
        "mlp_ratio": st.sampled_from([1.5, 2.0, 3.0, 4.0]),
        "bias": st.booleans(),
        "projector_ratio": st.sampled_from([1.0, 2.0]),
        "projector_channels": st.sampled_from([0, 5]),
        "absolute_positions": st.booleans(),
    }
)
_tokens = st.fixed_dictionaries({"video": st.integers(1, 9)}, optional={"audio": st.integers(1, 5)})


def _stream(tokens: int, channels: int) -> TokenStream:
    values = torch.randn(1, tokens, channels)
    return TokenStream(values, torch.zeros(1, tokens, 4), torch.zeros(1, tokens, dtype=torch.int64), full=True)


def _levels(tokens: int, levels: int, per_token: bool) -> NoiseLevels:
    if per_token:
        return NoiseLevels.each_token(torch.rand(1, tokens))
    return NoiseLevels(torch.rand(1, levels), torch.randint(levels, (1, tokens)))


def _count(forward) -> tuple[int, int]:
    """What the counter sees of a forward pass, and of it with its backward pass."""
    # The CPU's fused attention has no formula in the counter; the plain one is products that it sees.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        total = sum(x.sum() for x in forward())
        once = counter.get_total_flops()
        total.backward()
    return once, counter.get_total_flops()


@settings(max_examples=8)
@given(_joint, _tokens, st.integers(1, 6), st.sampled_from([1, 2, 3, 70]), st.integers(1, 2), st.booleans(), st.data())
def test_joint_agrees_with_the_counter(shape, tokens, n_text, levels, text_levels, per_token, data) -> None:
    config = JointConfig(
        width=16 * shape["heads"], rope_axes=(8, 4, 4, 0), modalities={"video": 6, "audio": 3}, text_channels=7, **shape
    )
    blocks = data.draw(st.none() | st.integers(1, config.depth))
    model = JointTransformer(config)
    streams = {m: _stream(n, config.modalities[m]) for m, n in tokens.items()}
    noise = {m: _levels(n, levels, per_token) for m, n in tokens.items()}
    noise["text"] = _levels(n_text, text_levels, per_token)
    text = _stream(n_text, 7)

    def forward() -> list[Tensor]:
        if blocks is not None:
            out = model(streams, noise, text, features_after=(blocks,), features_only=True)
            return list(out.features[blocks].values())
        out = model(streams, noise, text, features_after=(1,))
        return [*out.velocity.values(), *(model.projector(h) for h in out.features[1].values())]

    claim = joint_forward_flops(
        config,
        tokens,
        n_text,
        levels,
        text_levels=text_levels,
        per_token=per_token,
        blocks=blocks,
        projector=blocks is None,
    )
    once, step = _count(forward)
    assert once == claim.executed
    if blocks is None and config.double_blocks:  # without any, the modulation of double blocks gets no gradient
        # Inputs take no gradient: tokens, and the sinusoids of the levels, whose layer is 256 of its 256 + D rows.
        first = claim.parts["input"] + claim.parts["levels"] * 256 // (256 + config.width)
        assert step == training_step_flops(claim).executed - first


@settings(max_examples=8)
@given(
    st.sampled_from([4, 6]),
    st.integers(1, 3),
    st.sampled_from([2.0, 4.0]),
    st.sampled_from([1, 2, 3]),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_imagenet_agrees_with_the_counter(size, depth, mlp_ratio, levels, per_token, learn_sigma, data) -> None:
    blocks = data.draw(st.none() | st.integers(1, depth))
    shape = dict(input_size=size, patch_size=2, in_channels=4, hidden_size=24, depth=depth, num_heads=2)
    shape |= dict(mlp_ratio=mlp_ratio, num_classes=5, learn_sigma=learn_sigma)
    config = ImageNetConfig(**shape)
    model = ImageNetModel(SelfFlowPerTokenDiT.from_config(config))
    n = (size // 2) ** 2
    streams, noise = {"image": _stream(n, 16)}, {"image": _levels(n, levels, per_token)}
    label = torch.tensor([3])

    def forward() -> list[Tensor]:
        if blocks is not None:
            out = model(streams, noise, label, features_after=(blocks,), features_only=True)
            return list(out.features[blocks].values())
        out = model(streams, noise, label, features_after=(1,))
        return [*out.velocity.values(), model.projector(out.features[1]["image"])]

    claim = imagenet_forward_flops(config, levels=levels, per_token=per_token, blocks=blocks, projector=blocks is None)
    once, step = _count(forward)
    assert once == claim.executed
    if blocks is None:
        first = claim.parts["input"] + claim.parts["levels"] * 256 // (256 + 24)
        assert step == training_step_flops(claim).executed - first


def test_xl_2_is_the_known_119_gflop() -> None:
    """DiT-XL/2 at 256 pixels has 118.64 GFLOPs as Peebles & Xie (2023, table 4) count them: multiply-adds."""
    forward = imagenet_forward_flops(IMAGENET_XL_2)
    assert forward.total / 2 == pytest.approx(118.64e9, rel=0.002)


def test_a_modulation_per_token_is_a_third_of_xl_2() -> None:
    """The reason for levels: 28 blocks of 6 D x D per token beside 12 D x D + attention; the limit is about 1.5."""
    grouped, expanded = (
        imagenet_forward_flops(IMAGENET_XL_2, levels=2),
        imagenet_forward_flops(IMAGENET_XL_2, per_token=True),
    )
    assert expanded.total / grouped.total == pytest.approx(1.5, abs=0.06)


def test_most_of_a_training_step_is_six_flops_per_parameter_and_token() -> None:
    """The usual rule 6 N P, which leaves attention and modulation out, for the blocks of 625m (Kaplan et al. 2020)."""
    config = preset("625m")
    forward = joint_forward_flops(config, {"image": 256}, 64, projector=True)
    d = 1152
    # A text token goes through text's half of a double block and a media token through media's.
    weights = 7 * 16 * d * d + 14 * 16 * d * d
    assert training_step_flops(forward).parts["blocks"] == 6 * weights * 320


def test_training_step_adds_the_teacher_and_recomputation() -> None:
    student = Flops({"input": 1, "blocks": 10, "attention": 4, "look-up": 2, "look-up of shifts": 1, "projector": 3})
    teacher = Flops({"input": 1, "blocks": 7})
    assert student.total == 18 and student.executed == 21
    assert training_step_flops(student).total == 54
    assert training_step_flops(student, teacher).total == 62
    again = training_step_flops(student, teacher, recompute=True)
    expected = {"input": 4, "blocks": 47, "attention": 16, "look-up": 8, "look-up of shifts": 3, "projector": 9}
    assert again.parts == expected


@pytest.mark.parametrize("blocks", [0, 22])
def test_blocks_outside_the_depth_are_refused(blocks: int) -> None:
    with pytest.raises(UserError, match="counted from 1 to 21"):
        joint_forward_flops(preset("625m"), {"image": 4}, 1, blocks=blocks)


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(UserError, match="no modality 'smell'"):
        joint_forward_flops(preset("625m"), {"smell": 4}, 1)
