"""The tabletop's suites, in the form of SIMPLER's: fixed scenes, the same for every policy and everybody."""

from __future__ import annotations

from collections.abc import Iterator

from .arrangements import Arrangement

__all__ = ["tabletop", "tabletop_variants"]

_TASKS = ("pick", "move_near", "open_drawer", "close_drawer", "place_in_drawer")
_VARIANTS = ("light", "texture", "camera", "distractors")
#: Scenes of each task, and of each task and variant.
_SCENES, _SCENES_PER_VARIANT = 100, 25


def tabletop() -> Iterator[Arrangement]:
    """Five tasks as they are."""
    yield from (_arrangement(task, "base", _SCENES) for task in _TASKS)


def tabletop_variants() -> Iterator[Arrangement]:
    """Five tasks in other looks, as variant aggregation has them."""
    for task in _TASKS:
        yield from (_arrangement(task, variant, _SCENES_PER_VARIANT) for variant in ("base", *_VARIANTS))


def _arrangement(task: str, variant: str, scenes: int) -> Arrangement:
    return Arrangement(
        task, variant, "", "selfflow/Tabletop-v0", "table", options={"task": task, "variant": variant},
        robot="tabletop", robot_x=(0.0, 0.0, 1), robot_y=(0.0, 0.0, 1), episodes=scenes,
    )  # fmt: skip
