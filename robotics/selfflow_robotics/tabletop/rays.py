"""Rays against boxes, spheres, cylinders and capsules: which pixels a body covers, how far away, with what normal.

Everything happens in the camera's frame, where the ray of a pixel is ``(x, y, 1)``, so that its parameter is the depth.
A plane's inverse depth and an edge's distance are then affine in ``x`` and ``y``, and a box needs nothing else; round
bodies need a square root. Bodies are prepared together in float64, pixels are worked in float32 within each body's
bounding rectangle. All operations on pixels are elementwise and exactly rounded, so that the same pixel gets the same
bits whatever rectangle it is computed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .cameras import focal_length
from .shapes import Body, Camera

NEAR = 0.01
FAR = 1e4
_SMALLEST = 1e-5

Rectangle = tuple[int, int, int, int]  # first row, end row, first column, end column

CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
# The twelve edges of a box: its two corners, and the two faces it lies between. Face 2 k + s looks along axis k, to the
# negative side for s = 0.
_EDGES = [
    (i, i | (4 >> k), 2 * a + int(CORNERS[i, a] > 0), 2 * b + int(CORNERS[i, b] > 0))
    for k, a, b in ((0, 1, 2), (1, 0, 2), (2, 0, 1))
    for i in range(8)
    if not i & (4 >> k)
]
EDGE_FROM, EDGE_TO, EDGE_ONE, EDGE_OTHER = (np.array(column) for column in zip(*_EDGES, strict=True))
_NEXT, _LAST = [1, 2, 0], [2, 0, 1]


class Grid:
    """The rays of a picture: ``x`` of its columns and ``y`` of its rows at depth 1."""

    def __init__(self, camera: Camera, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.focal = focal_length(camera, height)
        self.x = ((np.arange(width) + 0.5 - 0.5 * width) / self.focal).astype(np.float32)
        self.y = ((np.arange(height) + 0.5 - 0.5 * height) / self.focal).astype(np.float32)
        self.x_squared = np.square(self.x) + np.float32(1)
        self.y_squared = np.square(self.y)[:, None]

    def affine(self, coefficients: np.ndarray, rectangle: Rectangle) -> np.ndarray:
        """``(n, rows, columns)``: ``a x + b y + c`` for n rows ``(a, b, c)``."""
        top, end, left, right = rectangle
        across = coefficients[:, :1] * self.x[left:right]
        across += coefficients[:, 2:]
        down = coefficients[:, 1:2] * self.y[top:end]
        return across[:, None, :] + down[:, :, None]

    def rectangles(self, corners: np.ndarray, margin: float = 1.5) -> np.ndarray:
        """``(n, 4)`` rectangles around ``(n, k, 3)`` points of the camera's frame, cut to the picture.

        Nothing of points all behind the camera; the whole picture where some are.
        """
        depth = corners[..., 2]
        ahead = depth > NEAR
        scale = self.focal / np.where(ahead, depth, 1.0)
        columns = corners[..., 0] * scale + 0.5 * self.width
        rows = corners[..., 1] * scale + 0.5 * self.height
        found = np.stack(
            [rows.min(-1) - margin, rows.max(-1) + margin, columns.min(-1) - margin, columns.max(-1) + margin], axis=-1
        )
        found[~ahead.all(-1)] = (0, self.height, 0, self.width)
        found[~ahead.any(-1)] = 0
        ends = np.array([self.height, self.height, self.width, self.width])
        return np.clip(np.nan_to_num(found), 0, ends).astype(np.int64)


class Solids:
    """Bodies prepared for one camera.

    Args:
        towards: ``(2, 3)`` directions of the lamp and of the zenith in the camera's frame.

    Attributes:
        bodies: as given; every array below has one row for each.
        place: ``(n, 3)`` centres, and ``turn`` ``(n, 3, 3)`` own axes -> frame, both in the camera's frame.
        size: ``(n, 3)`` half extents of the bounding box along the body's own axes.
        radius, half: of round bodies; ``half`` is half the length of the axis, without caps.
        corners: ``(n, 8, 3)`` of that box.
        origin: ``(n, 3)`` the camera in the body's frame.
        own: ``(n, 3, 3)`` in the body's frame: the lamp, the zenith, and half way between the lamp and the camera.
        hidden: ``(n,)`` bodies that contain the camera or have a place or turn that is not finite.
        depth: ``(n,)`` of the farthest corner.
    """

    def __init__(self, bodies: Sequence[Body], camera: Camera, grid: Grid, towards: np.ndarray) -> None:
        n = len(bodies)
        self.bodies, self.grid = bodies, grid
        place = np.array([body.place for body in bodies], np.float64).reshape(n, 3)
        turn = np.array([body.turn for body in bodies], np.float64).reshape(n, 3, 3)
        broken = None
        if not math.isfinite(float(place.sum()) + float(turn.sum())):
            broken = ~(np.isfinite(place).all(1) & np.isfinite(turn).all((1, 2)))
            place[broken], turn[broken] = 0.0, np.eye(3)
        view = np.asarray(camera.turn, np.float64).T
        self.place = (place - camera.place) @ view.T
        self.turn = view @ turn
        sizes = [_extents(body) for body in bodies]
        self.size = np.maximum(np.array([size for size, _, _ in sizes]).reshape(n, 3), _SMALLEST)
        self.radius = [max(radius, _SMALLEST) for _, radius, _ in sizes]
        self.half = [half for _, _, half in sizes]
        # Row j of corners @ turn.T is turn @ corner j.
        self.corners = (CORNERS * self.size[:, None]) @ self.turn.transpose(0, 2, 1) + self.place[:, None]
        self.origin = -(self.place[:, None] @ self.turn)[:, 0]
        self.hidden = self._around_camera()
        if broken is not None:
            self.hidden |= broken
        self.depth = self.corners[:, :, 2].max(1)
        self.depths: list[float] = self.depth.tolist()
        axes = self.turn.transpose(0, 2, 1)
        self.rays = axes.astype(np.float32)
        self.boxes = np.array([body.form == "box" for body in bodies], bool)
        self.cylinders = np.array([body.form == "cylinder" for body in bodies], bool)
        half = towards[0] - self.place / np.maximum(_length(self.place), 1e-9)
        half /= np.maximum(_length(half), 1e-9)
        directions = np.concatenate([np.broadcast_to(towards, (n, 2, 3)), half[:, None]], axis=1)
        self.own = directions @ self.turn
        if self.boxes.any():
            self._prepare_boxes()
        # Of round bodies: the cosines' parts that follow the ray, and the ray's moment about the axis.
        flat = self.own / np.maximum(np.array(self.radius), _SMALLEST).reshape(n, 1, 1)
        self.axial = flat[:, :, 2].astype(np.float32)
        flat[self.cylinders, :, 2] = 0
        self.follow = (flat @ axes).astype(np.float32)
        self.start = (flat @ self.origin[..., None])[..., 0].astype(np.float32)
        moment = self.origin[:, :1] * axes[:, 1] - self.origin[:, 1:2] * axes[:, 0]
        self.moving = np.concatenate([axes, moment[:, None]], axis=1).astype(np.float32)
        self.scale = (self.grid.focal / np.maximum(self.place[:, 2], NEAR)).tolist()
        self.starts = self.origin.tolist()

    def _around_camera(self) -> np.ndarray:
        inside = (np.abs(self.origin) <= self.size).all(1)
        for i in np.flatnonzero(inside).tolist():
            form, (x, y, z) = self.bodies[i].form, self.origin[i]
            beyond = 0.0 if form == "cylinder" else max(abs(z) - self.half[i], 0.0)
            if form != "box" and x * x + y * y + beyond * beyond > self.radius[i] ** 2:
                inside[i] = False
        return inside

    def _prepare_boxes(self) -> None:
        side = np.where(np.abs(self.origin) > self.size, np.sign(self.origin), 0.0)
        faces = np.stack([side < 0, side > 0], axis=2).reshape(-1, 6)
        outline = faces[:, EDGE_ONE] ^ faces[:, EDGE_OTHER]
        # An edge and the camera span a plane; the box's centre is on the side that counts as inside. Scaled to pixels.
        lines = cross(self.corners[:, EDGE_FROM], self.corners[:, EDGE_TO])
        lines *= np.sign((lines * self.place[:, None]).sum(2, keepdims=True))
        # The plane of an edge that the camera looks along misses the whole picture; only its sign matters then.
        lines *= self.grid.focal / np.maximum(_length(lines[..., :2]), 1e-12)
        gap = np.where(side != 0, side * self.size - self.origin, 1.0)
        planes = self.turn.transpose(0, 2, 1) / gap[..., None]
        self.lines = ones_first(lines.clip(-1e18, 1e18).astype(np.float32), outline)
        self.planes = ones_first(planes.clip(-1e18, 1e18).astype(np.float32), side != 0)
        facing = (self.own * side[:, None]).transpose(0, 2, 1).astype(np.float32)
        self.facing = ones_first(facing, side != 0)
        self.edges, self.faces = outline.sum(1).tolist(), (side != 0).sum(1).tolist()


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """np.cross of ``(..., 3)`` at a quarter of its price for small arrays."""
    return a[..., _NEXT] * b[..., _LAST] - a[..., _LAST] * b[..., _NEXT]


def ones_first(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """``(n, k, ...)`` with the chosen ``(n, k)`` of each row moved to its front."""
    order = np.argsort(~chosen, axis=1, kind="stable")
    return values[np.arange(len(values))[:, None], order]


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors * vectors).sum(-1, keepdims=True))


def _extents(body: Body) -> tuple[tuple[float, float, float], float, float]:
    """Half extents along the own axes, radius and half length of the axis."""
    size = [abs(float(value)) for value in body.size]
    if body.form == "box":
        return (size[0], size[1], size[2]), 0.0, 0.0
    radius, half = size[0], size[1] if len(size) > 1 and body.form != "sphere" else 0.0
    return (radius, radius, half + (0.0 if body.form == "cylinder" else radius)), radius, half


@dataclass(slots=True)
class Hit:
    """What rays met in a rectangle; arrays ``(rows, columns)``.

    Attributes:
        inside: distance to the body's outline in pixels, positive inside (right to first order near the outline).
        depth: of the surface; meaningless more than a pixel outside.
        along: ``(3, rows, columns)`` cosines between the normal and the body's ``own`` directions; ``(3, 1, 1)`` where
            they are constant.
    """

    inside: np.ndarray
    depth: np.ndarray
    along: np.ndarray


def cast(solids: Solids, i: int, rectangle: Rectangle) -> Hit:
    """Rays of the rectangle's pixels against body ``i``."""
    form = solids.bodies[i].form
    if form == "box":
        return _box(solids, i, rectangle)
    return _cylinder(solids, i, rectangle) if form == "cylinder" else _rounded(solids, i, rectangle)


def _box(solids: Solids, i: int, rectangle: Rectangle) -> Hit:
    grid, faces = solids.grid, solids.faces[i]
    inside = np.minimum.reduce(grid.affine(solids.lines[i, : solids.edges[i]], rectangle), axis=0)
    near = grid.affine(solids.planes[i, :faces], rectangle)
    facing = solids.facing[i, :, :, None, None]
    # The ray enters where it has entered all slabs: at the largest depth, the least inverse depth.
    inverse, along = near[0], facing[0].copy()
    for face in range(1, faces):
        nearer = near[face] < inverse
        along = np.where(nearer, facing[face], along)
        np.minimum(inverse, near[face], out=inverse)
    np.maximum(inverse, np.float32(1 / FAR), out=inverse)
    return Hit(inside, np.reciprocal(inverse, out=inverse), along)


def _cylinder(solids: Solids, i: int, rectangle: Rectangle) -> Hit:
    grid, radius, half = solids.grid, solids.radius[i], max(solids.half[i], _SMALLEST)
    ox, oy, oz = solids.starts[i]
    dx, dy, dz, turning = grid.affine(solids.moving[i], rectangle)
    across = np.square(dx)
    across += np.square(dy)
    np.maximum(across, np.float32(1e-12), out=across)
    dx *= -ox
    dy *= -oy
    dx += dy
    middle = np.divide(dx, across, out=dx)  # depth of the point nearest to the axis
    turning *= turning
    turning /= across  # squared distance between ray and axis
    reach = np.subtract(np.float32(radius * radius), turning, out=dy)
    np.maximum(reach, np.float32(0), out=reach)
    reach /= across
    np.sqrt(reach, out=reach)
    enter = middle - reach
    z_enter = enter * dz
    z_enter += oz
    middle += reach
    middle *= dz
    middle += oz  # where the ray leaves
    over = np.maximum(z_enter, middle)
    over += half
    under = np.minimum(z_enter, middle, out=middle)
    np.subtract(np.float32(half), under, out=under)
    np.minimum(over, under, out=over)
    # An end's distance along the axis, seen at a slant.
    over *= max(math.hypot(ox, oy) / max(math.hypot(ox, oy, oz), 1e-9), 1e-3)
    np.sqrt(turning, out=turning)
    np.subtract(np.float32(radius), turning, out=turning)
    inside = np.minimum(turning, over, out=over)
    inside *= solids.scale[i]
    along = grid.affine(solids.follow[i], rectangle)
    along *= enter
    along += solids.start[i, :, None, None]
    if abs(oz) > half:
        sign = 1.0 if oz > 0 else -1.0
        end = z_enter * sign > half
        dz[dz == 0] = 1e-9
        np.divide(np.float32(sign * half - oz), dz, out=dz)
        np.copyto(enter, dz, where=end)
        np.copyto(along, solids.own[i, :, 2, None, None] * sign, where=end, casting="same_kind")
    return Hit(inside, _ahead(enter), along)


def _rounded(solids: Solids, i: int, rectangle: Rectangle) -> Hit:
    """A sphere, or a capsule: a capsule's hit lies on the sphere about the point of its axis that is beside the hit."""
    grid, radius = solids.grid, solids.radius[i]
    top, end, left, right = rectangle
    squared = grid.x_squared[left:right] + grid.y_squared[top:end]
    if solids.half[i]:
        middle, turning, beside = _beside(solids, i, rectangle, squared)
    else:
        # |d x o|^2 keeps its digits where (d o)^2 - d^2 o^2 loses them.
        x, y, z = solids.place[i].tolist()
        rows = np.array([[x, y, z], [0, z, -y], [-z, 0, x], [y, -x, 0]], np.float32)
        parts = grid.affine(rows, rectangle)
        middle, crossed, beside = parts[0], parts[1:], None
        crossed *= crossed
        turning = np.add.reduce(crossed, axis=0)
    inside = np.maximum(turning, np.float32(0))
    inside /= squared
    np.sqrt(inside, out=inside)
    np.subtract(np.float32(radius), inside, out=inside)
    inside *= solids.scale[i]
    enter = squared * np.float32(radius * radius)
    enter -= turning
    np.maximum(enter, np.float32(0), out=enter)
    np.sqrt(enter, out=enter)
    np.subtract(middle, enter, out=enter)
    enter /= squared
    along = grid.affine(solids.follow[i], rectangle)
    along *= enter
    along += solids.start[i, :, None, None]
    if beside is not None:
        along -= beside * solids.axial[i, :, None, None]
    return Hit(inside, _ahead(enter), along)


def _beside(
    solids: Solids, i: int, rectangle: Rectangle, squared: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a capsule's rays, with the sphere's centre beside each hit: d o, |d x o|^2, and the centre on the axis."""
    radius, half = solids.radius[i], solids.half[i]
    ox, oy, oz = solids.starts[i]
    dx, dy, dz, turning = solids.grid.affine(solids.moving[i], rectangle)
    across = np.square(dx)
    across += np.square(dy)
    np.maximum(across, np.float32(1e-12), out=across)
    dx *= -ox
    dy *= oy
    middle = np.subtract(dx, dy, out=dx)
    turning *= turning
    reach = across * np.float32(radius * radius)
    reach -= turning
    np.maximum(reach, np.float32(0), out=reach)
    np.sqrt(reach, out=reach)
    beside = np.subtract(middle, reach, out=reach)
    beside /= across
    beside *= dz
    beside += oz
    np.maximum(beside, np.float32(-half), out=beside)
    np.minimum(beside, np.float32(half), out=beside)
    apart = np.subtract(np.float32(oz), beside, out=dy)
    dz *= apart
    middle -= dz
    apart *= apart
    apart += ox * ox + oy * oy
    apart *= squared
    apart -= np.square(middle, out=turning)
    return middle, apart, beside


def _ahead(depth: np.ndarray) -> np.ndarray:
    """Hits behind the camera are sent far away, where the depth test drops them."""
    np.copyto(depth, np.float32(FAR), where=depth < NEAR)
    return depth
