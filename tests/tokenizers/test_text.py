"""The byte text encoder: geometry of words, and numbers that never change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_tokenizers import ByteTextEncoder, UserError
from selfflow_tokenizers.text import PIECE_BYTES, _codes, split

WORDS = (
    "red blue green yellow ball cube cone falls bounces rolls metal wood rubber glass left right small large".split()
)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=-1))


def word(text: str) -> torch.Tensor:
    return ByteTextEncoder().encode([text]).values[0, 0]


def test_words_are_as_near_as_the_letters_they_share() -> None:
    """Of n and m letters, k at the same places: the cosine is k / sqrt(n m), up to the chance of 192 channels."""
    apart = []
    for i, a in enumerate(WORDS):
        for b in WORDS[:i]:
            shared = sum(x == y for x, y in zip(a, b, strict=False))
            assert cosine(word(a), word(b)) == pytest.approx(shared / (len(a) * len(b)) ** 0.5, abs=0.25)
            apart += [abs(cosine(word(a), word(b)))] if not shared else []
    assert sum(apart) / len(apart) < 0.1  # 1 / sqrt(192) is 0.07


@pytest.mark.parametrize(("right", "wrong"), [("yellow", "yelow"), ("bounces", "bounses"), ("metal", "matal")])
def test_misspellings_stay_near(right: str, wrong: str) -> None:
    others = [cosine(word(right), word(w)) for w in WORDS if w != right]
    assert cosine(word(right), word(wrong)) > max(0.3, max(others))


def test_codes_are_standard_normal() -> None:
    codes = _codes(192)
    assert abs(codes.mean()) < 0.005 and abs(codes.std() - 1) < 0.005
    assert abs((codes**4).mean() - 3) < 0.05  # kurtosis of a normal distribution
    flat = codes.reshape(-1, 192)
    assert abs(np.corrcoef(flat[:, 0], flat[:, 1])[0, 1]) < 0.05


def test_the_generator_is_splitmix64() -> None:
    """First outputs for seed 0 as published with the algorithm (and in java.util.SplittableRandom)."""
    from selfflow_tokenizers.text import _uniform

    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    expected = [((x >> 11) + 1) * 2.0**-53 for x in published]
    assert _uniform(np.arange(3, dtype=np.uint64)).tolist() == expected


def test_the_empty_text_is_one_end_token() -> None:
    stream = ByteTextEncoder().encode(["", "a ball"])
    assert stream.sample.tolist() == [[0, -1, -1], [0, 0, 0]]
    assert torch.equal(stream.values[0, 0], stream.values[1, 2])


def test_positions_count_tokens() -> None:
    positions = ByteTextEncoder().encode(["one two three"]).positions[0]
    assert positions.tolist() == [[0, 0, 0, i] for i in range(4)]


def test_case_and_white_space_do_not_matter() -> None:
    encoder = ByteTextEncoder()
    assert torch.equal(encoder.encode(["A  Red\tball\n"]).values, encoder.encode(["a red ball"]).values)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_any_text_has_pieces_of_at_most_twelve_bytes(text: str) -> None:
    pieces = split(text)
    assert all(1 <= len([b for b in p if b < 256]) <= PIECE_BYTES for p in pieces)
    kept = bytes(b for p in pieces for b in p if b < 256)
    assert kept == b"".join(w.encode("utf-8", errors="replace") for w in text.lower().split())
    values = ByteTextEncoder(64).encode([text]).values
    assert values.shape == (1, min(len(pieces) + 1, 256), 64) and bool(torch.isfinite(values).all())


def test_variance_is_one() -> None:
    values = ByteTextEncoder(1024).encode([" ".join(WORDS)]).values
    torch.testing.assert_close(values.var(-1), torch.ones(1, len(WORDS) + 1), atol=0.2, rtol=0)


def test_a_long_word_is_not_two_words() -> None:
    assert split("a" * 24) != split("a" * 12 + " " + "a" * 12)
    assert len(split("ü" * 7)) == 2  # 14 bytes


def test_long_texts_are_cut_before_the_end_token() -> None:
    encoder = ByteTextEncoder(max_tokens=4)
    values = encoder.encode(["a b c d e f", ""]).values
    assert values.shape[1] == 4
    assert torch.equal(values[0, 3], values[1, 0])


def test_one_text_must_be_in_a_list() -> None:
    with pytest.raises(UserError, match="list"):
        ByteTextEncoder().encode("a red ball")
