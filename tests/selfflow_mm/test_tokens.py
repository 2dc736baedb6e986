"""Token streams and noise levels against the plain per-token picture of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_mm.tokens import NoiseLevels, TokenStream


def stream(batch: int, tokens: int, channels: int = 3) -> TokenStream:
    return TokenStream.dense(torch.randn(batch, tokens, channels), torch.zeros(tokens, 4))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 1000))
def test_dual_and_given_expand_to_what_they_mean(batch, tokens, seed):
    torch.manual_seed(seed)
    t, s = torch.rand(batch), torch.rand(batch)
    mask, handed = torch.rand(batch, tokens) < 0.5, torch.rand(batch, tokens) < 0.3
    sample = torch.zeros(batch, tokens, dtype=torch.int64)
    levels = NoiseLevels.dual(t, s, mask, sample)
    expected = torch.where(mask, s[:, None], t[:, None])
    assert torch.equal(levels.per_token(), expected)
    assert torch.equal(levels.given(handed, 0.125).per_token(), expected.masked_fill(handed, 0.125))
    assert torch.equal(NoiseLevels.uniform(t, sample).per_token(), t[:, None].expand(batch, tokens))


def test_packed_samples_have_levels_of_their_own():
    sample = torch.tensor([[0, 0, 1, 1, 1, -1]])
    t, s = torch.tensor([[0.1, 0.2]]), torch.tensor([[0.8, 0.9]])
    mask = torch.tensor([[False, True, False, True, False, False]])
    got = NoiseLevels.dual(t, s, mask, sample).per_token()[0, :5]
    assert torch.equal(got, torch.tensor([0.1, 0.8, 0.2, 0.9, 0.2]))


def test_concatenation_keeps_every_tokens_level():
    sample = torch.zeros(2, 3, dtype=torch.int64)
    a = NoiseLevels.uniform(torch.tensor([0.1, 0.2]), sample)
    b = NoiseLevels.dual(torch.tensor([0.3, 0.4]), torch.tensor([0.5, 0.6]), sample == 0, sample)
    both = NoiseLevels.concatenate([a, b])
    assert torch.equal(both.per_token(), torch.cat([a.per_token(), b.per_token()], dim=1))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_padding_marks_exactly_the_missing_tokens(lengths):
    parts = [stream(1, n) for n in lengths]
    padded = TokenStream.pad(parts)
    assert padded.valid.sum(1).tolist() == lengths
    for row, part in enumerate(parts):
        assert torch.equal(padded.values[row, : lengths[row]], part.values[0])
    assert padded.full == (len(set(lengths)) == 1)


@given(length=st.integers(1, 20), of=st.integers(1, 9))
def test_padding_goes_to_the_next_multiple(length, of):
    plain = stream(2, length)
    padded = plain.padded_to_multiple(of)
    expected = next(n for n in range(length, length + of) if n % of == 0)
    assert padded.values.shape[1] == padded.positions.shape[1] == expected
    assert padded.valid.sum(1).tolist() == [length, length] and padded.full == (expected == length)
    assert torch.equal(padded.until(length).values, plain.values)


def test_wrong_shapes_are_refused_in_a_sentence():
    with pytest.raises(UserError, match=r"positions have shape \(2, 5, 4\)"):
        TokenStream(torch.zeros(2, 5, 3), torch.zeros(2, 4, 4), torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(UserError, match="noise levels are"):
        NoiseLevels(torch.zeros(2, 1), torch.zeros(3, 5, dtype=torch.int64))
