"""The tabletop's pictures: a software renderer of simple solids in numpy, quick enough to run within every step.

Bodies are drawn far to near into depth and light, edges blended by how much of a pixel they cover; then shadows, haze
and the sRGB curve. Two things make it quick, and neither changes a bit of the result: what stands still behind the
first body that moved is kept, and only the rectangle is drawn again in which anything changed since the last picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import shading
from .rays import Rectangle
from .shapes import Body, Camera, Light
from .stage import Actor, Layer, Stage, empty, slices, union


@dataclass(frozen=True, eq=False)
class Picture:
    """What a camera sees.

    Attributes:
        rgb: ``(height, width, 3)`` uint8, sRGB.
        depth: ``(height, width)`` float32 metres along the optical axis (not along the ray), 0 where there is nothing:
            ManiSkill2's and so SIMPLER's convention.
        ids: ``(height, width)`` int32 index into static + moving, -1 where there is nothing.
    """

    rgb: np.ndarray
    depth: np.ndarray
    ids: np.ndarray


class Renderer:
    """Draws pictures of one size. Keep one for every camera: it remembers its last scene.

    Bodies may have any place, size and turn; one around the camera is not drawn, neither are bodies with a place or
    turn that is not finite.
    """

    def __init__(self, height: int = 256, width: int = 320) -> None:
        self.height, self.width = height, width
        self._whole: Rectangle = (0, height, 0, width)
        self._now = Layer(height, width)
        self._rgb = np.zeros((height, width, 3), np.uint8)
        self.forget()

    def forget(self) -> None:
        """Draw everything again next time; only needed after arrays of static bodies were written to."""
        self._scene: tuple[Any, ...] | None = None
        self._static: tuple[Body, ...] = ()
        self._moving: list[Actor] = []
        self._states = np.zeros((0, 12))
        self._kinds: list[tuple[Any, ...]] = []

    def render(self, camera: Camera, light: Light, static: Sequence[Body], moving: Sequence[Body]) -> Picture:
        """Draw the scene.

        Args:
            static: bodies that are the same objects from picture to picture, unchanged; give new objects for a change.
            moving: all others. Their order and number should stay the same for speed; their arrays may be reused.

        Returns:
            A picture that is the caller's own.
        """
        scene = (light, float(camera.fov), np.asarray(camera.place).tobytes(), np.asarray(camera.turn).tobytes())
        same = len(static) == len(self._static) and all(a is b for a, b in zip(static, self._static, strict=True))
        anew = not same or scene != self._scene or len(moving) != len(self._moving)
        if anew:
            self.forget()
            self._stage = Stage(camera, light, static, self.height, self.width)
            self._back: list[Actor] = []
            self._backdrop = self._stage.layer
            self._scene, self._static = scene, tuple(static)
        changed = self._take_places(moving)
        if anew:
            self._draw(self._whole, self._moving)
        elif changed:
            concerned = [r for pair in changed for actor in pair for r in (actor.shown, actor.falls, actor.near)]
            concerned = [rectangle for rectangle in concerned if not empty(rectangle)]
            if concerned:
                self._draw(union(concerned), [actor for actor, _ in changed])
        ids = self._now.ids
        return Picture(self._rgb.copy(), np.where(ids < 0, np.float32(0), self._now.depth), ids.copy())

    def _take_places(self, moving: Sequence[Body]) -> list[tuple[Actor, Actor]]:
        """Prepare the moving bodies that are not what they were; give each as it is and as it was."""
        states = np.empty((len(moving), 12))
        if len(moving):
            states[:, :3] = [body.place for body in moving]
            states[:, 3:] = np.array([body.turn for body in moving]).reshape(-1, 9)
        kinds = [(body.form, body.size, body.look, body.shadow) for body in moving]
        if not self._moving:
            which = list(range(len(moving)))
        else:
            which = np.flatnonzero((states != self._states).any(1)).tolist()
            if kinds != self._kinds:
                which = sorted({*which, *(i for i, kind in enumerate(kinds) if kind != self._kinds[i])})
        self._states, self._kinds = states, kinds
        if not which:
            return []
        actors = self._stage.prepare([moving[i] for i in which], [len(self._static) + i for i in which])
        if not self._moving:
            self._moving = actors
            return []
        before = [self._moving[i] for i in which]
        for i, actor in zip(which, actors, strict=True):
            self._moving[i] = actor
        return list(zip(actors, before, strict=True))

    def _draw(self, clip: Rectangle, changed: list[Actor]) -> None:
        """Draw a rectangle again, as much as was changed since the last picture."""
        order = sorted(self._moving, key=lambda actor: -actor.depth)
        # What is drawn before the first change is kept, shadows among it included.
        news = set(map(id, changed))
        still = next((i for i, actor in enumerate(order) if id(actor) in news), len(order))
        self._keep(order[:still])
        front = order[still:]
        now, stage, where = self._now, self._stage, slices(clip)
        now.take(self._backdrop, clip)
        for actor in front:
            stage.paint(now, actor, clip)
        stage.shade(now, self._backdrop, [*stage.actors, *self._back], front, clip)
        sky = shading.haze(now.depth[where])
        lamp = now.lamp_share[where] * sky
        sky *= now.open_share[where]
        colours = now.light[:3, *where] * lamp
        colours += now.light[3:, *where] * sky
        shading.to_srgb(colours, self._rgb[where])

    def _keep(self, back: list[Actor]) -> None:
        if back == self._back:
            return
        kept = self._back if back[: len(self._back)] == self._back else []
        layer = Layer(self.height, self.width)
        base = self._backdrop if kept else self._stage.layer
        layer.take(base, self._whole)
        for actor in back[len(kept) :]:
            self._stage.paint(layer, actor, self._whole)
        self._stage.shade(layer, base, [*self._stage.actors, *kept], back[len(kept) :], self._whole)
        self._back, self._backdrop = back, layer
