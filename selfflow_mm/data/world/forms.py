"""The forms of captions: what may be said of each story, at which length, and which of it training never reads.

A slot stands for an object (``{a}``, ``{b}``, ``{c}`` in the order of the scene), the sign's word (``{sign}``), the
place of the first landing (``{on}``: "on the left"), where an object comes from (``{from}``) or goes to (``{to}``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Length = Literal["short", "medium", "full"]


@dataclass(frozen=True)
class Form:
    """One way to put a story.

    Attributes:
        text: the sentence with its slots.
        story: the kind of clip it is said of.
        length: how much it tells.
        actions: what it claims to happen, in the words of docs/world.md.
        needs: facts of the clip without which it would be false.
        held_out: kept for testing.
    """

    text: str
    story: str
    length: Length
    actions: tuple[str, ...]
    needs: frozenset[str]
    held_out: bool


def _forms(story: str, length: Length, *lines: str) -> list[Form]:
    """Lines "text | actions | needs"; a text that begins with * is held out."""
    found = []
    for line in lines:
        text, actions, *needs = (part.strip() for part in line.split("|"))
        held_out = text.startswith("*")
        wanted = frozenset(needs[0].split()) if needs else frozenset[str]()
        found.append(Form(text.removeprefix("*"), story, length, tuple(actions.split()), wanted, held_out))
    return found


FORMS: tuple[Form, ...] = (
    *_forms(
        "drop",
        "short",
        "{a} falls | fall",
        "{a} drops to the floor | fall",
        "*down comes {a} | fall",
    ),
    *_forms(
        "drop",
        "medium",
        "{a} falls to the floor | fall",
        "{a} falls and bounces | fall bounce | bounces",
        "{a} drops and bounces | fall bounce | bounces",
        "*to the floor falls {a} | fall",
    ),
    *_forms(
        "drop",
        "full",
        "{a} falls to the floor {on} | fall",
        "{a} falls {on} and bounces on the floor | fall bounce | bounces",
        "{a} falls {on} and hits the wall later | fall wall | wall",
        "*{on} {a} falls to the floor | fall",
    ),
    *_forms(
        "throw",
        "short",
        "{a} is thrown | throw",
        "{a} flies through the room | throw",
        "*somebody throws {a} | throw",
    ),
    *_forms(
        "throw",
        "medium",
        "{a} flies {to} and lands on the floor | throw fall",
        "{a} is thrown {to} and bounces | throw bounce | bounces",
        "*somebody throws {a} {to} | throw",
    ),
    *_forms(
        "throw",
        "full",
        "{a} is thrown {to} and lands on the floor {on} | throw fall",
        "{a} is thrown {to}, lands {on} and bounces | throw fall bounce | bounces",
        "{a} is thrown {to}, lands {on} and hits the wall | throw fall wall | wall",
        "*somebody throws {a} {to} and it lands {on} | throw fall",
    ),
    *_forms(
        "series",
        "short",
        "{a} and {b} fall | fall fall | two",
        "{a}, {b} and {c} fall | fall fall fall | three",
        "*down come {a} and {b} | fall fall | two",
        "*down come {a}, {b} and {c} | fall fall fall | three",
    ),
    *_forms(
        "series",
        "medium",
        "{a} falls, then {b} | fall fall | two",
        "{a} falls, then {b}, then {c} | fall fall fall | three",
        "*after {a} falls {b} | fall fall | two",
        "*after {a} falls {b}, and then {c} | fall fall fall | three",
    ),
    *_forms(
        "series",
        "full",
        "two objects fall one after another: {a} {on}, then {b} | fall fall | two",
        "three objects fall one after another: {a} {on}, then {b}, then {c} | fall fall fall | three",
        "*{a} hits the floor {on} before {b} does | fall fall | two",
        "*{a} hits the floor {on} before {b} and {c} do | fall fall fall | three",
    ),
    *_forms(
        "ramp",
        "short",
        "{a} rolls down a ramp | roll",
        "{a} comes down a ramp | roll",
        "*down a ramp rolls {a} | roll",
    ),
    *_forms(
        "ramp",
        "medium",
        "{a} rolls down a ramp and falls to the floor | roll fall",
        "{a} rolls off a ramp and bounces | roll fall bounce | bounces",
        "*from a ramp {a} drops to the floor | roll fall",
    ),
    *_forms(
        "ramp",
        "full",
        "{a} rolls in {from}, down a ramp and off its end, and lands on the floor | roll fall",
        "{a} rolls down a ramp {to}, falls off its end and bounces | roll fall bounce | bounces",
        "{a} rolls down a ramp {to}, falls off its end and hits the wall | roll fall wall | wall",
        "*{from} {a} rolls down a ramp and falls off its end | roll fall",
    ),
    *_forms(
        "shelf",
        "short",
        "{a} rolls off a shelf | roll fall | ball",
        "{a} slides off a shelf | slide fall | slider",
        "*off a shelf rolls {a} | roll fall | ball",
        "*off a shelf slides {a} | slide fall | slider",
    ),
    *_forms(
        "shelf",
        "medium",
        "{a} rolls off a shelf and falls to the floor | roll fall | ball",
        "{a} slides off a shelf and falls to the floor | slide fall | slider",
        "*{a} rolls over the edge of a shelf | roll fall | ball",
        "*{a} slides over the edge of a shelf | slide fall | slider",
    ),
    *_forms(
        "shelf",
        "full",
        "{a} comes in {from} on a shelf, rolls off and hits the floor | roll fall | ball",
        "{a} comes in {from} on a shelf, slides off and hits the floor | slide fall | slider",
        "{a} rolls off a shelf {to}, hits the floor and then the wall | roll fall wall | ball wall",
        "{a} slides off a shelf {to}, hits the floor and then the wall | slide fall wall | slider wall",
        "*{from} {a} rolls along a shelf and falls off its end | roll fall | ball",
        "*{from} {a} slides along a shelf and falls off its end | slide fall | slider",
    ),
    *_forms(
        "collide",
        "short",
        "{a} hits {b} | hit",
        "{a} and {b} collide | hit",
        "*{a} crashes into {b} | hit",
    ),
    *_forms(
        "collide",
        "medium",
        "{a} rolls across the floor and hits {b} | roll hit | waiting",
        "{a} rolls into {b} and pushes it | roll hit push | waiting pushed",
        "{a} and {b} roll towards each other and collide | roll roll hit | meeting",
        "*{b} is hit by {a} | hit",
    ),
    *_forms(
        "collide",
        "full",
        "{a} rolls in {from} and hits {b}, which waits on the floor | roll hit | waiting",
        "{a} rolls in {from}, {b} comes from the other side, and they collide | roll roll hit | meeting",
        "*{b} waits on the floor until {a} rolls into it {from} | roll hit | waiting",
        "*while {a} rolls in {from}, {b} rolls towards it, and they crash | roll roll hit | meeting",
    ),
    *_forms(
        "hide",
        "short",
        "{a} rolls behind a screen | roll hide",
        "{a} is hidden by a screen | hide",
        "*a screen hides {a} | hide",
    ),
    *_forms(
        "hide",
        "medium",
        "{a} rolls behind a screen and comes out again | roll hide return",
        "{a} is hidden by a screen and comes back | hide return",
        "*behind a screen rolls {a}, and out again | roll hide return",
    ),
    *_forms(
        "hide",
        "full",
        "{a} rolls in {from}, passes behind a screen and comes out on the other side | roll hide return",
        "{a} rolls {to}, vanishes behind a screen and comes back | roll hide return",
        "*{from} {a} rolls behind a screen and out on the other side | roll hide return",
    ),
    *_forms(
        "block",
        "short",
        "{a} falls beside {b} | fall | beside",
        "{a} falls onto {b} | fall hit | onto",
        "*beside {b} falls {a} | fall | beside",
        "*onto {b} falls {a} | fall hit | onto",
    ),
    *_forms(
        "block",
        "medium",
        "{a} falls to the floor beside {b} | fall | beside",
        "{a} falls and lands on {b} | fall hit | onto",
        "*close to {b} lands {a} | fall | beside",
        "*{b} is hit from above by {a} | fall hit | onto",
    ),
    *_forms(
        "block",
        "full",
        "{b} stands on the floor and {a} falls beside it | fall | beside",
        "{b} stands on the floor, {a} falls beside it and bounces | fall bounce | beside bounces",
        "{b} stands on the floor and {a} falls onto it | fall hit | onto",
        "{b} stands on the floor, {a} falls onto it and bounces | fall hit bounce | onto bounces",
        "*on the floor stands {b}, and beside it lands {a} | fall | beside",
        "*on the floor stands {b}, and onto it falls {a} | fall hit | onto",
    ),
    *_forms(
        "sign",
        "short",
        "a sign says {sign} |",
        "there is a sign that says {sign} |",
        "*on a sign is {sign} |",
    ),
    *_forms(
        "sign",
        "medium",
        "{a} falls beside a sign that says {sign} | fall",
        "a sign says {sign} and {a} falls | fall",
        "*beside a sign with {sign} falls {a} | fall",
    ),
    *_forms(
        "sign",
        "full",
        "a sign on the wall says {sign} and {a} falls to the floor {on} | fall",
        "a sign on the wall says {sign}, {a} falls {on} and bounces | fall bounce | bounces",
        "*{on} {a} falls to the floor, and on the wall is a sign with {sign} | fall",
    ),
)
