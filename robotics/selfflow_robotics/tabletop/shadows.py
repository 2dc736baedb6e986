"""What bodies take from the light of what is behind them: soft shadows of the lamp, and darkness near a contact.

A body's shadow is the prism of its outline as the lamp sees it, as far as it is behind the body's lit surface. Both are
tested for the point that a pixel shows, wherever it lies, so shadows fall on tables, cabinets and other bodies alike,
and a convex body never shadows its own lit side.
"""

from __future__ import annotations

import numpy as np

from .rays import CORNERS, EDGE_FROM, EDGE_ONE, EDGE_OTHER, EDGE_TO, Rectangle, Solids, cross, ones_first
from .shapes import Camera, Light

_BEHIND = 0.002  # metres over which a shadow begins behind the lit surface
_CONTACT = 0.06  # bodies this far above what is beneath them no longer darken it
_REACH = 2.6  # radii around a body in which it does


class Shadows:
    """The shadows of prepared bodies.

    Args:
        ground: base-frame height beneath which nothing is visible.
        tops: ``(k, 5)`` of boxes that bodies may stand on: least and greatest x, least and greatest y, height.

    Attributes:
        shown: where in the picture each body can be; empty for those that cannot be seen.
        falls: where its shadow can fall; empty if it casts none.
        nears: the same of the darkness near its contact.
    """

    def __init__(self, solids: Solids, camera: Camera, light: Light, ground: float, tops: np.ndarray) -> None:
        self.solids = solids
        lamp = np.asarray(light.direction, np.float64)
        view = np.asarray(camera.turn, np.float64)
        self.lamp = lamp @ view
        corners = solids.corners @ view.T + camera.place
        centre = solids.place @ view.T + camera.place
        self.radius = np.sqrt((solids.size**2).sum(1))
        bottom = corners[..., 2].min(1)
        gap = np.maximum(bottom - _support(centre, bottom, ground, tops), 0.0)
        self.soft = np.clip(0.005 + 0.05 * gap, None, 0.03)
        casts = np.array([body.shadow for body in solids.bodies], bool) & ~solids.hidden
        self.casts = casts & bool(lamp[2] > 0.05)
        self.round = np.minimum(np.cbrt(solids.size.prod(1)), 1.5 * solids.size.min(1)) * 1.1
        dark = casts & (self.radius < 0.2) & (self.round > 0.008) & (gap < _CONTACT) & ~solids.hidden
        self.dark = np.where(dark, 0.7 * (1 - gap / _CONTACT), 0.0)

        drop = np.maximum(corners[..., 2] - ground + self.soft[:, None], 0.0) / max(lamp[2], 0.05)
        margin = CORNERS * self.soft[:, None, None] + solids.corners
        points = np.empty((3, len(centre), 16, 3))
        points[0, :, :8] = points[0, :, 8:] = solids.corners
        points[1, :, :8], points[1, :, 8:] = margin, margin - drop[..., None] * self.lamp
        points[2, :, :8] = CORNERS * (_REACH * self.round)[:, None, None] + solids.place[:, None]
        points[2, :, 8:] = points[2, :, :8]
        found = solids.grid.rectangles(points)
        found[:, solids.hidden] = 0
        found[1, ~self.casts] = 0
        found[2, ~dark] = 0
        self.shown, self.falls, self.nears = ([tuple(r) for r in kind] for kind in found.tolist())

        if solids.boxes.any():
            self._prepare_boxes()
        if not solids.boxes.all():
            self._prepare_round()
        # Radii of balls around the body, around it with its soft edge, and around the darkness near it.
        radii = [self.radius, self.radius + self.soft + 0.01, 2 * _REACH * self.round]
        self.balls: list[list[float]] = np.column_stack([solids.place, *radii]).tolist()
        axes = np.vstack([np.eye(3), -view[2]])  # the last is downwards
        self.around, self.around_offsets = axes.astype(np.float32), -(solids.place @ axes.T).astype(np.float32)

    def _prepare_boxes(self) -> None:
        """Half spaces ``normal P + offset >= 0`` whose intersection is a box's shadow, the body itself included."""
        solids, lamp = self.solids, self.lamp
        along = lamp @ solids.turn
        faces = np.stack([along < 0, along > 0], axis=2).reshape(-1, 6)
        outline = faces[:, EDGE_ONE] ^ faces[:, EDGE_OTHER]
        start = solids.corners[:, EDGE_FROM]
        normal = cross(solids.corners[:, EDGE_TO] - start, lamp)
        normal *= np.sign((normal * (solids.place[:, None] - start)).sum(2, keepdims=True))
        normal /= np.maximum(np.sqrt((normal**2).sum(2, keepdims=True)), 1e-12)
        offset = -(normal * start).sum(2)
        # Beneath the lit faces: as steep as _BEHIND, in units of the soft edge.
        lit = solids.turn.transpose(0, 2, 1) * np.sign(along)[..., None]
        steep = (self.soft / _BEHIND)[:, None]
        beneath = (lit * solids.place[:, None]).sum(2) + solids.size - 0.5 * _BEHIND
        half_spaces = np.concatenate([normal, -lit * steep[..., None]], axis=1)
        offsets = np.concatenate([offset, beneath * steep], axis=1)
        used = np.concatenate([outline, along != 0], axis=1)
        self.half_spaces = ones_first(half_spaces.astype(np.float32), used)
        self.offsets = ones_first(offsets.astype(np.float32), used)
        self.used = used.sum(1).tolist()

    def _prepare_round(self) -> None:
        """Directions in which points are measured: along the shadow's axis, across it, and towards the lamp.

        Of a cylinder, in place of the last: along its axis to the lit end, and away from its lit side.
        """
        solids, lamp = self.solids, self.lamp
        axis = solids.turn[:, :, 2]
        slope = axis @ lamp
        along = axis - slope[:, None] * lamp
        lean = np.sqrt((along**2).sum(1))
        upright = lean < 1e-6
        along[upright] = cross(lamp, np.eye(3)[np.argmin(np.abs(lamp))])
        along /= np.sqrt((along**2).sum(1, keepdims=True))
        facing = (lamp - slope[:, None] * axis) / np.maximum(lean, 1e-6)[:, None]
        third = np.where(solids.cylinders[:, None], axis * np.where(slope > 0, 1.0, -1.0)[:, None], lamp)
        measures = np.stack([along, cross(lamp, along), third, -facing], axis=1)
        self.measure_offsets = -(measures @ solids.place[..., None])[..., 0].astype(np.float32)
        self.measures = measures.astype(np.float32)
        self.slope, self.lean = slope.tolist(), lean.tolist()

    def lamp_share(self, i: int, rectangle: Rectangle, depth: np.ndarray) -> np.ndarray:
        """``(rows, columns)`` share of the lamp that body ``i`` leaves to the points at ``depth`` on pixels' rays."""
        form = self.solids.bodies[i].form
        if form == "box":
            used = self.used[i]
            distances = self._distances(self.half_spaces[i, :used], self.offsets[i, :used], rectangle, depth)
            inside = np.minimum.reduce(distances, axis=0)
            inside *= np.float32(1 / self.soft[i])
        else:
            inside = self._round(i, rectangle, depth, form == "cylinder")
        np.subtract(np.float32(0.5), inside, out=inside)
        np.maximum(inside, np.float32(0), out=inside)
        return np.minimum(inside, np.float32(1), out=inside)

    def _distances(
        self, normals: np.ndarray, offsets: np.ndarray, rectangle: Rectangle, depth: np.ndarray
    ) -> np.ndarray:
        found = self.solids.grid.affine(normals, rectangle)
        found *= depth
        found += offsets[:, None, None]
        return found

    def _round(self, i: int, rectangle: Rectangle, depth: np.ndarray, cylinder: bool) -> np.ndarray:
        solids, kinds = self.solids, 4 if cylinder else 3
        radius, half = solids.radius[i], solids.half[i]
        slope, lean = self.slope[i], self.lean[i]
        parts = self._distances(self.measures[i, :kinds], self.measure_offsets[i, :kinds], rectangle, depth)
        a, b, towards = parts[:3]
        if cylinder:
            # The shadow is two ellipses, one for each end, and what is between them.
            np.abs(a, out=a)
            ellipse = np.square(b)
            np.subtract(np.float32(radius * radius), ellipse, out=ellipse)
            np.maximum(ellipse, np.float32(0), out=ellipse)
            np.sqrt(ellipse, out=ellipse)
            ellipse *= abs(slope)
            ellipse += half * lean
            ellipse -= a
            np.abs(b, out=b)
            np.subtract(np.float32(radius), b, out=b)
            inside = np.minimum(b, ellipse, out=ellipse)
            # Beneath the lit end, and either behind the lit side or beyond the other end.
            behind = np.subtract(np.float32(-half), towards, out=b)
            if lean >= 1e-6:
                np.maximum(behind, parts[3], out=behind)
            np.subtract(np.float32(half), towards, out=towards)
            behind = np.minimum(behind, towards, out=behind) if lean >= 1e-6 else towards
        else:
            behind = np.negative(towards, out=towards)
            if half:
                extent = half * lean
                beside = np.clip(a, np.float32(-extent), np.float32(extent))
                a -= beside
                beside *= half * slope / max(extent, 1e-9)
                behind += beside
            a *= a
            b *= b
            a += b
            np.sqrt(a, out=a)
            inside = np.subtract(np.float32(radius), a, out=a)
        behind *= np.float32(1 / _BEHIND)
        behind -= np.float32(0.5)
        inside *= np.float32(1 / self.soft[i])
        return np.minimum(inside, behind, out=inside)

    def open_share(self, i: int, rectangle: Rectangle, depth: np.ndarray) -> np.ndarray:
        """``(rows, columns)`` share of the surroundings' light that body ``i``, taken for a ball, leaves beneath it."""
        parts = self._distances(self.around, self.around_offsets[i], rectangle, depth)
        beneath = np.maximum(parts[3], np.float32(0))
        parts *= parts
        squared = parts[0] + parts[1]
        squared += parts[2]
        np.maximum(squared, np.float32(1e-8), out=squared)
        radius = float(self.round[i])
        beneath *= np.float32(self.dark[i] * radius**2)
        beneath /= np.sqrt(squared)
        np.reciprocal(squared, out=squared)
        squared -= np.float32(1 / (_REACH * radius) ** 2)
        np.maximum(squared, np.float32(0), out=squared)
        beneath *= squared
        np.subtract(np.float32(1), beneath, out=beneath)
        return np.maximum(beneath, np.float32(0.3), out=beneath)


def _support(centre: np.ndarray, bottom: np.ndarray, ground: float, tops: np.ndarray) -> np.ndarray:
    """``(n,)`` height of what is beneath each body: the highest top under its centre that is not above its bottom."""
    under = (tops[:, 0] <= centre[:, :1]) & (centre[:, :1] <= tops[:, 1])
    under &= (tops[:, 2] <= centre[:, 1:2]) & (centre[:, 1:2] <= tops[:, 3])
    under &= tops[:, 4] <= bottom[:, None] + 0.02
    return np.where(under, tops[:, 4], ground).max(axis=1, initial=ground)
