"""Consistency of tracks made by hand: what is caught, and what a border or a screen excuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from selfflow_mm.data.world.vocabulary import SHAPES
from selfflow_mm.evaluation.world.consistency import check
from selfflow_mm.evaluation.world.tracks import Track

Maker = Callable[..., Track]
STILL = np.tile([30.0, 40.0], (33, 1))


def test_what_stays_is_whole(track_of: Maker) -> None:
    assert check([track_of(STILL)]).whole and check([]).whole


def test_what_is_gone_in_the_middle_has_vanished(track_of: Maker) -> None:
    place = STILL.copy()
    place[14:19] = np.nan
    assert check([track_of(place)]).vanished == 1
    place[19:] = np.nan  # and never comes back
    assert check([track_of(place)]).vanished == 1
    late = STILL.copy()
    late[:7] = np.nan  # comes from nowhere
    assert check([track_of(late)]).vanished == 1


def test_borders_and_screens_excuse(track_of: Maker) -> None:
    t = np.arange(33.0)
    enters = np.stack([-30 + 3 * t, np.full(33, 40.0)], axis=1)
    enters[enters[:, 0] < -4] = np.nan
    leaves = enters[::-1].copy()
    assert check([track_of(enters)]).whole and check([track_of(leaves)]).whole
    behind = STILL.copy()
    behind[12:20] = np.nan
    hidden = track_of(behind)
    cut = hidden.cut.copy()
    cut[[11, 20]] = True  # the screen touches it before and after
    assert check([replace(hidden, cut=cut)]).whole
    cut[20] = False  # it comes back in the open
    assert check([replace(hidden, cut=cut)]).vanished == 1


def test_a_change_of_colour_is_no_vanishing(track_of: Maker) -> None:
    red, blue = STILL.copy(), STILL.copy()
    red[15:], blue[:15] = np.nan, np.nan
    found = check([track_of(red), track_of(blue, "blue")])
    assert (found.recoloured, found.vanished) == (1, 0)
    far = check([track_of(red), track_of(blue + [25.0, 0.0], "blue")])
    assert (far.recoloured, far.vanished) == (0, 2)


def test_size_and_shape_are_kept(track_of: Maker) -> None:
    track = track_of(STILL)
    area, shapes = track.area.copy(), track.shapes.copy()
    area[20:23] *= 0.6  # a limb is lost: still there, but not steady
    assert check([replace(track, area=area)]).unsteady == 1
    shapes[:10] = np.roll(shapes[:10], 1, axis=1)
    assert SHAPES[int(shapes[0].argmax())] != track.shape
    assert check([replace(track, shapes=shapes)]).reshaped == 1
