"""Example prompts: captions of the world, of every story, with words among them, the same each time."""

from __future__ import annotations

from selfflow_mm.data.world.forms import FORMS
from selfflow_mm.data.world.grammar import Claims, parse
from selfflow_mm.data.world.prompts import example_prompts
from selfflow_mm.data.world.stories import STORIES


def _stories(claims: Claims) -> set[str]:
    """The stories that a form with these claims tells."""
    word = any(thing.word for thing in claims.objects)
    found = {form.story for form in FORMS if form.actions == claims.actions}
    if claims.sign:
        return found & {"sign"}
    return found & {"block", "drop"} if word else found - {"sign"}


def test_nine_prompts_tell_all_stories_in_words_that_training_reads() -> None:
    for seed in (0, 5):
        prompts = example_prompts(18, seed)
        assert len(set(prompts)) == 18
        told = [parse(prompt) for prompt in prompts]
        assert told[1].sign and told[10].sign
        assert any(thing.word for thing in told[4].objects)
        for nine in (told[:9], told[9:]):
            # Claims of one sentence may fit several stories; each story has a sentence of its own if and only if there
            # is a perfect matching, found here by trying.
            assert _matched([_stories(claims) for claims in nine], set(STORIES))
        openings = [prompt.split()[0] for prompt in prompts]
        assert not {"down", "somebody", "after", "behind", "beside", "close"} & set(openings)


def _matched(options: list[set[str]], left: set[str]) -> bool:
    if not options:
        return True
    return any(_matched(options[1:], left - {story}) for story in options[0] & left)


def test_prompts_are_stable_and_longer_lists_begin_alike() -> None:
    assert example_prompts(11, seed=4)[:8] == example_prompts(8, seed=4) != example_prompts(8, seed=5)


def test_kinds_take_turns() -> None:
    plain = [parse(prompt) for prompt in example_prompts(6, 1, kinds=("audio", "visual"))]
    assert all(claims.sounds and not claims.objects for claims in plain[::2])
    assert all(claims.objects and not claims.sounds for claims in plain[1::2])
