"""The lean steps: their gradients against autograd's of the formulas in float64, and what they keep."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from selfflow_mm.models.layers import MANY_LEVELS, choice_of
from selfflow_mm.models.lean import gated_sum, modulated_norm, swiglu
from selfflow_mm.tokens import NoiseLevels

BATCH, TOKENS, WIDTH = 2, 90, 12


def levels(kind: str) -> NoiseLevels:
    t = torch.rand(BATCH, TOKENS)
    if kind == "each":
        return NoiseLevels.each_token(t)
    groups = {"one": 1, "few": 3, "many": MANY_LEVELS + 5}[kind]
    return NoiseLevels(torch.rand(BATCH, groups), torch.randint(0, groups, (BATCH, TOKENS)))


def leaves(*shapes, dtype=torch.float32):
    return [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]


def compare(step, formula, inputs, tolerance=2e-5):
    """Values and gradients of ``step`` against ``formula`` in float64; and the same bits with and without gradient."""
    out = step(*inputs)
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    exact = [x.detach().double().requires_grad_() for x in inputs]
    truth = formula(*exact)
    (truth * weights.double()).sum().backward()
    assert torch.allclose(out.double(), truth, atol=tolerance, rtol=tolerance)
    for mine, true in zip(inputs, exact, strict=True):
        assert mine.grad.dtype == mine.dtype
        scale = true.grad.abs().max()
        assert (mine.grad.double() - true.grad).abs().max() <= tolerance * max(1.0, float(scale))
    with torch.no_grad():
        assert torch.equal(step(*inputs), out)


@pytest.mark.parametrize("kind", ["one", "few", "many", "each"])
def test_modulated_norm(kind):
    told = levels(kind)
    choice, groups = choice_of(told), told.levels.shape[1]

    def formula(x, shift, scale):
        at = [torch.stack([rows[b][told.group[b]] for b in range(BATCH)]) for rows in (shift, scale)]
        return F.layer_norm(x, (WIDTH,), eps=1e-6) * (1 + at[1]) + at[0]

    inputs = leaves((BATCH, TOKENS, WIDTH), (BATCH, groups, WIDTH), (BATCH, groups, WIDTH))
    compare(lambda x, shift, scale: modulated_norm(x, shift, scale, choice), formula, inputs)


@pytest.mark.parametrize("kind", ["one", "few", "many", "each"])
def test_gated_sum(kind):
    told = levels(kind)
    choice, groups = choice_of(told), told.levels.shape[1]

    def formula(x, gate, y):
        return x + torch.stack([gate[b][told.group[b]] for b in range(BATCH)]) * y

    inputs = leaves((BATCH, TOKENS, WIDTH), (BATCH, groups, WIDTH), (BATCH, TOKENS, WIDTH))
    compare(lambda x, gate, y: gated_sum(x, gate, y, choice), formula, inputs)


def test_swiglu():
    def formula(x):
        gate, value = x.chunk(2, dim=-1)
        return gate * torch.sigmoid(gate) * value

    compare(swiglu, formula, leaves((BATCH, TOKENS, 2 * WIDTH)))


def test_a_branch_in_bfloat16_joins_in_float32_and_gets_its_gradient_back_in_its_own_type():
    x, gate = leaves((BATCH, TOKENS, WIDTH), (BATCH, 1, WIDTH))
    [y] = leaves((BATCH, TOKENS, WIDTH), dtype=torch.bfloat16)
    out = gated_sum(x, gate, y, None)
    assert out.dtype == torch.float32 and torch.equal(out, torch.addcmul(x, gate, y.float()))
    out.sum().backward()
    assert y.grad.dtype == torch.bfloat16 and gate.grad.dtype == torch.float32


def kept(step) -> int:
    """Bytes that the backward pass will need, inputs and all."""
    seen: dict[int, int] = {}

    def pack(x):
        seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = step()
    assert out.requires_grad
    return sum(seen.values())


def test_nothing_as_long_as_the_tokens_is_kept_for_the_modulation():
    told = levels("few")
    choice = choice_of(told)
    x, y, shift, scale, gate = leaves(*[(BATCH, TOKENS, 64)] * 2, *[(BATCH, 3, 64)] * 3)
    one = x.nbytes
    assert kept(lambda: modulated_norm(x, shift, scale, choice)) < 1.3 * one  # x itself
    assert kept(lambda: gated_sum(x, gate, y, choice)) < 1.3 * one  # y itself
    assert kept(lambda: swiglu(x)) == one
    plainly = kept(lambda: F.layer_norm(x, (64,)) * (1 + choice @ scale) + choice @ shift)
    assert plainly > 2.5 * one
