"""Attention backends against softmax written out in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_mm.models.attention import BACKENDS, Pattern, attention


def written_out(q, k, v, sample, condition):
    """Row by row, key by key; what a pattern means, in words: own sample only, and conditions see conditions only."""
    batch, heads, tokens, width = q.shape
    out = torch.zeros(batch, tokens, heads, width, dtype=torch.float64)
    for b in range(batch):
        for i in range(tokens):
            keys = [
                j
                for j in range(tokens)
                if (sample is None or sample[b, i] == sample[b, j])
                and (condition is None or not condition[b, i] or condition[b, j])
            ]
            scores = (q[b, :, i, None].double() * k[b][:, keys].double()).sum(-1) / width**0.5
            out[b, i] = (scores.softmax(-1)[..., None] * v[b][:, keys].double()).sum(1)
    return out.flatten(2)


@settings(max_examples=15)
@given(
    batch=st.integers(1, 2),
    tokens=st.integers(1, 9),
    samples=st.integers(0, 3),
    isolated=st.booleans(),
    seed=st.integers(0, 99),
)
def test_backends_agree_with_the_definition(batch, tokens, samples, isolated, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, batch, 2, tokens, 4, generator=generator)
    sample = torch.randint(-1, samples, (batch, tokens), generator=generator) if samples else None
    condition = torch.rand(batch, tokens, generator=generator) < 0.4 if isolated else None
    expected = written_out(q, k, v, sample, condition)
    for backend in BACKENDS:
        got = attention(backend, Pattern(sample, condition))(q, k, v)
        assert got.shape == (batch, tokens, 8)
        assert torch.allclose(got.double(), expected, atol=1e-5), backend


def test_flex_says_that_it_cannot_train_on_a_cpu():
    q = torch.randn(1, 2, 6, 4, requires_grad=True)
    with pytest.raises(UserError, match="flex attention cannot train on a CPU"):
        attention("flex", Pattern(torch.zeros(1, 6, dtype=torch.int64)))(q, q, q)


def test_gradients_agree_between_backends():
    torch.manual_seed(0)
    pattern = Pattern(torch.tensor([[0, 1, 0, 1, -1, 0]]), torch.tensor([[1, 1, 0, 0, 0, 0]]).bool())
    found = []
    for backend in ("sdpa", "varlen"):
        q, k, v = (torch.randn(1, 2, 6, 4, generator=torch.Generator().manual_seed(i)) for i in range(3))
        leaves = [x.requires_grad_() for x in (q, k, v)]
        attention(backend, pattern)(*leaves).square().sum().backward()
        found.append([x.grad for x in leaves])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_pattern_that_hides_nothing_costs_no_mask():
    assert Pattern().dense
    q = torch.randn(1, 2, 5, 4)
    for backend in BACKENDS:
        assert torch.allclose(
            attention(backend, Pattern())(q, q, q).double(), written_out(q, q, q, None, None), atol=1e-5
        )


def test_unknown_backend_is_refused():
    with pytest.raises(UserError, match="no attention backend 'flash9'; one of sdpa, flex, varlen"):
        attention("flash9", Pattern())


@pytest.mark.accelerator
@pytest.mark.parametrize("backend", list(BACKENDS))
def test_backends_agree_in_bfloat16_on_an_accelerator(backend):
    q, k, v = torch.randn(3, 2, 4, 96, 64, device="cuda", dtype=torch.bfloat16)
    sample = torch.arange(96, device="cuda").expand(2, -1) // 40
    condition = (torch.arange(96, device="cuda") % 5 == 0).expand(2, -1)
    got = attention(backend, Pattern(sample, condition))(q, k, v).cpu()
    expected = written_out(q.cpu(), k.cpu(), v.cpu(), sample.cpu(), condition.cpu())
    assert torch.allclose(got.double(), expected, atol=3e-2)
