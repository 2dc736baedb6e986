"""Rays against boxes, spheres, cylinders and capsules, and how their surfaces look where nothing shadows them.

A body is worked row by row within its outline, in loops over columns that have no branches and write one array or two,
so that the compiler makes vector instructions of them.
"""

from __future__ import annotations

import math

import numpy as np

from .compiled import kernel, part, wide
from .rows import FAR, NEAR

_BOX, _CYLINDER = 0, 2
_PLAIN, _LABEL, _STRIPES, _CHECKER, _WOOD = range(5)
_f, _u = np.float32, np.uint64  # an unsigned index is not checked for counting from the end
_NEAR, _FAR, _TINY = _f(NEAR), _f(FAR), _f(1e-12)
_0, _HALF, _1, _2, _3 = _f(0), _f(0.5), _f(1), _f(2), _f(3)


@kernel
def paint(layer, solids, order, first, clip, view, lamp, sky):
    """Draw bodies one over the other, edges blended by how much of a pixel they cover.

    Args:
        order: rows of ``solids``, far to near.
        first: number in ids of the first row.
        clip: first row, end row, first column, end column of what is drawn.
        lamp, sky: ``(3,)`` linear colours.
    """
    width = len(view.x)
    inside, depth, extra = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    share, cover = np.zeros(width, np.float32), np.empty(width, np.float32)
    cosines, columns = np.empty((3, width), np.float32), np.empty(2, np.int64)
    for i in order:
        s = solids[i]
        if s.texture == _PLAIN:
            share[:] = 0
        for row in range(max(clip[0], s.shown[0]), min(clip[1], s.shown[1])):
            y = view.y[row]
            _span(s, y, view, columns)
            left, right = max(columns[0], clip[2], s.shown[2]), min(columns[1], clip[3], s.shown[3])
            if left >= right:
                continue
            start, end = wide(left, right, width)
            if s.form == _BOX:
                _meet_box(s, view.x, y, start, end, inside, depth, cosines)
            elif s.form == _CYLINDER:
                _meet_cylinder(s, view.x, y, start, end, inside, depth, extra, cosines)
            else:
                _meet_capsule(s, view.x, y, start, end, inside, depth, extra, cosines)
            if s.texture != _PLAIN:
                _accent(s, view.x, y, start, end, depth, share)
            _blend(layer, s, row, left, right, start, end, lamp, sky, inside, depth, cosines, share, cover, first + i)


@part
def _span(s, y, view, columns):
    """First and end column of a row in which the body can be: within the outline of the box around it."""
    left, right, middle = -1.0, 1e9, 0.5 * len(view.x) - 0.5
    for k in range(s.edges):
        a, rest = s.lines[k, 0], s.lines[k, 1] * y + s.lines[k, 2] + 1.0  # a pixel more on each side
        if a > 0:
            left = max(left, middle - rest / a * view.focal)
        elif a < 0:
            right = min(right, middle - rest / a * view.focal + 1)
        elif rest < 0:
            right = -1.0
    columns[0], columns[1] = int(min(left, 1e9)), int(max(right, -1.0))


@part
def _meet_box(s, x, y, left, right, inside, depth, cosines):
    """Rays ``(x, y, 1)`` of a row against a body.

    Writes pixels inside its outline (right to first order near the outline), depth of the surface (meaningless more
    than a pixel outside), and the cosines between its normal and the body's ``own`` directions.
    """
    for k in range(s.edges):
        a, b = _f(s.lines[k, 0]), _f(s.lines[k, 1] * y + s.lines[k, 2])
        for c in range(_u(left), _u(right)):
            inside[c] = a * x[c] + b if k == 0 else min(inside[c], a * x[c] + b)
    # The ray enters where it has entered all slabs: at the largest depth, the least inverse depth.
    a0, b0 = _f(s.planes[0, 0]), _f(s.planes[0, 1] * y + s.planes[0, 2])
    a1, b1 = _f(s.planes[1, 0]), _f(s.planes[1, 1] * y + s.planes[1, 2]) if s.faces > 1 else _f(1e30)
    a2, b2 = _f(s.planes[2, 0]), _f(s.planes[2, 1] * y + s.planes[2, 2]) if s.faces > 2 else _f(1e30)
    for c in range(_u(left), _u(right)):
        depth[c] = _1 / max(min(min(a0 * x[c] + b0, a1 * x[c] + b1), a2 * x[c] + b2), _1 / _FAR)
    for j in range(3):
        f0, f1, f2, cosine = _f(s.facing[0, j]), _f(s.facing[1, j]), _f(s.facing[2, j]), cosines[j]
        for c in range(_u(left), _u(right)):
            n0, n1, n2 = a0 * x[c] + b0, a1 * x[c] + b1, a2 * x[c] + b2
            cosine[c] = (f1 if n1 < n0 else f0) if n2 >= min(n0, n1) else f2


@part
def _affine(v, y, offset):
    """A direction's measure of a row's points, as a, b, c of ``(a x + b) depth + c``."""
    return _f(v[0]), _f(v[1] * y + v[2]), _f(offset)


@part
def _meet_cylinder(s, x, y, left, right, inside, depth, extra, cosines):
    a0, b0, ox = _affine(s.axes[0], y, s.origin[0])
    a1, b1, oy = _affine(s.axes[1], y, s.origin[1])
    a2, b2, oz = _affine(s.axes[2], y, s.origin[2])
    radius, half, scale = _f(s.radius), _f(max(s.half, 1e-5)), _f(s.scale)
    side = _1 if oz > 0 else -_1
    capped, end = abs(oz) > half, side * half - oz
    # An end's distance along the axis, seen at a slant.
    beside = s.origin[0] ** 2 + s.origin[1] ** 2
    slant = _f(max(math.sqrt(beside / max(beside + s.origin[2] ** 2, 1e-18)), 1e-3))
    for c in range(_u(left), _u(right)):
        dx, dy, dz = a0 * x[c] + b0, a1 * x[c] + b1, a2 * x[c] + b2
        across = max(dx * dx + dy * dy, _TINY)
        moment, middle = ox * dy - oy * dx, -(ox * dx + oy * dy) / across
        apart = moment * moment / across  # squared distance between ray and axis
        chord = math.sqrt(max(radius * radius - apart, _0) / across)
        enters, leaves = oz + (middle - chord) * dz, oz + (middle + chord) * dz
        over = min(max(enters, leaves) + half, half - min(enters, leaves)) * slant
        inside[c] = min(radius - math.sqrt(apart), over) * scale
        on_end = capped & (enters * side > half)
        found = end / (dz if dz != 0 else _TINY) if on_end else middle - chord
        depth[c] = found if found >= _NEAR else _FAR  # behind the camera: the depth test drops it
        extra[c] = side if on_end else _0
    for j in range(3):
        own, cosine = s.own[j], cosines[j]
        a, b, start, facing = _round_cosine(s, own[0], own[1], 0.0, y, own[2])
        for c in range(_u(left), _u(right)):
            cosine[c] = (a * x[c] + b) * depth[c] + start if extra[c] == 0 else facing * extra[c]


@part
def _round_cosine(s, u, v, w, y, last):
    """The cosine of a round body's normal with a direction ``(u, v, w)`` of its frame, as ``_affine``; and ``last``."""
    u, v, w = u / s.radius, v / s.radius, w / s.radius
    axes, o = s.axes, s.origin
    a = u * axes[0, 0] + v * axes[1, 0] + w * axes[2, 0]
    b = (u * axes[0, 1] + v * axes[1, 1] + w * axes[2, 1]) * y + u * axes[0, 2] + v * axes[1, 2] + w * axes[2, 2]
    return _f(a), _f(b), _f(u * o[0] + v * o[1] + w * o[2]), _f(last)


@part
def _meet_capsule(s, x, y, left, right, inside, depth, extra, cosines):
    """A capsule's hit lies on the sphere about the point of its axis that is beside the hit; a sphere has no length."""
    a0, b0, ox = _affine(s.axes[0], y, s.origin[0])
    a1, b1, oy = _affine(s.axes[1], y, s.origin[1])
    a2, b2, oz = _affine(s.axes[2], y, s.origin[2])
    radius, half, scale, y_squared = _f(s.radius), _f(s.half), _f(s.scale), _f(y * y + 1)
    for c in range(_u(left), _u(right)):
        dx, dy, dz = a0 * x[c] + b0, a1 * x[c] + b1, a2 * x[c] + b2
        across, squared = max(dx * dx + dy * dy, _TINY), x[c] * x[c] + y_squared
        moment, middle = ox * dy - oy * dx, -(ox * dx + oy * dy)
        chord = math.sqrt(max(across * radius * radius - moment * moment, _0))
        beside = min(max(oz + (middle - chord) / across * dz, -half), half)
        up = oz - beside
        # |d x o|^2 keeps its digits where (d o)^2 - d^2 o^2 loses them.
        one, other = dy * up - dz * oy, dz * ox - dx * up
        apart = moment * moment + one * one + other * other
        inside[c] = (radius - math.sqrt(apart / squared)) * scale
        found = (middle - dz * up - math.sqrt(max(squared * radius * radius - apart, _0))) / squared
        depth[c] = found if found >= _NEAR else _FAR
        extra[c] = beside
    for j in range(3):
        own, cosine = s.own[j], cosines[j]
        a, b, start, axial = _round_cosine(s, own[0], own[1], own[2], y, own[2] / s.radius)
        for c in range(_u(left), _u(right)):
            cosine[c] = (a * x[c] + b) * depth[c] + start - extra[c] * axial


@part
def _blend(layer, s, row, left, right, start, end, lamp, sky, inside, depth, cosines, share, cover, name):
    depths, ids, light = layer.depth, layer.ids, layer.light
    for c in range(_u(start), _u(end)):
        cover[c] = _0
    for c in range(_u(left), _u(right)):
        covered = min(max(inside[c] + _HALF, _0), _1)
        cover[c] = covered if depth[c] < depths[row, c] else _0
    # Lambert's law; a sky that gives 1 from above, 0.5 from below; Blinn and Phong's highlight, exponent 32.
    towards, up, shines, gloss = cosines[0], cosines[1], cosines[2], _f(0.6 * s.gloss)
    for c in range(_u(start), _u(end)):
        towards[c] = max(towards[c], _0)
    for c in range(_u(start), _u(end)):
        up[c] = up[c] * _f(0.25) + _f(0.75)
    for c in range(_u(start), _u(end)):
        shine = min(max(shines[c], _0), _1)
        shine *= shine
        shine *= shine
        shine *= shine
        shine *= shine
        shines[c] = shine * shine * gloss
    for k in range(3):
        colour, change, bright = _f(s.colour[k] * lamp[k]), _f((s.accent[k] - s.colour[k]) * lamp[k]), _f(lamp[k])
        for c in range(_u(start), _u(end)):
            new = (colour + change * share[c]) * towards[c] + bright * shines[c]
            old = light[k, row, c]
            light[k, row, c] = old + cover[c] * (new - old) if cover[c] > _0 else old
        colour, change = _f(s.colour[k] * sky[k]), _f((s.accent[k] - s.colour[k]) * sky[k])
        for c in range(_u(start), _u(end)):
            new, old = (colour + change * share[c]) * up[c], light[3 + k, row, c]
            light[3 + k, row, c] = old + cover[c] * (new - old) if cover[c] > _0 else old
    for c in range(_u(left), _u(right)):
        if cover[c] >= _HALF:
            depths[row, c], ids[row, c] = depth[c], name
            layer.lamp_share[row, c] = layer.open_share[row, c] = _1


@part
def _accent(s, x, y, left, right, depth, share):
    """Shares in [0, 1] of the accent colour: the patterns, softened by a pixel."""
    pixel = _f(max(1e-6, 1 / s.scale))
    a0, b0, c0 = _affine(s.axes[0], y, s.origin[0])
    a2, b2, c2 = _affine(s.axes[2], y, s.origin[2])
    cell = _f(max(0.16 * s.size[s.order[1]], 1.5 / s.scale))
    if s.texture == _LABEL:  # a slanted band around the middle and a thin line above it
        height = _f(s.size[2])
        for c in range(_u(left), _u(right)):
            z = (a2 * x[c] + b2) * depth[c] + c2
            slanted = z + _f(0.3) * ((a0 * x[c] + b0) * depth[c] + c0)
            line = _soft(_f(0.05) * height - abs(z - _f(0.72) * height), pixel)
            share[c] = max(_soft(_f(0.3) * height - abs(slanted), pixel), line)
    elif s.texture == _STRIPES:  # six rings across the longest axis
        axis = 2 if s.size[2] >= 0.999 * s.size[s.order[2]] else s.order[2]
        period = _f(s.size[axis] / 3)
        a, b, d = _affine(s.axes[axis], y, s.origin[axis])
        for c in range(_u(left), _u(right)):
            share[c] = _soft((_saw(((a * x[c] + b) * depth[c] + d) / period) - _f(0.25)) * period, pixel)
    elif s.texture == _CHECKER:  # cells of a quarter of the middle extent; a box's faces are in the middle of a cell
        cell = _f(s.size[s.order[1]] / 2)
        for axis in range(3):
            a, b, d = _affine(s.axes[axis], y, s.origin[axis] + s.size[axis] + 0.5 * cell)
            for c in range(_u(left), _u(right)):
                wave = _saw(((a * x[c] + b) * depth[c] + d) * _HALF / cell)
                sign = _2 * _soft((wave - _f(0.25)) * _2 * cell, pixel) - _1
                share[c] = sign if axis == 0 else share[c] * sign
        for c in range(_u(left), _u(right)):
            share[c] = _HALF + _HALF * share[c]
    elif s.texture == _WOOD:
        _wood(s, x, y, left, right, depth, pixel, share)
    else:  # speckle: grains scattered by a hash of the cell a point is in
        a1, b1, c1 = _affine(s.axes[1], y, s.origin[1])
        for c in range(_u(left), _u(right)):
            spot = _cell((a0 * x[c] + b0) * depth[c] + c0, cell) * 73856093
            spot ^= _cell((a1 * x[c] + b1) * depth[c] + c1, cell) * 19349663
            spot ^= _cell((a2 * x[c] + b2) * depth[c] + c2, cell) * 83492791
            share[c] = _f(0.85) if ((spot ^ (spot >> 13)) & 7) == 0 else _0


@part
def _wood(s, x, y, left, right, depth, pixel, share):
    """Grain along the longest axis, in planks a hand wide."""
    a0, b0, c0 = _affine(s.axes[s.order[2]], y, s.origin[s.order[2]])
    a1, b1, c1 = _affine(s.axes[s.order[1]], y, s.origin[s.order[1]])
    a2, b2, c2 = _affine(s.axes[s.order[0]], y, s.origin[s.order[0]])
    # The finer grain fades before it is finer than the pixels.
    fine, wide = _f(0.2 * min(max(1.5 - 83 * pixel * 4, 0.0), 1.0)), max(pixel, _f(0.001))
    for c in range(_u(left), _u(right)):
        along, across = (a0 * x[c] + b0) * depth[c] + c0, (a1 * x[c] + b1) * depth[c] + c1
        thin = (a2 * x[c] + b2) * depth[c] + c2
        plank = np.floor(across * _f(1 / 0.12))
        shifted = along + plank * _f(0.37)
        bend = _smooth(shifted * _f(1.7) + across * _f(2.3))
        found = _f(0.4) * _smooth(across * _f(38) + bend * _f(1.6) + plank * _f(0.61) + thin * _f(45))
        found += fine * _smooth(across * _f(83) + bend * _2 + shifted * _f(0.9) + thin * _f(90))
        found += _f(0.2) * _smooth(plank * _f(0.297))
        seam = _soft(_f(0.0012) - _f(0.12) * _saw(across * _f(1 / 0.12)), wide)
        share[c] = max(found, _f(0.9) * seam)


@part
def _cell(value, cell):
    return np.int64(np.floor(min(max(value / cell + _f(0.37), _f(-32768)), _f(32767))))


@part
def _soft(distance, pixel):
    """An edge at distance 0 as wide as a pixel."""
    return min(max(distance / pixel + _HALF, _0), _1)


@part
def _saw(value):
    """Triangle wave of period 1 between 0 at whole numbers and 0.5 between them."""
    return abs(value - np.floor(value + _HALF))


@part
def _smooth(value):
    """A rounded wave of period 1 between 0 and 1: like a sine, in exactly rounded operations only."""
    wave = _2 * _saw(value)
    return wave * wave * (_3 - _2 * wave)
