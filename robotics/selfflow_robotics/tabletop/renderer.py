"""The tabletop's pictures: a software renderer of simple solids in compiled loops, quick enough for every step.

Bodies are drawn far to near into depth and light, edges blended by how much of a pixel they cover; then shadows, haze
and the sRGB curve. What does not move is drawn once, and only the rectangle is drawn again in which anything changed
since the last picture; neither changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .rows import BODY, FAR, SOLID, Layer, View, pack
from .shapes import Body, Camera, Light


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
    turn that is not finite. numba (of the extra ``[robot]``) is needed from the first picture on; the first one ever
    takes some seconds, in which the loops are compiled.
    """

    def __init__(self, height: int = 256, width: int = 320) -> None:
        self.height, self.width = height, width
        self._whole = np.array([0, height, 0, width])
        self._base, self._now = Layer.empty(height, width), Layer.empty(height, width)
        self._rgb = np.zeros((height, width, 3), np.uint8)
        self.forget()

    def forget(self) -> None:
        """Draw everything again next time; only needed after arrays of static bodies were written to."""
        self._scene: tuple[Any, ...] | None = None
        self._static: tuple[Body, ...] = ()
        self._rows, self._solids = pack(()), np.zeros(0, SOLID)

    def render(self, camera: Camera, light: Light, static: Sequence[Body], moving: Sequence[Body]) -> Picture:
        """Draw the scene.

        Args:
            static: bodies that are the same objects from picture to picture, unchanged; give new objects for a change.
            moving: all others. Their order and number should stay the same for speed; their arrays may be reused.

        Returns:
            A picture that is the caller's own.

        Raises:
            UserError: numba is not installed.
        """
        scene = (light, float(camera.fov), np.asarray(camera.place).tobytes(), np.asarray(camera.turn).tobytes())
        same = len(static) == len(self._static) and all(a is b for a, b in zip(static, self._static, strict=True))
        anew = not same or scene != self._scene
        if anew:
            self._set_scene(camera, light, static)
            self._scene, self._static = scene, tuple(static)
        rows = pack(moving)
        solids = self._prepare(rows)
        if anew or rows.shape != self._rows.shape:
            self._draw(solids, self._whole)
        else:
            which = (rows != self._rows).any(1)
            areas = np.concatenate(
                [s[name][which] for s in (solids, self._solids) for name in ("shown", "falls", "near")]
            )
            areas = areas[(areas[:, 0] < areas[:, 1]) & (areas[:, 2] < areas[:, 3])]
            if len(areas):
                low, high = areas.min(0), areas.max(0)
                self._draw(solids, np.array([low[0], high[1], low[2], high[3]]))
        self._rows, self._solids = rows, solids
        ids = self._now.ids
        return Picture(self._rgb.copy(), np.where(ids < 0, np.float32(0), self._now.depth), ids.copy())

    def _set_scene(self, camera: Camera, light: Light, static: Sequence[Body]) -> None:
        """Draw the static bodies."""
        from . import painting, shading, shadows

        view = self._view = View.of(camera, light, self.height, self.width)
        self._colours = (shading.lamp_colour(light), shading.sky_colour(light))
        layer, rows = self._base, pack(static)
        rising = view.up[0] * view.x + view.up[1] * view.y[:, None] + view.up[2]
        layer.light[:3] = 0
        layer.light[3:] = shading.wall(light)[:, None, None] * (0.8 + 0.35 * np.clip(rising + 0.4, 0, 1))
        layer.depth[:], layer.ids[:] = FAR, -1
        layer.lamp_share[:] = layer.open_share[:] = 1

        bodies = rows.view(BODY)[:, 0]
        boxes = bodies[bodies["form"] == 0]
        reach = (np.abs(boxes["turn"]) @ boxes["size"][..., None])[..., 0]
        low, high = boxes["place"] - reach, boxes["place"] + reach
        self._tops = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1], high[:, 2]], axis=1)
        self._ground = 0.0
        solids = self._prepare(rows)
        painting.paint(layer, solids, np.argsort(-solids["depth"], kind="stable"), 0, self._whole, view, *self._colours)
        # Shadows of static bodies end at the lowest point that is visible, and soften above what bodies stand on.
        seen = layer.ids >= 0
        heights = rising * layer.depth + np.float32(view.place[2])
        self._ground = float(heights[seen].min()) if seen.any() else 0.0
        self._fixed = self._prepare(rows)
        shadows.shade(layer, self._fixed, self._fixed[:0], 0, -np.inf, self._whole, view)
        # Those of moving bodies end on the top that shows most, a table's, not on the floor: that would cost too much.
        levels = np.unique(self._tops[:, 4])
        shows = [np.count_nonzero(np.abs(heights - np.float32(level)) < 1e-3) for level in levels]
        if any(shows):
            self._ground = float(levels[int(np.argmax(shows))]) - 1e-3

    def _prepare(self, rows: np.ndarray) -> np.ndarray:
        from . import solids

        found = np.zeros(len(rows), SOLID)
        solids.prepare(rows.view(BODY)[:, 0], self._view, self._ground, self._tops, found)
        return found

    def _draw(self, solids: np.ndarray, clip: np.ndarray) -> None:
        """Draw a rectangle with the moving bodies."""
        from . import painting, shading, shadows

        now, first = self._now, len(self._static)
        top, end, left, right = clip.tolist()
        for own, kept in zip(now, self._base, strict=True):
            own[..., top:end, left:right] = kept[..., top:end, left:right]
        order = np.argsort(-solids["depth"], kind="stable")
        painting.paint(now, solids, order, first, clip, self._view, *self._colours)
        shadows.shade(now, self._fixed, solids, first, -np.inf, clip, self._view)
        shadows.shade(now, solids, solids[:0], first, self._ground - 1e-3, clip, self._view)
        shading.develop(now, clip, shading.TABLE, self._rgb)
