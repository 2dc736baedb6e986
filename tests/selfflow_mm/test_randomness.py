"""Counter-based randomness: the published test vectors of Philox, and independence of how it is asked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from selfflow_mm.randomness import Randomness, philox4x32

# Random123 1.14, kat_vectors: "philox4x32 10 <counter> <key> <result>".
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_matches_published_vectors(counter, key, expected):
    words = philox4x32(tuple(torch.tensor([c]) for c in counter), key)
    assert tuple(int(w) for w in words) == expected


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2**31), min_size=2, max_size=6, unique=True), st.integers(1, 40), st.integers(0, 10**6))
def test_a_sample_sees_the_same_numbers_in_any_batch(ids, n, step):
    random = Randomness(7)
    together = random.normal("noise", step, torch.tensor(ids), n)
    alone = [random.normal("noise", step, torch.tensor([i]), n) for i in ids]
    assert torch.equal(together, torch.cat(alone))


def test_distributions():
    random = Randomness(1)
    ids = torch.arange(500)
    uniform = random.uniform("u", 3, ids, 101).flatten().double().numpy()
    normal = random.normal("n", 3, ids, 101).flatten().double().numpy()
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    assert uniform.min() > 0 and uniform.max() < 1


def test_purpose_step_sample_and_seed_all_matter():
    ids = torch.arange(4)
    base = Randomness(1).uniform("a", 0, ids, 8)
    others = [
        Randomness(2).uniform("a", 0, ids, 8),
        Randomness(1 + 2**32).uniform("a", 0, ids, 8),
        Randomness(1).uniform("b", 0, ids, 8),
        Randomness(1).uniform("a", 1, ids, 8),
        Randomness(1).uniform("a", 0, ids + 1, 8),
    ]
    assert not any(torch.equal(base, other) for other in others)
    assert torch.equal(base, Randomness(1).uniform("a", 0, ids, 8))


def test_permutation_is_one_and_changes_with_the_epoch():
    a, b = Randomness(0).permutation("order", 0, 1000), Randomness(0).permutation("order", 1, 1000)
    assert sorted(a.tolist()) == list(range(1000)) == sorted(b.tolist())
    assert not torch.equal(a, b)


def test_integers_stay_below_and_reach_all():
    drawn = [Randomness(0).integer("x", step, 5) for step in range(200)]
    assert set(drawn) == set(range(5))
