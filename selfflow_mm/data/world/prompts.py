"""Examples of prompts: captions of clips that no training shows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np

from .captions import Kind
from .clip import story_of, tell_clip
from .stories import STORIES

#: What is asked for in one sentence: the whole story, or the objects and what happens.
_TOLD: tuple[Kind, ...] = ("full", "medium")


def example_prompts(n: int, seed: int = 0, kinds: tuple[Kind, ...] = _TOLD) -> list[str]:
    """``n`` captions of test clips of the world ``seed``, of kinds that take turns.

    Stories take turns, too: nine prompts in a row tell all nine, and the second and the fifth of them have a word on a
    sign and on a block. Clips whose novelty is the wording are left out, since few people would word a wish like that.
    The same ``seed`` gives the same prompts, and the first ones do not depend on ``n``.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    stories = [str(name) for name in rng.permutation([name for name in STORIES if name not in ("sign", "block")])]
    stories.insert(1, "sign")
    stories.insert(4, "block")
    told = {name: _clips_of(name, seed) for name in stories}
    prompts = []
    for place in range(n):
        tale = tell_clip(seed, next(told[stories[place % len(stories)]]), "test")
        wanted = kinds[place % len(kinds)]
        prompts += [caption.text for caption in tale.captions if caption.kind == wanted]
    return prompts


def _clips_of(story: str, seed: int) -> Iterator[int]:
    for index in count():
        kind, novelty = story_of(seed, index, "test")
        if kind == story and novelty != "form":
            yield index
