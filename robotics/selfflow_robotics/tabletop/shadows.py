"""What bodies take from the light of what is behind them: soft shadows of the lamp, and darkness near a contact.

A body's shadow is the prism of its outline as the lamp sees it, as far as it is behind the body's lit surface. Both are
tested for the point that a pixel shows, wherever it lies, so shadows fall on tables, cabinets and other bodies alike,
and a convex body never shadows its own lit side.
"""

from __future__ import annotations

import math

import numpy as np

from .compiled import kernel, part, wide

_BOX, _CYLINDER = 0, 2
_BEHIND = 0.002  # metres over which a shadow begins behind the lit surface
_REACH = 2.6  # radii around a body in which it darkens what is beneath it
_f, _u = np.float32, np.uint64  # an unsigned index is not checked for counting from the end


@kernel
def shade(layer, casters, receivers, first, lowest, clip, view):
    """Shadow what a layer shows within ``clip``; of several shadows the deepest counts.

    With receivers, only those are shadowed: the bodies whose numbers in ids begin with ``first``. Without, all is that
    is not lower than ``lowest`` in the base frame.
    """
    found, around = np.empty(len(view.x), np.float32), np.empty(4, np.int64)
    for k in range(len(casters)):
        s = casters[k]
        for j in range(4):
            around[j] = clip[j] if len(receivers) == 0 else (1 << 30) * (1 - j % 2)
        for i in range(len(receivers)):
            other = receivers[i]
            if _reaches(s, other, view.lamp):
                for j in (0, 2):
                    around[j] = min(around[j], max(clip[j], other.shown[j]))
                    around[j + 1] = max(around[j + 1], min(clip[j + 1], other.shown[j + 1]))
        _shade(layer, s, around, first if len(receivers) else -1, lowest, view, found)


@part
def _reaches(s, other, lamp):
    """Whether a body's shadow or darkness may meet a ball around another."""
    p, q = s.place, other.place
    a, b, c = q[0] - p[0], q[1] - p[1], q[2] - p[2]
    squared, near, reach = a * a + b * b + c * c, other.ball + 2 * _REACH * s.round, other.ball + s.soft + 0.01
    if s.dark > 0 and squared < near * near:
        return True
    if s.form == _BOX:
        for k in range(s.sides):
            w = s.walls[k]
            if w[0] * q[0] + w[1] * q[1] + w[2] * q[2] + w[3] < -reach:
                return False
        return True
    along, reach = a * lamp[0] + b * lamp[1] + c * lamp[2], reach + s.ball
    return squared - along * along < reach * reach and along < reach


@part
def _shade(layer, s, clip, first, lowest, view, found):
    """One body's shadow and darkness, on what has the number ``first`` or a higher one."""
    for kind in range(2):
        shares = layer.open_share if kind else layer.lamp_share
        rectangle = s.near if kind else s.falls
        left, right = max(clip[2], rectangle[2]), min(clip[3], rectangle[3])
        if left >= right:
            continue
        start, end = wide(left, right, len(view.x))
        for row in range(max(clip[0], rectangle[0]), min(clip[1], rectangle[1])):
            if kind:
                _open_shares(s, view, row, start, end, layer.depth, found)
            elif s.form == _BOX:
                _box_shares(s, view, row, start, end, layer.depth, found)
            elif s.form == _CYLINDER:
                _cylinder_shares(s, view, row, start, end, layer.depth, found)
            else:
                _capsule_shares(s, view, row, start, end, layer.depth, found)
            rise, rest = _f(view.up[0]), _f(view.up[1] * view.y[row] + view.up[2])
            least = _f(lowest - view.place[2])
            for k in range(_u(left), _u(right)):
                reached = (layer.ids[row, k] >= first) & ((rise * view.x[k] + rest) * layer.depth[row, k] >= least)
                share = min(found[k], shares[row, k])
                shares[row, k] = share if reached else shares[row, k]


@part
def _box_shares(s, view, row, left, right, depth, found):
    """Shares of the lamp that a body leaves to a row's points."""
    x, y = view.x, view.y[row]
    for i in range(0, s.sides, 3):
        a0, b0, c0 = _wall(s, i, y)
        a1, b1, c1 = _wall(s, i + 1, y)
        a2, b2, c2 = _wall(s, i + 2, y)
        for k in range(_u(left), _u(right)):
            z = depth[row, k]
            inside = min(min((a0 * x[k] + b0) * z + c0, (a1 * x[k] + b1) * z + c1), (a2 * x[k] + b2) * z + c2)
            found[k] = inside if i == 0 else min(found[k], inside)
    for k in range(_u(left), _u(right)):
        found[k] = min(max(_f(0.5) - found[k], _f(0)), _f(1))


@part
def _wall(s, i, y):
    """How far a row's points are inside one of the half spaces of a box's shadow, as ``(a x + b) depth + c``."""
    if i >= s.sides:
        return _f(0), _f(0), _f(1e9)
    w, factor = s.walls[i], 1 / (_BEHIND if i < s.lit else s.soft)
    return _f(w[0] * factor), _f((w[1] * y + w[2]) * factor), _f(w[3] * factor - (0.5 if i < s.lit else 0.0))


@part
def _measure(s, i, y):
    """A round body's measure of a row's points, as a, b, c of ``(a x + b) depth + c``."""
    m = s.measures[i]
    offset = m[0] * s.place[0] + m[1] * s.place[1] + m[2] * s.place[2]
    return _f(m[0]), _f(m[1] * y + m[2]), _f(-offset)


@part
def _cylinder_shares(s, view, row, left, right, depth, found):
    x, y = view.x, view.y[row]
    a0, b0, c0 = _measure(s, 0, y)
    a1, b1, c1 = _measure(s, 1, y)
    a2, b2, c2 = _measure(s, 2, y)
    a3, b3, c3 = _measure(s, 3, y)
    radius, half, slope, extent = _f(s.radius), _f(s.half), _f(abs(s.slope)), _f(s.half * s.lean)
    upright, per_soft, per_behind = s.lean < 1e-6, _f(1 / s.soft), _f(1 / _BEHIND)
    for k in range(_u(left), _u(right)):
        along, across = (a0 * x[k] + b0) * depth[row, k] + c0, abs((a1 * x[k] + b1) * depth[row, k] + c1)
        towards = (a2 * x[k] + b2) * depth[row, k] + c2
        # The shadow is two ellipses, one for each end, and what is between them.
        ellipse = math.sqrt(max(radius * radius - across * across, _f(0))) * slope + extent - abs(along)
        # Beneath the lit end, and either behind the lit side or beyond the other end.
        side = max(-half - towards, (a3 * x[k] + b3) * depth[row, k] + c3)
        behind = min(half - towards, _f(1e9) if upright else side)
        inside = min(min(radius - across, ellipse) * per_soft, behind * per_behind - _f(0.5))
        found[k] = min(max(_f(0.5) - inside, _f(0)), _f(1))


@part
def _capsule_shares(s, view, row, left, right, depth, found):
    x, y = view.x, view.y[row]
    a0, b0, c0 = _measure(s, 0, y)
    a1, b1, c1 = _measure(s, 1, y)
    a2, b2, c2 = _measure(s, 2, y)
    radius, extent = _f(s.radius), _f(s.half * s.lean)
    rises, per_soft, per_behind = _f(s.slope / max(s.lean, 1e-9)), _f(1 / s.soft), _f(1 / _BEHIND)
    for k in range(_u(left), _u(right)):
        along, across = (a0 * x[k] + b0) * depth[row, k] + c0, (a1 * x[k] + b1) * depth[row, k] + c1
        towards = (a2 * x[k] + b2) * depth[row, k] + c2
        beside = min(max(along, -extent), extent)
        along -= beside
        behind = beside * rises - towards
        inside = (radius - math.sqrt(along * along + across * across)) * per_soft
        inside = min(inside, behind * per_behind - _f(0.5))
        found[k] = min(max(_f(0.5) - inside, _f(0)), _f(1))


@part
def _open_shares(s, view, row, left, right, depth, found):
    """Shares of the surroundings' light that a body, taken for a ball, leaves to what is beneath it."""
    x, y, up = view.x, view.y[row], view.up
    px, py, pz = _f(s.place[0]), _f(s.place[1]), _f(s.place[2])
    ux, uy, uz, y = _f(-up[0]), _f(-up[1]), _f(-up[2]), _f(y)
    strength, limit = _f(s.dark * s.round**2), _f(1 / (_REACH * s.round) ** 2)
    for k in range(_u(left), _u(right)):
        a, b, c = x[k] * depth[row, k] - px, y * depth[row, k] - py, depth[row, k] - pz
        squared = max(a * a + b * b + c * c, _f(1e-8))
        beneath = max(ux * a + uy * b + uz * c, _f(0)) * strength
        fades = max(_f(1) / squared - limit, _f(0))
        found[k] = max(_f(1) - beneath / math.sqrt(squared) * fades, _f(0.3))
