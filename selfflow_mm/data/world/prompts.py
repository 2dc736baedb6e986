"""The words of the world: what prompts and captions may name, and examples of prompts."""

from __future__ import annotations

import numpy as np

SHAPES: tuple[str, ...] = ("ball", "cube", "triangle")
COLOURS: tuple[str, ...] = ("red", "yellow", "green", "blue", "pink", "white")
MATERIALS: tuple[str, ...] = ("wood", "metal", "rubber")

#: Other words for a shape that some captions use.
SYNONYMS: dict[str, tuple[str, ...]] = {"ball": ("ball",), "cube": ("cube", "box"), "triangle": ("triangle",)}

#: Captions that are true of every clip, beside the main one.
FORMS = (
    "a {colour} {shape} drops onto {material}",
    "a {colour} {shape} hits the {material} floor",
    "a {colour} {shape} falls to the {material} floor",
    "a {colour} {shape} bounces on a {material} floor",
    "{colour} {shape} bouncing on {material}",
)
#: Captions of clips that begin with a clear rise.
TOSSED_FORMS = ("a {colour} {shape} is thrown up and falls on {material}",)


def main_caption(shape: str, colour: str, material: str) -> str:
    """The caption that every clip has: "a red ball falls and bounces on metal"."""
    return f"a {colour} {shape} falls and bounces on {material}"


def captions(rng: np.random.Generator, shape: str, colour: str, material: str, tossed: bool) -> tuple[str, ...]:
    """Three captions of a clip: the main one and two others without repetition."""
    forms = FORMS + (TOSSED_FORMS if tossed else ())
    chosen = rng.choice(len(forms), size=2, replace=False)
    word = SYNONYMS[shape][rng.integers(len(SYNONYMS[shape]))]
    others = (forms[i].format(colour=colour, shape=word, material=material) for i in chosen)
    return (main_caption(shape, colour, material), *others)


def example_prompts(n: int, seed: int = 0) -> list[str]:
    """``n`` prompts in the captions' main form; shapes, colours and materials take turns so that few prompts already
    show all of each. The same ``seed`` gives the same prompts, and the first ones do not depend on ``n``."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    orders = [rng.permutation(len(words)) for words in (SHAPES, COLOURS, MATERIALS)]
    prompts = []
    for i in range(n):
        # Shapes and materials have equal counts: shifting one by a place each round pairs all of them in turn.
        shape = SHAPES[orders[0][i % len(SHAPES)]]
        colour = COLOURS[orders[1][(i + i // (len(COLOURS) * len(MATERIALS))) % len(COLOURS)]]
        material = MATERIALS[orders[2][(i + i // len(SHAPES)) % len(MATERIALS)]]
        prompts.append(main_caption(shape, colour, material))
    return prompts
