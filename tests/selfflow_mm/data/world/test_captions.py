"""Captions of the world are true, read back exactly, and keep what is held out apart."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.data.world.captions import Caption, make_captions
from selfflow_mm.data.world.constants import FPS
from selfflow_mm.data.world.events import list_events
from selfflow_mm.data.world.forms import FORMS
from selfflow_mm.data.world.grammar import Claims, Named, claims_of, hear, parse, say
from selfflow_mm.data.world.holdout import HELD_OUT_COLOURS, HELD_OUT_MATERIALS, HELD_OUT_WORDS, NOVELTIES, Novelty
from selfflow_mm.data.world.physics import Motion
from selfflow_mm.data.world.scene import Scene
from selfflow_mm.data.world.stories import draw_clip
from selfflow_mm.data.world.vocabulary import COLOURS, MATERIALS, SHAPES, WORDS
from selfflow_mm.errors import UserError

Told = tuple[Scene, Motion, tuple[Caption, ...]]

NAMED = st.builds(
    Named,
    st.sampled_from(SHAPES),
    st.none() | st.sampled_from(COLOURS),
    st.none() | st.sampled_from(MATERIALS),
    st.none() | st.sampled_from(WORDS),
)
PLACES = st.fixed_dictionaries(
    {
        "on": st.sampled_from(("on the left", "in the middle", "on the right")),
        "from": st.sampled_from(("from the left", "from the right")),
        "to": st.sampled_from(("to the left", "to the right")),
    }
)
PAIRS = st.lists(st.sampled_from(MATERIALS), min_size=2, max_size=2, unique=True).map("+".join)
HEADS = st.sampled_from(("rolling", "scraping", "softer", "softer ones", *MATERIALS)) | PAIRS
SOUNDS = st.lists(HEADS, min_size=1, max_size=5).map(tuple)


def tell(number: int, novelty: Novelty | None) -> Told:
    rng = np.random.Generator(np.random.Philox(key=[23, number]))
    scene, motion = draw_clip(rng, novelty)
    return scene, motion, make_captions(rng, scene, motion, held_out=novelty == "form")


@pytest.fixture(scope="module")
def train() -> list[Told]:
    return [tell(number, None) for number in range(180)]


@pytest.fixture(scope="module")
def test() -> list[tuple[Novelty, Told]]:
    return [(novelty, tell(number, novelty)) for number in range(20) for novelty in NOVELTIES]


@given(st.lists(NAMED, min_size=3, max_size=3), st.sampled_from(WORDS), PLACES)
def test_every_sentence_is_parsed_to_what_it_claims(objects, sign, places) -> None:
    for form in FORMS:
        assert parse(say(form, objects, sign, places)) == claims_of(form, objects, sign, places)


@given(SOUNDS, st.booleans())
def test_every_list_of_sounds_is_parsed(sounds, held_out) -> None:
    assert parse(hear(sounds, held_out=held_out)) == Claims(sounds=sounds)


@given(st.lists(NAMED, min_size=3, max_size=3), PLACES, SOUNDS, st.booleans())
def test_sentences_with_sounds_are_parsed(objects, places, sounds, held_out) -> None:
    for form in FORMS:
        told = claims_of(form, objects, "CAT", places)
        text = hear(sounds, held_out=held_out, sentence=say(form, objects, "CAT", places))
        assert parse(text) == Claims(told.objects, told.actions, told.sign, told.places, sounds)


@pytest.mark.parametrize(
    "text", ["", "a red ball", "a mauve ball falls", "a red ball falls.", "a sign says ABC", "rolling,"]
)
def test_other_sentences_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no caption"):
        parse(text)


def test_captions_are_parsed_to_their_claims(train: list[Told], test: list[tuple[Novelty, Told]]) -> None:
    for _, _, captions in train + [told for _, told in test]:
        kinds = [caption.kind for caption in captions]
        assert kinds == ["full", "medium", "short", "visual", "audio-visual", "audio"]
        for caption in captions:
            assert parse(caption.text) == caption.claims
            assert len(caption.text) < 200
        # What a kind may speak of.
        full, medium, short, visual, both, audio = (caption.claims for caption in captions)
        assert all(thing.material for thing in (*full.objects, *medium.objects))
        assert not any(thing.material for claims in (short, visual, both) for thing in claims.objects)
        assert not (full.sounds or medium.sounds or short.sounds or visual.sounds)
        assert both.sounds == audio.sounds != () and not audio.objects and not audio.words


def test_captions_are_true(train: list[Told], test: list[tuple[Novelty, Told]]) -> None:
    """Claims against the list of events and the states, not against what captions are made from."""
    for scene, motion, captions in train + [told for _, told in test]:
        events = list_events(scene, motion)
        contacts = [event for event in events if event["kind"] == "contact"]
        names = [f"{thing.colour} {thing.shape}" for thing in scene.things]
        first = [next((e for e in contacts if e["who"][0] == name), None) for name in names]
        for caption in captions:
            claims = caption.claims
            for thing, named in zip(scene.things, claims.objects, strict=False):
                assert (thing.shape, thing.colour) == (named.shape, named.colour)
                assert named.material in (None, thing.material) and named.word == (thing.word or None)
            if caption.kind == "full":
                assert len(claims.objects) == len(scene.things)
                written = [thing.word for thing in scene.things if thing.word]
                assert list(claims.words) == written + ([scene.sign.word] if scene.sign else [])
            assert claims.sign in (None, scene.sign.word if scene.sign else None)
            for action in claims.actions:
                _check(action, names, contacts, events, motion)
            assert claims.actions.count("fall") <= len(scene.things)
            for slot, place in claims.places:
                if slot == "on":
                    assert first[0] is not None
                    x = first[0]["place"][0]
                    assert place == ("on the left" if x < 25.6 else "on the right" if x >= 38.4 else "in the middle")
                else:
                    moved = motion.path[0, -1, 0] - motion.path[0, 0, 0]
                    start = motion.path[0, round(scene.things[0].enters * 480) + 20, 0] - motion.path[0, 0, 0] or moved
                    assert (start > 0) == (place in ("from the left", "to the right"))
            if claims.sounds:
                heard = [e for e in events if e["kind"] != "hidden"][0]
                head = claims.sounds[0]
                if heard["kind"] == "contact":
                    assert head.split("+") == list(dict.fromkeys(heard["materials"]))
                else:
                    assert head == ("rolling" if heard["kind"] == "roll" else "scraping")
                blows = [s for s in claims.sounds if s not in ("rolling", "scraping", "softer", "softer ones")]
                assert {part for blow in blows for part in blow.split("+")} <= {
                    m for e in contacts for m in e["materials"]
                }
                if "softer" in claims.sounds:
                    assert len(contacts) == 2 and contacts[1]["impact"] < contacts[0]["impact"]


def _check(action: str, names: list[str], contacts: list[dict], events: list[dict], motion: Motion) -> None:
    partners = [tuple(event["who"]) for event in contacts]
    y = motion.states[0, :, 1]
    if action == "fall":
        assert any(other == "floor" or other in names for _, other in partners)
    elif action == "bounce":
        after = y[int(np.ceil(next(e["time"] for e in contacts if e["who"][0] == names[0]) * FPS)) :]
        assert (np.maximum.accumulate(after) - after).max() > 2
    elif action == "throw":
        assert abs(motion.states[0, 8, 0] - motion.states[0, 0, 0]) > 4
    elif action in ("roll", "slide"):
        assert any(event["kind"] == action for event in events)
    elif action == "hit":
        assert any(who in names and other in names for who, other in partners)
    elif action == "push":
        assert np.ptp(motion.states[1, :, 0]) > 2
    elif action == "wall":
        assert (names[0], "wall") in partners
    else:
        assert action in ("hide", "return")
        [behind] = [event for event in events if event["kind"] == "hidden" and event["by"] == "screen"]
        assert behind["until"] < 1.92


def test_training_sees_nothing_that_is_held_out(train: list[Told]) -> None:
    for scene, _, captions in train:
        for thing in scene.things:
            assert thing.material != HELD_OUT_MATERIALS[thing.shape] and thing.colour != HELD_OUT_COLOURS[thing.shape]
            assert thing.word not in HELD_OUT_WORDS
        assert scene.sign is None or scene.sign.word not in HELD_OUT_WORDS
        assert not any(_held_out(caption) for caption in captions)


def _held_out(caption: Caption) -> bool:
    """Whether it is worded in a held-out form: that form says the same claims in the same letters."""
    claims = caption.claims
    if caption.kind == "audio":
        return caption.text == hear(claims.sounds, held_out=True)
    places = {"on": "", "from": "", "to": "", **dict(claims.places)}
    unnamed = [f"{{{name}}}" for name in "abc"[len(claims.objects) :]]
    forms = [form for form in FORMS if form.held_out and not any(slot in form.text for slot in unnamed)]
    told = [say(form, claims.objects, claims.sign, places) for form in forms]
    if caption.kind == "audio-visual":
        told = [hear(claims.sounds, held_out=True, sentence=text) for text in told]
    return caption.text in told


def test_a_test_clip_shows_exactly_its_novelty(test: list[tuple[Novelty, Told]]) -> None:
    for novelty, (scene, _, captions) in test:
        words = [thing.word for thing in scene.things] + ([scene.sign.word] if scene.sign else [])
        found = {
            "material": any(thing.material == HELD_OUT_MATERIALS[thing.shape] for thing in scene.things),
            "colour": any(thing.colour == HELD_OUT_COLOURS[thing.shape] for thing in scene.things),
            "word": any(word in HELD_OUT_WORDS for word in words),
            "form": any(_held_out(caption) for caption in captions),
        }
        assert [name for name, there in found.items() if there] == [novelty]
        assert len({_held_out(caption) for caption in captions}) == 1


def test_everything_is_seen_in_training_but_the_combination() -> None:
    assert set(HELD_OUT_MATERIALS) == set(HELD_OUT_COLOURS) == set(SHAPES)
    assert set(HELD_OUT_MATERIALS.values()) == set(MATERIALS)
    for name in MATERIALS:
        assert sum(material != name for material in HELD_OUT_MATERIALS.values()) >= 3
    assert len(WORDS) == len(set(WORDS)) == 42 and set(HELD_OUT_WORDS) < set(WORDS)
    assert all(re.fullmatch("[A-Z]{2,4}", word) for word in WORDS)
    kept = {form.text for form in FORMS if not form.held_out}
    assert not kept & {form.text for form in FORMS if form.held_out}
    # No sound is worded as in training, either.
    assert hear(("metal",)) != hear(("metal",), held_out=True)
