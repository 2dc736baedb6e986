"""A camera, a lamp and the static bodies before it; how other bodies are drawn into that and shadow each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import shading
from .patches import Patch, paint
from .rays import FAR, Grid, Rectangle, Solids
from .shadows import Shadows
from .shapes import Body, Camera, Light


class Layer:
    """A picture in the making.

    Attributes:
        light: ``(6, height, width)`` linear: red, green and blue from the lamp, then from the sky.
        depth, ids: ``(height, width)`` of the nearest body that covers half of the pixel or more.
        lamp_share, open_share: ``(height, width)`` what shadows leave of the lamp and the sky.
    """

    def __init__(self, height: int, width: int) -> None:
        self.light = np.zeros((6, height, width), np.float32)
        self.depth = np.full((height, width), FAR, np.float32)
        self.ids = np.full((height, width), -1, np.int32)
        self.lamp_share = np.ones((height, width), np.float32)
        self.open_share = np.ones((height, width), np.float32)

    def take(self, other: Layer, rectangle: Rectangle) -> None:
        where = slices(rectangle)
        self.light[:, *where] = other.light[:, *where]
        self.depth[where] = other.depth[where]
        self.ids[where] = other.ids[where]
        self.lamp_share[where] = other.lamp_share[where]
        self.open_share[where] = other.open_share[where]


class Actor:
    """A body as it was prepared at one place; a body that moves becomes another actor.

    Attributes:
        name: its number in ids.
        depth: its farthest, by which bodies are sorted.
        shown, falls, near: rectangles of itself, its shadow and the darkness near its contact.
        ball: centre in the camera's frame, radius of a ball around it, and the same with its shadow's soft edge.
        patch: how it looks, once it was worked out.
    """

    __slots__ = ("ball", "depth", "falls", "index", "name", "near", "patch", "shadows", "shown", "solids")

    def __init__(self, name: int, index: int, solids: Solids, shadows: Shadows) -> None:
        self.name, self.index, self.solids, self.shadows = name, index, solids, shadows
        self.depth = solids.depths[index]
        self.shown: Rectangle = shadows.shown[index]
        self.falls: Rectangle = shadows.falls[index]
        self.near: Rectangle = shadows.nears[index]
        self.ball: list[float] = shadows.balls[index]
        self.patch: Patch | None = None


class Stage:
    """The scene without its moving bodies.

    Attributes:
        layer: its picture, shadows included.
        actors: the static bodies.
    """

    def __init__(self, camera: Camera, light: Light, static: Sequence[Body], height: int, width: int) -> None:
        self._camera, self._light = camera, light
        self._whole: Rectangle = (0, height, 0, width)
        self._grid = Grid(camera, height, width)
        view = np.asarray(camera.turn, np.float64)
        self._lamp, self._sky = shading.lamp_colour(light), shading.sky_colour(light)
        self._towards = np.array([light.direction, (0.0, 0.0, 1.0)]) @ view  # in the camera's frame
        layer = self.layer = Layer(height, width)
        rising = self._grid.affine(view[2:].astype(np.float32), self._whole)[0]
        layer.light[3:] = shading.wall(light)[:, None, None] * (0.8 + 0.35 * np.clip(rising + 0.4, 0, 1))
        self._ground, self._tops = 0.0, np.zeros((0, 5))
        self._low: np.ndarray | None = None  # pixels of what is lower than the moving bodies' shadows reach
        for actor in sorted(self.prepare(static, range(len(static))), key=lambda actor: -actor.depth):
            self.paint(layer, actor, self._whole)
        heights = rising * layer.depth
        heights += np.float32(camera.place[2])
        seen = layer.ids >= 0
        # Shadows of static bodies end at the lowest point that is visible, and soften above what bodies stand on.
        self._ground = float(heights[seen].min()) if seen.any() else 0.0
        solids = Solids(static, camera, self._grid, self._towards)
        corners = solids.corners @ view.T + camera.place
        low, high = corners.min(1), corners.max(1)
        self._tops = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1], high[:, 2]], axis=1)[solids.boxes]
        self.actors = self.prepare(static, range(len(static)))
        self.shade(layer, layer, [], self.actors, self._whole)
        # Those of moving bodies end on the top that shows most, a table's, not on the floor: that would cost too much.
        levels = np.unique(self._tops[:, 4])
        shows = [int((np.abs(heights - np.float32(level)) < 1e-3).sum()) for level in levels]
        if any(shows):
            self._ground = float(levels[int(np.argmax(shows))]) - 1e-3
        low_ones = seen & (heights < self._ground - 1e-3)
        self._low = low_ones if low_ones.any() else None

    def prepare(self, bodies: Sequence[Body], names: Sequence[int]) -> list[Actor]:
        solids = Solids(bodies, self._camera, self._grid, self._towards)
        shadows = Shadows(solids, self._camera, self._light, self._ground, self._tops)
        return [Actor(name, i, solids, shadows) for i, name in enumerate(names)]

    def paint(self, layer: Layer, actor: Actor, clip: Rectangle) -> None:
        """Draw a body over what is farther away."""
        part = meet(actor.shown, clip)
        if empty(part):
            return
        if actor.patch is None:
            actor.patch = paint(actor.solids, actor.index, actor.shown, self._lamp, self._sky)
        patch, where, own = actor.patch, slices(part), _within(part, actor.shown)
        depth, mine = layer.depth[where], patch.depth[own]
        front = mine < depth
        cover = patch.cover[own] * front
        if not cover.any():
            return
        light = layer.light[:, *where]
        new = patch.light[:, *own] - light if patch.light.shape[2] > 1 else patch.light - light
        new *= cover
        light += new
        front &= patch.solid[own]
        np.copyto(depth, mine, where=front)
        np.copyto(layer.ids[where], np.int32(actor.name), where=front)

    def shade(self, layer: Layer, base: Layer, back: list[Actor], front: list[Actor], clip: Rectangle) -> None:
        """Shadow a layer in which the bodies of ``front`` were painted over ``base``, which has those of ``back``.

        Of several shadows the deepest counts, so that it does not matter in which order they come.
        """
        if not front:
            return
        where = slices(clip)
        fresh = layer.ids[where] != base.ids[where]
        np.copyto(layer.lamp_share[where], np.float32(1), where=fresh)
        np.copyto(layer.open_share[where], np.float32(1), where=fresh)
        jobs = [(actor, kind, clip, False) for actor in front for kind in (0, 1)]
        jobs += [(actor, kind, meet(clip, around), True) for actor, kind, around in self._onto(back, front)]
        for actor, kind, around, only_fresh in jobs:
            part = meet(actor.near if kind else actor.falls, around)
            if empty(part):
                continue
            here = slices(part)
            share_of = actor.shadows.open_share if kind else actor.shadows.lamp_share
            share = share_of(actor.index, part, layer.depth[here])
            shares = (layer.open_share if kind else layer.lamp_share)[here]
            if only_fresh:
                np.minimum(shares, share, out=shares, where=fresh[_within(part, clip)])
            else:
                np.minimum(shares, share, out=shares)
        if self._low is not None:
            low = np.greater(self._low[where], fresh)
            np.copyto(layer.lamp_share[where], base.lamp_share[where], where=low)

    def _onto(self, back: list[Actor], front: list[Actor]) -> list[tuple[Actor, int, Rectangle]]:
        """Bodies of ``back`` that may shadow (0) or darken (1) some of ``front``, with a rectangle around where."""
        if not back:
            return []
        casters, others = np.array([a.ball for a in back]), np.array([a.ball for a in front])
        away = others[None, :, :3] - casters[:, None, :3]
        along = away @ self._towards[0]
        squared = (away * away).sum(2)
        reach = others[:, 3] + casters[:, 4:5]
        pairs = np.empty((2, len(back), len(front)), bool)
        pairs[0] = (squared - along * along < reach * reach) & (along < reach)
        pairs[1] = squared < (others[:, 3] + casters[:, 5:6]) ** 2
        reached = np.array([[a.falls for a in back], [a.near for a in back]])[:, :, None]
        shown = np.array([a.shown for a in front])
        low, high = np.maximum(reached[..., ::2], shown[:, ::2]), np.minimum(reached[..., 1::2], shown[:, 1::2])
        pairs &= (low < high).all(3)
        found = []
        for kind, i in np.argwhere(pairs.any(2)).tolist():
            which = pairs[kind, i]
            (top, left), (end, right) = low[kind, i, which].min(0).tolist(), high[kind, i, which].max(0).tolist()
            found.append((back[i], kind, (top, end, left, right)))
        return found


def slices(rectangle: Rectangle) -> tuple[slice, slice]:
    return slice(rectangle[0], rectangle[1]), slice(rectangle[2], rectangle[3])


def _within(part: Rectangle, whole: Rectangle) -> tuple[slice, slice]:
    """The part's slices of an array that holds the whole rectangle only."""
    return slice(part[0] - whole[0], part[1] - whole[0]), slice(part[2] - whole[2], part[3] - whole[2])


def meet(one: Rectangle, other: Rectangle) -> Rectangle:
    return max(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), min(one[3], other[3])


def empty(rectangle: Rectangle) -> bool:
    return rectangle[0] >= rectangle[1] or rectangle[2] >= rectangle[3]


def union(rectangles: list[Rectangle]) -> Rectangle:
    tops, ends, lefts, rights = zip(*rectangles, strict=True)
    return min(tops), max(ends), min(lefts), max(rights)
