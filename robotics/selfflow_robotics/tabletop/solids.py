"""Bodies prepared for a camera and a lamp: outlines, faces, shadows, and the rectangles in which they are seen.

Everything is in the camera's frame, where the ray of a pixel is ``(x, y, 1)``, so that its parameter is the depth. The
inverse depth of a plane and the distance from an edge are then affine in ``x`` and ``y``.
"""

from __future__ import annotations

import math

import numpy as np

from .compiled import kernel, step
from .rows import NEAR

_BOX, _SPHERE, _CYLINDER = 0, 1, 2
_SMALLEST = 1e-5
_CONTACT = 0.06  # bodies this far above what is beneath them no longer darken it
REACH = 2.6  # radii around a body in which it does

_CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
# The twelve edges of a box: its two corners, and the two faces it lies between, each as its axis and its side.
_EDGES = np.array(
    [
        (i, i | (4 >> k), a, int(_CORNERS[i, a]), b, int(_CORNERS[i, b]))
        for k, a, b in ((0, 1, 2), (1, 0, 2), (2, 0, 1))
        for i in range(8)
        if not i & (4 >> k)
    ]
)


@kernel
def prepare(bodies, view, ground, tops, solids):
    """Fill rows of SOLID from rows of BODY.

    Args:
        ground: base-frame height beneath which nothing is visible.
        tops: ``(k, 5)`` of boxes that bodies may stand on: least and greatest x, least and greatest y, height.
    """
    corners, points = np.empty((8, 3)), np.empty((16, 3))
    for i in range(len(bodies)):
        body, s = bodies[i], solids[i]
        finite = _take(body, view, s)
        for k in range(8):
            for j in range(3):
                corners[k, j] = s.place[j]
                for axis in range(3):
                    corners[k, j] += _CORNERS[k, axis] * s.size[axis] * s.axes[axis, j]
            s.depth = corners[k, 2] if k == 0 else max(s.depth, corners[k, 2])
        _seen_faces(s, view, corners)
        gap = _stand(s, view, ground, tops, corners)
        s.soft = min(0.005 + 0.05 * gap, 0.03)
        s.ball = _norm(s.size)
        least = s.size[s.order[0]]
        s.round = min((s.size[0] * s.size[1] * s.size[2]) ** (1 / 3), 1.5 * least) * 1.1
        there = finite and not _around_camera(s)
        darkens = there and body.shadow != 0 and s.ball < 0.2 and s.round > 0.008 and gap < _CONTACT
        s.dark = 0.7 * (1 - gap / _CONTACT) if darkens else 0.0

        _surround(corners, 8, 0.0, view, there, s.shown)
        for k in range(8):
            above = view.place[2] + _dot(view.up, corners[k]) - ground
            fall = max(above + s.soft, 0.0) / max(view.rise, 0.05)
            for j in range(3):
                points[k, j] = corners[k, j]
                points[8 + k, j] = corners[k, j] - fall * view.lamp[j]
        casts = there and body.shadow != 0 and view.rise > 0.05
        _surround(points, 16, s.soft, view, casts, s.falls)
        if casts and s.form == _BOX:
            _shadow_walls(s, view.lamp, corners)
        elif casts:
            _shadow_measures(s, view.lamp)
        for k in range(8):
            for j in range(3):
                points[k, j] = s.place[j] + _CORNERS[k, j] * REACH * s.round
        _surround(points, 8, 0.0, view, darkens, s.near)


@step
def _norm(v):
    return math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])


@step
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@step
def _cross(a, b, out):
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        out[k] = a[i] * b[j] - a[j] * b[i]


@step
def _scale(v, factor):
    for k in range(3):
        v[k] *= factor


@step
def _sign(value):
    return 1.0 if value > 0 else (-1.0 if value < 0 else 0.0)


@step
def _take(body, view, s):
    """Form, look, place and turn; whether they are finite. Those of a body that is not are replaced."""
    s.form, s.texture, s.gloss = int(body.form), int(body.texture), body.gloss
    total = 0.0
    for k in range(3):
        total += body.place[k] + body.size[k] + body.turn[k, 0] + body.turn[k, 1] + body.turn[k, 2]
    finite = math.isfinite(total)
    radius, half = 0.0, 0.0
    for k in range(3):
        s.colour[k], s.accent[k] = body.colour[k], body.accent[k]
        s.size[k] = body.size[k] if finite else 1.0
    if s.form != _BOX:
        radius, half = s.size[0], 0.0 if s.form == _SPHERE else s.size[1]
        s.size[1], s.size[2] = radius, half + (0.0 if s.form == _CYLINDER else radius)
    s.radius, s.half = max(radius, _SMALLEST), half
    for k in range(3):
        s.size[k], s.order[k] = max(s.size[k], _SMALLEST), k
        s.place[k] = 0.0
        for j in range(3):
            s.place[k] += (body.place[j] - view.place[j]) * view.turn[j, k] if finite else 0.0
            s.axes[j, k] = 0.0
            for m in range(3):
                s.axes[j, k] += view.turn[m, k] * body.turn[m, j] if finite else 0.0
    for k in (0, 1, 0):  # three exchanges sort three
        if s.size[s.order[k + 1]] < s.size[s.order[k]]:
            s.order[k], s.order[k + 1] = s.order[k + 1], s.order[k]
    s.scale = view.focal / max(s.place[2], NEAR)
    half_way, away = np.empty(3), max(_norm(s.place), 1e-9)
    for k in range(3):
        half_way[k] = view.lamp[k] - s.place[k] / away
    _scale(half_way, 1 / max(_norm(half_way), 1e-9))
    for k in range(3):
        axis = s.axes[k]
        s.origin[k] = -_dot(axis, s.place)
        s.own[0, k], s.own[1, k], s.own[2, k] = _dot(axis, view.lamp), _dot(axis, view.up), _dot(axis, half_way)
    return finite


@step
def _around_camera(s):
    """Whether the camera is inside the body."""
    x, y, z = abs(s.origin[0]), abs(s.origin[1]), abs(s.origin[2])
    if x > s.size[0] or y > s.size[1] or z > s.size[2]:
        return False
    beyond = 0.0 if s.form == _CYLINDER else max(z - s.half, 0.0)
    return s.form == _BOX or x * x + y * y + beyond * beyond <= s.radius**2


@step
def _outline(side, edge):
    """Whether a box's edge lies between a face of one of the given sides and one that is not."""
    return (side[edge[2]] == edge[3]) != (side[edge[4]] == edge[5])


@step
def _seen_faces(s, view, corners):
    side = np.zeros(3)
    s.faces, s.edges = 0, 0
    for k in range(3):
        if abs(s.origin[k]) > s.size[k]:
            side[k] = _sign(s.origin[k])
            gap = side[k] * s.size[k] - s.origin[k]
            for j in range(3):
                s.planes[s.faces, j] = s.axes[k, j] / gap
                s.facing[s.faces, j] = s.own[j, k] * side[k]
            s.faces += 1
    line = np.empty(3)
    for e in range(12):
        edge = _EDGES[e]
        if _outline(side, edge):
            # The edge and the camera span a plane; the box's centre is on the side that counts as inside.
            _cross(corners[edge[0]], corners[edge[1]], line)
            # The plane of an edge that the camera looks along misses the whole picture; only its sign matters then.
            length = max(math.sqrt(line[0] ** 2 + line[1] ** 2), 1e-12)
            factor = _sign(_dot(line, s.place)) * view.focal / length
            for j in range(3):
                s.lines[s.edges, j] = line[j] * factor
            s.edges += 1


@step
def _stand(s, view, ground, tops, corners):
    """How far the body is above what is beneath it: the highest top under its centre not above its lowest point."""
    bottom, support = math.inf, ground
    for k in range(8):
        bottom = min(bottom, view.place[2] + _dot(view.up, corners[k]))
    x, y = view.place[0] + _dot(view.turn[0], s.place), view.place[1] + _dot(view.turn[1], s.place)
    for k in range(len(tops)):
        under = tops[k, 0] <= x <= tops[k, 1] and tops[k, 2] <= y <= tops[k, 3]
        if under and support < tops[k, 4] <= bottom + 0.02:
            support = tops[k, 4]
    return max(bottom - support, 0.0)


@step
def _surround(points, count, soft, view, there, out):
    """The rectangle of points and ``soft`` metres around them; the whole picture where some are behind the camera."""
    ahead, nearest = 0, math.inf
    top, end, left, right = math.inf, -math.inf, math.inf, -math.inf
    for k in range(count):
        depth = points[k, 2]
        if depth > NEAR:
            row, column = points[k, 1] / depth, points[k, 0] / depth
            ahead, nearest = ahead + 1, min(nearest, depth)
            top, end, left, right = min(top, row), max(end, row), min(left, column), max(right, column)
    for k in range(4):
        out[k] = 0
    if there and ahead > 0:
        margin = 1.5 + soft * view.focal / nearest if ahead == count else math.inf
        height, width = len(view.y), len(view.x)
        out[0], out[1] = _pixel(top, -margin, view.focal, height), _pixel(end, margin, view.focal, height)
        out[2], out[3] = _pixel(left, -margin, view.focal, width), _pixel(right, margin, view.focal, width)


@step
def _pixel(place, margin, focal, limit):
    return int(min(max(place * focal + 0.5 * limit + margin, 0.0), limit))


@step
def _shadow_walls(s, lamp, corners):
    """Half spaces whose intersection is a box's shadow, the body itself included; not yet cut at the lit faces."""
    side, along, normal = np.empty(3), np.empty(3), np.empty(3)
    for k in range(3):
        side[k] = _sign(s.own[0, k])
    s.sides = 0
    # First beneath the lit faces, which leaves out most points.
    for k in range(3):
        if side[k] != 0:
            for j in range(3):
                s.walls[s.sides, j] = -side[k] * s.axes[k, j]
            s.walls[s.sides, 3] = side[k] * _dot(s.axes[k], s.place) + s.size[k]
            s.sides += 1
    s.lit = s.sides
    for e in range(12):
        edge = _EDGES[e]
        if _outline(side, edge):
            start, end = corners[edge[0]], corners[edge[1]]
            for j in range(3):
                along[j] = end[j] - start[j]
            _cross(along, lamp, normal)
            _scale(normal, _sign(_dot(normal, s.place) - _dot(normal, start)) / max(_norm(normal), 1e-12))
            for j in range(3):
                s.walls[s.sides, j] = normal[j]
            s.walls[s.sides, 3] = -_dot(normal, start)
            s.sides += 1


@step
def _shadow_measures(s, lamp):
    """Along the shadow's axis, across it, and towards the lamp.

    Of a cylinder, in place of the last: along its axis to the lit end, and away from its lit side.
    """
    axis, along, other = s.axes[2], s.measures[0], np.zeros(3)
    slope = _dot(axis, lamp)
    for k in range(3):
        along[k] = axis[k] - slope * lamp[k]
    lean = _norm(along)
    s.slope, s.lean = slope, lean
    if lean < 1e-6:  # any direction across the lamp's will do
        other[0 if abs(lamp[0]) < 0.7 else 1] = 1.0
        _cross(lamp, other, along)
    _scale(along, 1 / _norm(along))
    _cross(lamp, along, s.measures[1])
    for k in range(3):
        s.measures[2, k] = lamp[k] if s.form != _CYLINDER else (axis[k] if slope > 0 else -axis[k])
        s.measures[3, k] = (slope * axis[k] - lamp[k]) / max(lean, 1e-6)
