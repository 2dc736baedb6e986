"""The captions of a clip: six true sentences, from the full story to the sounds alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .constants import FPS, WIDTH
from .forms import FORMS, Form, Length
from .grammar import ROLLING, SCRAPING, SOFTER, SOFTER_ONES, Claims, Named, claims_of, hear, say
from .physics import Motion
from .scene import Scene
from .sound import sounding

Kind = Literal["full", "medium", "short", "visual", "audio-visual", "audio"]
#: A rise of so many pixels after a contact is a bounce that is seen.
_SEEN_BOUNCE = 2.0
#: A push of so many pixels is seen.
_SEEN_PUSH = 2.0
#: Sounds that a caption lists at most.
_MOST_SOUNDS = 4


@dataclass(frozen=True)
class Caption:
    """A sentence, what kind it is, and what it claims."""

    kind: Kind
    text: str
    claims: Claims


def make_captions(rng: np.random.Generator, scene: Scene, motion: Motion, held_out: bool) -> tuple[Caption, ...]:
    """One caption of each kind, in the order of :data:`Kind`, in forms of training or in held-out ones."""
    facts = facts_of(scene, motion)
    sign = None if scene.sign is None else scene.sign.word
    places = _places(scene, motion)
    sounds = sounds_of(scene, motion)
    full = [Named(thing.shape, thing.colour, thing.material, thing.word or None) for thing in scene.things]
    plain = [Named(thing.shape, thing.colour, None, thing.word or None) for thing in scene.things]

    def told(kind: Kind, lengths: Sequence[Length], objects: Sequence[Named], heard: bool = False) -> Caption:
        forms = _fitting(scene.kind, lengths, facts, held_out)
        form = forms[int(rng.integers(len(forms)))]
        text, claims = say(form, objects, sign, places), claims_of(form, objects, sign, places)
        if heard:
            text = hear(sounds, held_out=held_out, sentence=text)
            claims = Claims(claims.objects, claims.actions, claims.sign, claims.places, sounds)
        return Caption(kind, text, claims)

    return (
        told("full", ("full",), full),
        told("medium", ("medium",), full),
        told("short", ("short",), plain),
        told("visual", ("medium", "full"), plain),
        told("audio-visual", ("medium",), plain, heard=True),
        Caption("audio", hear(sounds, held_out=held_out), Claims(sounds=sounds)),
    )


def _fitting(story: str, lengths: Sequence[Length], facts: frozenset[str], held_out: bool) -> list[Form]:
    return [
        form
        for form in FORMS
        if form.story == story and form.length in lengths and form.held_out == held_out and form.needs <= facts
    ]


def facts_of(scene: Scene, motion: Motion) -> frozenset[str]:
    """What is true of a clip, of the facts that forms need."""
    facts = {"two" if len(scene.things) == 2 else "three"} if scene.kind == "series" else set()
    facts.add("ball" if scene.things[0].shape == "ball" else "slider")
    first = motion.contacts[0] if motion.contacts else None
    if scene.kind == "block" and first is not None:
        facts.add("beside" if first.other == "floor" else "onto")
    if scene.kind == "collide":
        facts.add("meeting" if scene.things[1].enters else "waiting")
        x = motion.path[1, :, 0]
        if np.abs(x - x[0]).max() > _SEEN_PUSH:
            facts.add("pushed")
    own = [contact for contact in motion.contacts if contact.thing == 0]
    if own:
        after = motion.states[0, int(np.ceil(own[0].time * FPS)) :, 1]
        if len(after) and np.max(np.maximum.accumulate(after) - after) > _SEEN_BOUNCE:
            facts.add("bounces")
    if any(contact.other == "wall" for contact in own):
        facts.add("wall")
    return frozenset(facts)


def _places(scene: Scene, motion: Motion) -> dict[str, str]:
    """What fills the slots for places, of the first object."""
    places = {}
    landing = next((contact.place[0] for contact in motion.contacts if contact.thing == 0), WIDTH / 2)
    places["on"] = ("on the left", "in the middle", "on the right")[
        int(np.digitize(landing, [WIDTH * 0.4, WIDTH * 0.6]))
    ]
    rightwards = scene.things[0].velocity[0] > 0
    places["from"] = "from the left" if rightwards else "from the right"
    places["to"] = "to the right" if rightwards else "to the left"
    return places


def sounds_of(scene: Scene, motion: Motion) -> tuple[str, ...]:
    """The sounds that captions list, in order of time, see :attr:`Claims.sounds`.

    Rolling or scraping if it comes first; then each object's first blow; of a blow alone in its clip also that softer
    ones follow.
    """
    rolls, contacts = motion.rolls, motion.contacts
    sounds: list[str] = []
    if rolls and (not contacts or rolls[0].time < contacts[0].time):
        sounds.append(ROLLING if scene.things[rolls[0].thing].shape == "ball" else SCRAPING)
    heard: set[int] = set()
    for contact in contacts:
        ringing = sounding(contact)
        if not heard.issuperset(ringing):
            sounds.append("+".join(dict.fromkeys(scene.things[number].material for number in ringing)))
        heard.update(ringing)
    later = contacts[1:]
    if contacts and len(heard) == 1 and later and max(c.impact for c in later) < 0.9 * contacts[0].impact:
        sounds.append(SOFTER if len(later) == 1 else SOFTER_ONES)
    return tuple(sounds[:_MOST_SOUNDS])
