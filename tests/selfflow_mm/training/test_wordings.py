"""Which captions a step sees: shares of kinds against their closed form, none set as ever, refusals."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_mm.config import from_dict
from selfflow_mm.errors import UserError
from selfflow_mm.randomness import Randomness
from selfflow_mm.training.batches import Batches
from selfflow_mm.training.config import SourceConfig
from selfflow_mm.training.packing import PackedBatches
from selfflow_mm.training.wordings import Wordings
from selfflow_tokenizers import ByteTextEncoder, TokenStream
from tests.selfflow_mm.training.toy import Latents

KINDS = ("full", "short", "audio")


class Listening(ByteTextEncoder):
    """Keeps the captions that it is given to encode."""

    def __init__(self) -> None:
        super().__init__(channels=6)
        self.heard: list[str] = []

    def encode(self, captions: list[str]) -> TokenStream:
        self.heard += captions
        return super().encode(captions)


def latents(*kinds: tuple[str, ...]) -> Latents:
    """Samples whose captions are their number, their kind and which of that kind they are."""
    data = Latents({"audio": 5}, len(kinds))
    data.captions = [
        tuple(f"{i} {kind} {own[:k].count(kind)}" for k, kind in enumerate(own)) for i, own in enumerate(kinds)
    ]
    data.caption_kinds = list(kinds)
    data.having = lambda modalities: list(range(len(kinds)))
    return data


def heard(data: Latents, shares: dict[str, float], steps: int, pack: int = 0, dropout: float = 0.0) -> list[str]:
    config = SourceConfig("", {"t2a": 1.0}, batch=8, captions=shares)
    before = Latents({"audio": 3}, 11)  # whose ids come first
    sources: Any = {"x": (SourceConfig("", {"t2a": 1.0}, ratio=0.0), before), "y": (config, data)}
    text = Listening()
    batches: Batches = Batches(sources, text, 5, dropout)
    if pack:
        batches = PackedBatches(sources, text, 5, dropout, budget=pack)
    for step in range(steps):
        batches.at(step)
    return text.heard


def test_without_shares_a_caption_is_what_it_was_in_every_release():
    """Written out: the second of two numbers for (seed, "caption", step, global id) is the caption's place."""
    data = latents(KINDS, ("full", "short"), ("audio",), ())
    config = SourceConfig("", {"t2a": 1.0}, batch=4)
    text = Listening()
    batches: Batches = Batches({"x": (config, data)}, text, 7, 0.3)  # type: ignore[dict-item]
    for step in range(40):
        ids = batches.at(step)[2].ids
        u = Randomness(7).uniform("caption", step, ids, 2).tolist()
        captions = [data.captions[i] for i in ids.tolist()]
        expected = [c[int(b * len(c))] if c and a >= 0.3 else "" for c, (a, b) in zip(captions, u, strict=True)]
        assert text.heard[-4:] == expected
    assert len(set(text.heard)) == 7


@pytest.mark.parametrize(("pack", "steps"), [(0, 300), (1000, 25)])
def test_kinds_are_drawn_by_their_shares_of_those_that_a_sample_has(pack, steps):
    shares = {"full": 0.5, "short": 0.3, "audio": 0.2}
    # As many samples as a packed step holds: a sample that is in a step twice has one caption there.
    data = latents(*[KINDS, ("short", "audio"), ("audio", "full", "full")] * 50)
    texts = (caption.partition(" ") for caption in heard(data, shares, steps, pack))
    found = Counter((int(number) % 3, rest) for number, _, rest in texts)
    expected = {
        (0, "full 0"): 0.5, (0, "short 0"): 0.3, (0, "audio 0"): 0.2,
        (1, "short 0"): 0.6, (1, "audio 0"): 0.4,
        (2, "audio 0"): 2 / 7, (2, "full 0"): 2.5 / 7, (2, "full 1"): 2.5 / 7,
    }  # fmt: skip
    assert set(found) == set(expected)
    for sample in range(3):
        own = {caption: share for caption, share in expected.items() if caption[0] == sample}
        drawn = sum(found[caption] for caption in own)
        assert drawn > 700
        chi_square = sum((found[c] - drawn * share) ** 2 / (drawn * share) for c, share in own.items())
        assert chi_square < 13.8  # beyond it is one in a thousand, with two degrees of freedom


def test_the_same_step_and_sample_have_the_same_caption_and_drops_are_those_without_shares():
    data = latents(*[KINDS] * 9)
    shares = {"full": 1.0, "audio": 3.0}
    first, again = (heard(data, shares, 50, dropout=0.3) for _ in range(2))
    assert first == again and len(set(first)) == 19
    uniform = heard(data, {}, 50, dropout=0.3)
    assert [caption == "" for caption in uniform] == [caption == "" for caption in first]


@settings(max_examples=40)
@given(
    kinds=st.lists(st.sampled_from("abcd"), min_size=1, max_size=6),
    shares=st.fixed_dictionaries({kind: st.floats(0.01, 10) | st.just(0.0) for kind in "abcd"}),
    least=st.floats(0.01, 1),
)
def test_any_shares_of_any_kinds(kinds, shares, least):
    """Of 500 even steps of u each caption has its share, split among those of its kind, to one step at each edge."""
    shares[kinds[0]] = max(shares[kinds[0]], least)
    whole = sum(shares[kind] for kind in set(kinds))
    wordings = Wordings("x", latents(tuple(kinds), tuple("abcd")), shares)
    found = Counter(wordings.draw(0, (n + 0.5) / 500) for n in range(500))
    for kind in set(kinds):
        for k in range(kinds.count(kind)):
            share = shares[kind] / kinds.count(kind) / whole
            assert found[f"0 {kind} {k}"] == pytest.approx(500 * share, abs=1.001)
            assert share > 0 or found[f"0 {kind} {k}"] == 0


def test_a_sample_without_captions_has_none():
    data = latents(KINDS, ())
    assert Wordings("x", data, {"full": 1.0}).draw(1, 0.5) == "" and Wordings("x", data, {}).draw(1, 0.5) == ""


def refused(data: Latents, shares: dict[str, float]) -> str:
    with pytest.raises(UserError) as caught:
        Batches({"world": (SourceConfig("", {"t2a": 1.0}, captions=shares), data)}, Listening(), 0, 0.0)  # type: ignore[dict-item]
    return str(caught.value)


def test_shares_that_samples_cannot_keep_are_refused():
    unknown = latents(KINDS, ())
    unknown.caption_kinds = [(), ()]
    said = refused(unknown, {"full": 1.0})
    assert said.startswith("data.sources.world.captions is set, and made-up does not say of what kinds captions are")
    assert "remove that folder and encode them again" in said
    said = refused(latents(KINDS, ("visual",)), {"full": 1.0, "fulll": 0.5, "sort": 0.0})
    assert said == (
        "data.sources.world.captions names 'fulll' and 'sort', which no caption in made-up is; the kinds are audio, "
        "full, short, visual"
    )
    said = refused(latents(KINDS, ("visual", "visual", "audio")), {"full": 1.0, "audio": 0.0})
    assert "no share for a caption of sample 1 of made-up, whose kinds are visual, audio; give one of them" in said
    some = latents(KINDS, KINDS)
    some.caption_kinds[1] = ()
    assert "sample 1 of made-up does not say of what kinds its captions are" in refused(some, {"full": 1.0})


def test_kinds_do_not_matter_where_no_shares_are_set():
    data = latents(KINDS)
    del data.caption_kinds
    assert len(set(heard(data, {}, 20))) == 3


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        ({"full": -0.1, "short": 1}, "captions.full is a share and cannot be negative, got -0.1"),
        ({"full": 0}, "captions needs at least one kind with a positive share"),
    ],
)
def test_shares_that_are_none_are_refused(captions, said):
    with pytest.raises(UserError, match=said):
        from_dict(SourceConfig, {"path": "a", "tasks": {"t2a": 1.0}, "captions": captions})
