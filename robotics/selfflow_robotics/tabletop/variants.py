"""How the scene looks: the base look and the ways in which it can be varied, none of which physics knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from selfflow_mm.errors import UserError

from . import measures as m
from .cameras import look_at
from .catalogue import KINDS
from .shapes import Camera, Light, Look

VARIANTS = ("light", "texture", "camera", "distractors")

_EYE, _TARGET, _FOV = (0.02, 0.0, 1.50), (0.70, 0.0, 0.93), math.radians(50)
_TABLES = (
    Look((0.42, 0.30, 0.18), "wood", (0.30, 0.19, 0.10)),
    Look((0.60, 0.58, 0.55), "speckle", (0.42, 0.40, 0.38), 0.4),
    Look((0.16, 0.17, 0.19), "plain"),
    Look((0.62, 0.62, 0.66), "checker", (0.35, 0.40, 0.45)),
    Look((0.30, 0.38, 0.32), "stripes", (0.24, 0.30, 0.26)),
)
_FLOORS = (
    Look((0.22, 0.23, 0.24), "speckle", (0.16, 0.17, 0.18), 0.1),
    Look((0.36, 0.24, 0.14), "wood", (0.26, 0.16, 0.09)),
    Look((0.45, 0.44, 0.42), "checker", (0.30, 0.29, 0.28)),
)
_WALLS = (
    Look((0.55, 0.56, 0.55), "plain"),
    Look((0.42, 0.50, 0.56), "plain"),
    Look((0.60, 0.52, 0.40), "stripes", (0.52, 0.44, 0.34)),
    Look((0.45, 0.28, 0.22), "checker", (0.38, 0.22, 0.17)),
)
_CABINETS = (
    Look((0.30, 0.17, 0.09), "wood", (0.21, 0.11, 0.05)),
    Look((0.62, 0.62, 0.60), "plain"),
    Look((0.20, 0.27, 0.33), "plain"),
)


@dataclass(frozen=True)
class Setting:
    """The look of one episode. ``extras``: (kind, x, y, yaw) of objects that are seen and never touched."""

    camera: Camera
    light: Light
    table: Look = _TABLES[0]
    floor: Look = _FLOORS[0]
    wall: Look = _WALLS[0]
    cabinet: Look = _CABINETS[0]
    extras: tuple[tuple[str, float, float, float], ...] = ()


def chosen(variant: str | Sequence[str]) -> tuple[str, ...]:
    """The varied aspects that ``variant`` names: "base" none, "all" every one, or a list of names.

    Raises:
        UserError: an unknown name.
    """
    names = [variant] if isinstance(variant, str) else list(variant)
    for name in names:
        if name not in (*VARIANTS, "base", "all"):
            raise UserError(f"there is no variant '{name}'; known: base, {', '.join(VARIANTS)}, all")
    return VARIANTS if "all" in names else tuple(name for name in VARIANTS if name in names)


def make_setting(aspects: Sequence[str], seed: int, taken: Sequence[str]) -> Setting:
    """Draw the look of one episode.

    Args:
        aspects: of ``VARIANTS``; each has a random stream of its own, so that one does not change another.
        seed: of the episode.
        taken: names of the episode's own objects; extras are of other kinds.
    """
    setting = Setting(_camera(_EYE, _TARGET), Light(_unit(-0.35, 0.45, 0.85)))
    for index, aspect in enumerate(VARIANTS):
        if aspect in aspects:
            rng = np.random.default_rng([seed, 1 + index])
            setting = _VARY[aspect](setting, rng, taken)
    return setting


def _camera(eye: Sequence[float], target: Sequence[float], roll: float = 0.0, fov: float = _FOV) -> Camera:
    """A camera at ``eye`` that sees ``target`` in its middle, turned by ``roll`` about the line of sight."""
    cos, sin = math.cos(roll), math.sin(roll)
    turn = look_at(eye, target) @ np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    return Camera(np.array(eye, dtype=np.float64), turn, fov)


def _vary_light(setting: Setting, rng: np.random.Generator, taken: Sequence[str]) -> Setting:
    angle, height = rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 1.4)
    light = Light(
        _unit(math.cos(angle), math.sin(angle), height),
        strength=float(rng.uniform(0.6, 1.15)),
        ambient=float(rng.uniform(0.28, 0.5)),
        warmth=float(rng.uniform(-0.6, 0.8)),
    )
    return replace(setting, light=light)


def _vary_texture(setting: Setting, rng: np.random.Generator, taken: Sequence[str]) -> Setting:
    def draw(looks: tuple[Look, ...]) -> Look:
        look = looks[int(rng.integers(len(looks)))]
        shade = rng.uniform(0.75, 1.25) * rng.uniform(0.9, 1.1, 3)
        return replace(look, colour=_tinted(look.colour, shade), accent=_tinted(look.accent, shade))

    return replace(setting, table=draw(_TABLES), floor=draw(_FLOORS), wall=draw(_WALLS), cabinet=draw(_CABINETS))


def _vary_camera(setting: Setting, rng: np.random.Generator, taken: Sequence[str]) -> Setting:
    eye = np.array(_EYE) + rng.uniform(-0.05, 0.05, 3)
    target = np.array(_TARGET) + rng.uniform(-0.03, 0.03, 3)
    fov = _FOV * float(rng.uniform(0.95, 1.08))
    return replace(setting, camera=_camera(eye.tolist(), target.tolist(), float(rng.uniform(-0.05, 0.05)), fov))


def _vary_distractors(setting: Setting, rng: np.random.Generator, taken: Sequence[str]) -> Setting:
    """Objects at the table's far edge and sides, where neither the hand nor what it holds or pushes comes."""
    names = [str(name) for name in rng.permutation(sorted(set(KINDS) - set(taken)))]
    extras: list[tuple[str, float, float, float]] = []
    while len(extras) < 4 and names:
        x, y = (
            float(rng.uniform(0.75, m.TABLE_X[1] - 0.08)),
            float(rng.uniform(m.TABLE_Y[0] + 0.08, m.TABLE_Y[1] - 0.08)),
        )
        far = math.hypot(x, y) > m.REACH[1] + 0.22
        if far and all(math.dist((x, y), extra[1:3]) > 0.14 for extra in extras):
            extras.append((names.pop(), x, y, float(rng.uniform(-math.pi, math.pi))))
    return replace(setting, extras=tuple(extras))


_VARY = {
    "light": _vary_light,
    "texture": _vary_texture,
    "camera": _vary_camera,
    "distractors": _vary_distractors,
}


def _tinted(colour: Sequence[float], shade: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = np.minimum(shade * colour, 1.0).tolist()
    return (red, green, blue)


def _unit(x: float, y: float, z: float) -> tuple[float, float, float]:
    length = math.sqrt(x * x + y * y + z * z)
    return (x / length, y / length, z / length)
