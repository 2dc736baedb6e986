"""What a caption claims: sentences made from claims, and claims read back from sentences, exactly.

``say`` fills a form's slots, ``hear`` lists sounds, and :func:`parse` takes any sentence that they can make (training
and held-out forms alike) back to its :class:`Claims`, so that a generated clip can be scored against any caption.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from selfflow_mm.errors import UserError

from .forms import FORMS, Form
from .vocabulary import COLOURS, MATERIALS, SHAPES, SOUNDS, WORDS

#: Heads of a list of sounds beside the materials: what is heard before anything is hit, and echoes of the same blow.
ROLLING, SCRAPING, SOFTER, SOFTER_ONES = "rolling", "scraping", "softer", "softer ones"
_FILLERS = {
    "on": ("on the left", "in the middle", "on the right"),
    "from": ("from the left", "from the right"),
    "to": ("to the left", "to the right"),
}
#: Joints of lists of sounds and of a sentence with them: (before all, between two, before a list after a sentence).
_USUAL, _HELD_OUT = ("", ", then ", " with the sound of "), ("you hear ", " and then ", ", and you hear ")
_AT_ONCE = " together with "


@dataclass(frozen=True)
class Named:
    """An object as a caption names it; what is left out is None."""

    shape: str
    colour: str | None = None
    material: str | None = None
    word: str | None = None


@dataclass(frozen=True)
class Claims:
    """What a caption says of a clip.

    Attributes:
        objects: in the order of the scene, not of the sentence.
        actions: what happens, of ``fall``, ``bounce``, ``throw``, ``roll``, ``slide``, ``hit``, ``push``, ``wall`` (the
            wall is hit), ``hide``, ``return``; several objects may do the same.
        sign: the word on the sign.
        places: of the slots ``on``, ``from`` and ``to``, as in ``{"on": "on the left"}``, in that order.
        sounds: in order of time, each the name of a material, two joined by ``+`` for a blow between two objects, or
            one of ``rolling``, ``scraping``, ``softer``, ``softer ones``.
    """

    objects: tuple[Named, ...] = ()
    actions: tuple[str, ...] = ()
    sign: str | None = None
    places: tuple[tuple[str, str], ...] = ()
    sounds: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """Every word that is to be read in the picture."""
        return tuple(word for word in (*(thing.word for thing in self.objects), self.sign) if word)


def say(form: Form, objects: Sequence[Named], sign: str | None, places: Mapping[str, str]) -> str:
    """The sentence of a form; objects, sign and places that it has no slot for stay unsaid."""
    slots = {name: _noun(thing) for name, thing in zip("abc", objects, strict=False)}
    return form.text.format(**slots, sign=sign, **places)


def hear(sounds: Sequence[str], *, held_out: bool = False, sentence: str = "") -> str:
    """A list of sounds alone, or after a sentence."""
    start, between, after = _HELD_OUT if held_out else _USUAL
    listed = between.join(_sound(sound) for sound in sounds)
    return f"{sentence}{after}{listed}" if sentence else f"{start}{listed}"


def claims_of(form: Form, objects: Sequence[Named], sign: str | None, places: Mapping[str, str]) -> Claims:
    """What :func:`say` claims with the same arguments."""
    used = _slots(form)
    return Claims(
        objects=tuple(thing for name, thing in zip("abc", objects, strict=False) if name in used),
        actions=form.actions,
        sign=sign if "sign" in used else None,
        places=tuple((slot, places[slot]) for slot in _FILLERS if slot in used),
    )


def parse(caption: str) -> Claims:
    """The claims of a caption.

    Raises:
        UserError: no caption of the world reads like this.
    """
    for start, between, after in (_USUAL, _HELD_OUT):
        if caption.startswith(start) and (sounds := _sounds(caption.removeprefix(start), between)):
            return Claims(sounds=sounds)
        sentence, found, listed = caption.partition(after)
        if found and (sounds := _sounds(listed, between)) and (claims := _sentence(sentence)):
            return Claims(claims.objects, claims.actions, claims.sign, claims.places, sounds)
    if claims := _sentence(caption):
        return claims
    raise UserError(f"'{caption}' is no caption of the bundled world; docs/world.md has its forms")


def _noun(thing: Named) -> str:
    words = " ".join(word for word in (thing.colour, thing.material, thing.shape) if word)
    article = "an" if words[0] in "aeiou" else "a"
    return f"{article} {words}" + (f" that says {thing.word}" if thing.word else "")


def _sound(sound: str) -> str:
    if sound in (SOFTER, SOFTER_ONES):
        return "a softer one" if sound == SOFTER else sound
    return _AT_ONCE.join(SOUNDS.get(part, part) for part in sound.split("+"))


@cache
def _said_sounds() -> dict[str, str]:
    pairs = [f"{one}+{other}" for one in MATERIALS for other in MATERIALS if one != other]
    heads = [ROLLING, SCRAPING, SOFTER, SOFTER_ONES, *MATERIALS, *pairs]
    return {_sound(head): head for head in heads}


def _sounds(listed: str, between: str) -> tuple[str, ...]:
    """Sounds of a list, or nothing if it is none."""
    said = _said_sounds()
    parts = listed.split(between)
    return tuple(said[part] for part in parts) if all(part in said for part in parts) else ()


def _slots(form: Form) -> set[str]:
    return set(re.findall(r"{(\w+)}", form.text))


@cache
def _patterns() -> tuple[tuple[Form, re.Pattern[str]], ...]:
    return tuple((form, _pattern(form)) for form in FORMS)


def _pattern(form: Form) -> re.Pattern[str]:
    parts = re.split(r"{(\w+)}", form.text)
    for place in range(1, len(parts), 2):
        slot = parts[place]
        if slot in _FILLERS:
            parts[place] = f"(?P<{slot}>{'|'.join(_FILLERS[slot])})"
        elif slot == "sign":
            parts[place] = f"(?P<sign>{'|'.join(WORDS)})"
        else:
            parts[place] = (
                rf"an? (?:(?P<{slot}_colour>{'|'.join(COLOURS)}) )?(?:(?P<{slot}_material>{'|'.join(MATERIALS)}) )?"
                rf"(?P<{slot}_shape>{'|'.join(SHAPES)})(?: that says (?P<{slot}_word>{'|'.join(WORDS)}))?"
            )
    for place in range(0, len(parts), 2):
        parts[place] = re.escape(parts[place])
    return re.compile("".join(parts))


def _sentence(text: str) -> Claims | None:
    for form, pattern in _patterns():
        if match := pattern.fullmatch(text):
            found = match.groupdict()
            objects = tuple(
                Named(found[f"{name}_shape"], *(found[f"{name}_{what}"] for what in ("colour", "material", "word")))
                for name in "abc"
                if found.get(f"{name}_shape")
            )
            places = {slot: found[slot] for slot in _FILLERS if found.get(slot)}
            return claims_of(form, objects, found.get("sign"), places)
    return None
