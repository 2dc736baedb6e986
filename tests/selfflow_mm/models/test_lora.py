"""LoRA against its formula: outputs, gradients and counts by hand, and nothing but the small matrices moves."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from selfflow_mm.errors import UserError
from selfflow_mm.models import JointConfig, JointTransformer
from selfflow_mm.models.lora import (
    KINDS,
    LoRAConfig,
    LoRALinear,
    add_lora,
    load_lora,
    lora_state,
    merge_lora,
    trainable,
)
from selfflow_mm.tokens import NoiseLevels, TokenStream
from selfflow_mm.training.checkpoint import (
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
)
from selfflow_mm.training.ema import copy_for_ema, update
from selfflow_mm.training.recompute import recompute_blocks

SHAPE = JointConfig(
    width=32, heads=2, double_blocks=1, single_blocks=2, mlp_ratio=2, rope_axes=(8, 4, 4, 0), bias=False,
    modalities={"video": 6, "action": 5}, text_channels=7,
)  # fmt: skip
LORA = LoRAConfig(rank=4, alpha=8.0, full=(r"media_(in|out)\.action",))
BLOCK_LAYERS = ["qkv", "proj", "mlp.up", "mlp.down"]


def plain(seed: int = 0, shape: JointConfig = SHAPE) -> JointTransformer:
    torch.manual_seed(seed)
    model = JointTransformer(shape)
    for parameter in model.parameters():  # nothing at zero, or closed gates would hide everything
        nn.init.normal_(parameter, std=0.2)
    return model


def adapted(config: LoRAConfig = LORA, seed: int = 0, b: float = 0.1) -> JointTransformer:
    """``plain(seed)`` with LoRA whose B are random."""
    model = plain(seed)
    add_lora(model, config)
    for layer in model.modules():
        if isinstance(layer, LoRALinear):
            nn.init.normal_(layer.lora_b, std=b)
    return model


def call(model: nn.Module, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)

    def dense(tokens: int, channels: int) -> TokenStream:
        positions = torch.rand(tokens, 4, generator=generator) * 3
        return TokenStream.dense(torch.randn(2, tokens, channels, generator=generator), positions)

    streams, text = {"video": dense(6, 6), "action": dense(4, 5)}, dense(3, 7)
    t = torch.tensor([0.2, 0.7])
    levels = {m: NoiseLevels.uniform(t, s.sample) for m, s in {**streams, "text": text}.items()}
    return model(streams, levels, text).velocity


def loss(model: nn.Module, seed: int = 0) -> torch.Tensor:
    return sum((v**2).mean() for v in call(model, seed).values())


def sums(model: nn.Module) -> dict[str, torch.Tensor]:
    """W + (alpha / rank) B A of every layer with LoRA, by hand."""
    state = model.state_dict()
    return {
        name.removesuffix("lora_a") + "weight": state[name.removesuffix("lora_a") + "weight"]
        + LORA.alpha / LORA.rank * state[name.removesuffix("lora_a") + "lora_b"] @ a
        for name, a in state.items()
        if name.endswith("lora_a")
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.floats(0.1, 4), st.booleans(), st.data())
def test_the_layer_is_its_formula(batch, wide, high, scale, bias, data):
    rank = data.draw(st.integers(1, min(wide, high)))
    torch.manual_seed(batch)
    linear = nn.Linear(wide, high, bias=bias).double()
    layer = LoRALinear(linear, rank, scale)
    assert (layer.lora_b == 0).all() and layer.lora_a.abs().max() <= wide**-0.5
    x = torch.randn(3, batch, wide, dtype=torch.float64)
    assert torch.equal(layer(x), linear(x))
    nn.init.normal_(layer.lora_b)
    weight = linear.weight + scale * layer.lora_b @ layer.lora_a
    expected = F.linear(x, weight, linear.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.merged()(x), expected, rtol=1e-12, atol=1e-12)


def test_a_model_starts_as_it_was():
    model, fresh = plain(), plain()
    names = add_lora(model, LORA)
    assert names == [
        *(f"double_blocks.0.{half}.{layer}" for half in ("text", "media") for layer in BLOCK_LAYERS),
        *(f"single_blocks.{i}.{layer}" for i in range(2) for layer in ("up", "down")),
    ]
    for name, parameter in fresh.named_parameters():  # PyTorch rounds products otherwise if a weight takes gradients
        parameter.requires_grad_(dict(model.named_parameters())[name].requires_grad)
    for m, velocity in call(fresh).items():
        assert torch.equal(call(model)[m], velocity)
    assert [name for name in model.state_dict() if "lora_" not in name] == list(fresh.state_dict())


def test_rank_0_is_no_lora():
    model = plain()
    assert add_lora(model, LoRAConfig()) == []
    assert len(trainable(model)) == len(list(model.parameters()))
    assert not any(isinstance(m, LoRALinear) for m in model.modules())
    with pytest.raises(UserError, match="has no LoRA"):
        lora_state(model)


def test_the_kinds_are_the_layers_of_the_blocks_and_the_modulations():
    model = plain()
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    names = add_lora(model, LoRAConfig(rank=1, targets=tuple(KINDS)))
    assert set(names) == {n for n in linear if "_blocks." in n or n.endswith("modulation.linear")}


def test_outputs_are_those_of_a_plain_model_with_the_sums_as_weights():
    model, by_hand = adapted(), plain()
    by_hand.load_state_dict({**by_hand.state_dict(), **sums(model)})
    for m, velocity in call(by_hand).items():
        torch.testing.assert_close(call(model)[m], velocity)
        assert (call(plain())[m] - velocity).abs().max() > 0.01


def test_merging_gives_a_plain_model_that_computes_the_same():
    model, shape = adapted(), plain().state_dict()
    before, expected = call(model), sums(model)
    merge_lora(model)
    state = model.state_dict()
    assert list(state) == list(shape)
    assert not any(isinstance(m, LoRALinear) for m in model.modules())
    for name, weight in expected.items():
        torch.testing.assert_close(state[name], weight, rtol=1e-6, atol=1e-6)
    for m, velocity in call(model).items():
        torch.testing.assert_close(velocity, before[m])
    plain().load_state_dict(state)  # strict
    add_lora(model, LORA)  # and once more


def test_the_trained_parameters_in_closed_form():
    model = plain()
    base = sum(p.numel() for p in model.parameters())
    add_lora(model, LORA)
    d, hidden, r = SHAPE.width, SHAPE.hidden, LORA.rank
    half = (d + 3 * d) + (d + d) + (d + 2 * hidden) + (hidden + d)
    single = (d + 3 * d + 2 * hidden) + (d + hidden + d)
    own = r * (2 * half * SHAPE.double_blocks + single * SHAPE.single_blocks)
    full = 2 * d * SHAPE.modalities["action"]
    assert sum(p.numel() for p in trainable(model)) == own + full
    assert sum(p.numel() for p in model.parameters()) == base + own
    assert sum(t.numel() for t in lora_state(model).values()) == own + full


def test_gradients_by_the_chain_rule():
    """G = dL/dW of a plain model with the sum as W; then dB = s G A^T and dA = s B^T G, and the base has none."""
    model, by_hand = adapted(), plain()
    by_hand.load_state_dict({**by_hand.state_dict(), **sums(model)})
    loss(model).backward()
    loss(by_hand).backward()
    theirs = dict(by_hand.named_parameters())
    s = LORA.alpha / LORA.rank
    seen = 0
    for name, layer in model.named_modules():
        if isinstance(layer, LoRALinear):
            g = theirs[f"{name}.weight"].grad
            torch.testing.assert_close(layer.lora_b.grad, s * g @ layer.lora_a.T, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(layer.lora_a.grad, s * layer.lora_b.T @ g, rtol=1e-4, atol=1e-5)
            seen += 1
    assert seen == 12
    for name, parameter in model.named_parameters():
        trained = "lora_" in name or name in ("media_in.action.weight", "media_out.action.weight")
        assert (parameter.grad is not None) == trained, name
        if trained and "lora_" not in name:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-4, atol=1e-5)


def train(model, ema, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        loss(model, step).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update(ema, model, 0.75)


def test_steps_change_only_what_may_change():
    model, before = plain(), plain().state_dict()
    add_lora(model, LORA)
    start = {n: t.clone() for n, t in model.state_dict().items()}
    ema = copy_for_ema(model)
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-2, weight_decay=0.1)
    train(model, ema, optimizer, range(2))
    free = set(lora_state(model))
    for name, tensor in model.state_dict().items():
        if name in free:
            assert not torch.equal(tensor, start[name]), name
        else:
            assert torch.equal(tensor, before[name]) and torch.equal(ema.state_dict()[name], before[name])
    assert not trainable(ema) and set(lora_state(ema)) == free


def test_the_teacher_is_the_average_of_the_small_matrices():
    model = plain()
    add_lora(model, LORA)
    ema = copy_for_ema(model)
    assert not {p.data_ptr() for p in ema.parameters()} & {p.data_ptr() for p in model.parameters()}
    a0 = {n: t.clone() for n, t in lora_state(model).items()}
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-2)
    train(model, ema, optimizer, [0])
    for name, tensor in lora_state(ema).items():
        torch.testing.assert_close(tensor, 0.75 * a0[name] + 0.25 * lora_state(model)[name])


def test_a_checkpoint_goes_on_to_the_same_bits(tmp_path):
    def build():
        model = plain()
        add_lora(model, LORA)
        return model, copy_for_ema(model), torch.optim.AdamW(trainable(model), lr=1e-2, weight_decay=0.1)

    whole = build()
    train(*whole, range(4))
    half = build()
    train(*half, range(2))
    model, ema, optimizer = half
    groups = {"model": model.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer_tensors(optimizer, model)}
    _, tensors, _ = load_checkpoint(save_checkpoint(tmp_path, 2, groups, {}))
    torch.manual_seed(9)
    model, ema, optimizer = build()
    model.load_state_dict(tensors["model"])
    ema.load_state_dict(tensors["ema"])
    load_optimizer_tensors(optimizer, model, tensors["optimizer"])
    assert len(tensors["optimizer"]) == 3 * len(lora_state(model))
    train(model, ema, optimizer, range(2, 4))
    for mine, other in ((model, whole[0]), (ema, whole[1])):
        assert all(torch.equal(t, other.state_dict()[n]) for n, t in mine.state_dict().items())


def test_a_file_of_the_small_tensors_carries_what_was_learnt(tmp_path):
    model = adapted()
    nn.init.normal_(model.media_in["action"].weight)
    state = lora_state(copy_for_ema(model))
    save_file(state, tmp_path / "lora.safetensors")
    other = plain()
    add_lora(other, LORA)
    load_lora(other, load_file(tmp_path / "lora.safetensors"))
    for m, velocity in call(model).items():
        assert torch.equal(call(other)[m], velocity)


def test_the_first_draw_depends_on_the_generators_seed():
    drawn = []
    for seed in (1, 1, 2):
        model = plain()
        torch.manual_seed(seed)
        add_lora(model, LORA)
        drawn.append({n: t for n, t in lora_state(model).items() if n.endswith("lora_a")})
    assert all(torch.equal(drawn[0][n], drawn[1][n]) for n in drawn[0])
    assert not any(torch.equal(drawn[0][n], drawn[2][n]) for n in drawn[0])


def test_under_autocast_matrices_are_bfloat16_and_gradients_float32():
    model = adapted()
    exact = call(model)
    with torch.autocast("cpu", torch.bfloat16):
        layer = model.single_blocks[0].up
        assert layer(torch.randn(2, 32)).dtype == torch.bfloat16
        velocity = call(model)
        total = sum((v.float() ** 2).mean() for v in velocity.values())
    total.backward()
    for m in exact:
        assert (velocity[m].float() - exact[m]).norm() < 0.05 * exact[m].norm()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in trainable(model))


def test_recomputed_blocks_give_the_same_gradients():
    model, other = adapted(), recompute_blocks(adapted())
    loss(model).backward()
    loss(other).backward()
    for mine, theirs in zip(trainable(model), trainable(other), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_it_compiles_without_a_break_in_the_graph():
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(8, 6), 2, 0.5)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(3, 8)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), layer(x))


def test_what_is_trained_in_full_gets_no_lora():
    model = plain()
    names = add_lora(model, replace(LORA, full=(r"single_blocks\.1", "projector", "level.up.weight")))
    assert not any(name.startswith("single_blocks.1") for name in names)
    free = {name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name}
    expected = {n for n in plain().state_dict() if n.startswith(("single_blocks.1.", "projector."))}
    assert free == expected | {"level.up.weight"}


def test_biases_are_frozen_unless_named():
    model = plain()
    add_lora(model, replace(LORA, full=(r".*\.qkv_bias",)))
    free = {name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name}
    assert free == {"single_blocks.0.qkv_bias", "single_blocks.1.qkv_bias"}
    qkv = model.double_blocks[0].media.qkv
    assert isinstance(qkv, LoRALinear) and qkv.bias is not None and not qkv.bias.requires_grad


def test_kinds_that_a_model_has_none_of_are_left_out():
    model = plain(shape=replace(SHAPE, double_blocks=0))
    assert all(name.startswith("single_blocks") for name in add_lora(model, replace(LORA, full=())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ("attntion",)}, "target 'attntion' fits no linear layer"),
        ({"targets": ()}, "no layer of the model"),
        ({"full": ("media_in.touch",)}, "full 'media_in.touch' fits no layer"),
        ({"full": ("double_blocks", "single_blocks")}, "no layer of the model"),
        ({"rank": 33}, "rank 33 is more than the 32 channels"),
    ],
)
def test_a_config_that_does_not_fit_leaves_the_model_alone(change, message):
    model = plain()
    with pytest.raises(UserError, match=message):
        add_lora(model, replace(LORA, **change))
    assert len(trainable(model)) == len(list(model.parameters()))
    assert list(model.state_dict()) == list(plain().state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": -1}, "rank"),
        ({"rank": 2, "alpha": 0.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"targets": ("(",)}, "no regular expression"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        LoRAConfig(**settings)


def test_weights_of_another_lora_are_refused_and_nothing_changes():
    model = adapted()
    before = copy.deepcopy(model.state_dict())
    other = lora_state(adapted(replace(LORA, rank=2), seed=1))
    with pytest.raises(UserError, match="use the rank"):
        load_lora(model, other)
    own = lora_state(adapted(seed=1))
    last = list(own)[-1]
    with pytest.raises(UserError, match=f"'{last}' is missing"):
        load_lora(model, {n: t for n, t in own.items() if n != last})
    with pytest.raises(UserError, match="'extra' belongs to no layer"):
        load_lora(model, {**own, "extra": torch.zeros(1)})
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    with pytest.raises(UserError, match="already"):
        add_lora(model, LORA)
